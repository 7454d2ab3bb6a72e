"""Runs on real cubes: they learn, go on exactly, keep the best epoch, and leave alone what is frozen."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spadunet.class_predictions import read_predictions
from spadunet.classes import UNKNOWN, ClassSet
from spadunet.classification import learner as learning
from spadunet.classification.batches import StudyStream
from spadunet.classification.epochs import Epochs
from spadunet.classification.learner import ClassificationLearner
from spadunet.classification.options import ClassificationOptions
from spadunet.classification.prepared import prepare_classification
from spadunet.classification.train import train_classification
from spadunet.inference.classify import as_input, build_classifier
from spadunet.model import Model, load_model
from spadunet.pretrained import find_weights
from spadunet.task import AdapterRecord
from spadunet.training.curves import read_rows
from spadunet.training.epochs import read_epochs
from spadunet.training.report import write_report
from spadunet.training.runs import find_runs

INIT = find_weights("spad_unet_tiny")
OPTIONS = ClassificationOptions(
    max_steps=6,
    max_minutes=None,
    seed=0,
    device=torch.device("cpu"),
    precision=torch.float32,
    num_workers=0,
    checkpoint_minutes=5,
    batch_size=8,
    learning_rate=3e-3,
    weight_decay=0.01,
)


def prepare(source, options, **changes):
    return prepare_classification(source, options, **{"backbone": "spad_unet", "preset": "tiny", **changes})


def tensors_of(model: Model, name: str = "cubes") -> dict[str, torch.Tensor]:
    return {**model.backbone_state, **{f"task.{key}": value for key, value in model.classifiers[name].state.items()}}


def test_a_run_tells_front_from_back_and_leaves_model_scores_and_page(source, make_options, tmp_path: Path):
    scores = train_classification(prepare(source, make_options(max_steps=24)), tmp_path)
    assert scores is not None and scores.auc is not None
    assert scores.auc > 0.9
    losses = [float(row["loss"]) for row in read_rows(tmp_path / "curves.csv")]
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    points = read_epochs(tmp_path)
    assert [point.epoch for point in points] == list(range(1, 13))
    best = max(points, key=lambda point: (point.auc or 0, -(point.loss or 0)))
    model = load_model(tmp_path)
    assert model.provenance["best_epoch"] == f"{best.epoch:g}"
    predictions = read_predictions(tmp_path / "validation/cubes/predictions.csv", source.plan.classes)
    network = build_classifier(model, "cubes")
    studies = source.held_out.open()
    with torch.no_grad():
        logits = network(as_input([studies[number] for number in range(8)], source.plan, torch.device("cpu")))
    np.testing.assert_allclose(logits.softmax(1).numpy(), predictions.probabilities, atol=1e-5)
    assert predictions.studies == source.held_out.names
    page = write_report(tmp_path).read_text()
    assert "Training of a classification: cubes" in page
    assert "weights that were kept" in page
    assert "cannot be shown" not in page
    assert "Dice" not in page
    (run,) = find_runs(tmp_path)
    assert (run.kind, run.datasets, run.state, run.auc) == ("classification", ("cubes",), "finished", scores.auc)


def require_kept(folder: Path) -> None:
    """The model has the very backbone that it started from."""
    before, after = (load_model(it).backbone_state for it in (INIT, folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(value.float(), after[key]) for key, value in before.items())


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """SIGTERM in the midst of a step."""
    step, count = ClassificationLearner.step, iter(range(100))

    def stopped(self, batch):
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    monkeypatch.setattr(ClassificationLearner, "step", stopped)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_classification(prepare(source, OPTIONS), folder)
    return folder


@pytest.mark.parametrize("at", [2, 3], ids=["within an epoch", "before a validation"])
def test_an_interrupted_run_ends_with_the_very_weights_of_one_that_was_not(
    source, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    with monkeypatch.context() as patched:
        interrupt(patched, at)
        with pytest.raises(KeyboardInterrupt):
            train_classification(prepare(source, OPTIONS), tmp_path)
    train_classification(prepare(source, OPTIONS, goes_on=True), tmp_path)
    models = [load_model(it) for it in (whole, tmp_path)]
    tensors = [tensors_of(model) for model in models]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())
    assert models[0].provenance == models[1].provenance
    assert read_epochs(whole) == read_epochs(tmp_path)


def test_a_validation_that_a_kill_prevented_is_made_up_for(source, whole: Path, tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patched:
        interrupt(patched, 3)

        def die(self, step, seconds=0.0):  # the signal came after step 4; its state is saved before it validates
            if step == 4:
                raise SystemExit("killed")
            return judge(self, step, seconds)

        judge = Epochs.after_step
        patched.setattr(Epochs, "after_step", die)
        with pytest.raises(SystemExit):
            train_classification(prepare(source, OPTIONS), tmp_path)
    train_classification(prepare(source, OPTIONS, goes_on=True), tmp_path)
    assert read_epochs(whole) == read_epochs(tmp_path)


def test_a_frozen_backbone_stays_as_it_is_to_the_bit(source, make_options, tmp_path: Path):
    run = prepare(source, make_options(freezes_backbone=True, max_steps=4), init=INIT)
    train_classification(run, tmp_path)
    require_kept(tmp_path)
    fresh = prepare(source, make_options(freezes_backbone=True, max_steps=4), init=INIT).parts.task_state()
    learned = load_model(tmp_path).classifiers["cubes"].state
    assert not torch.equal(learned["head.weight"], fresh["head.weight"])


@pytest.mark.parametrize(("num_experts", "share"), [(1, 0.01), (4, 0.02)])
def test_an_adapter_learns_on_the_frozen_backbone_and_tells_how_its_experts_are_used(
    source, make_options, tmp_path: Path, num_experts: int, share: float
):
    adapter = AdapterRecord(rank=8, num_experts=num_experts)
    train_classification(prepare(source, make_options(adapter=adapter, max_steps=4), init=INIT), tmp_path)
    require_kept(tmp_path)
    model = load_model(tmp_path)
    classifier = model.classifiers["cubes"]
    assert classifier.adapter == adapter
    ups = [value for key, value in classifier.state.items() if key.startswith("adapter.") and key.endswith("up")]
    assert ups and all(value.any() for value in ups)
    few = sum(value.numel() for key, value in classifier.state.items() if key.startswith("adapter."))
    assert few < share * sum(value.numel() for value in model.backbone_state.values())
    row = read_rows(tmp_path / "curves.csv")[-1]
    names = [name for name in row if name.startswith("expert_")]
    assert names == ([f"expert_{number}" for number in range(1, num_experts + 1)] if num_experts > 1 else [])
    used = [float(row[name]) for name in names]
    if used:
        assert sum(used) == pytest.approx(1)
        assert 0 < float(row["router_entropy"]) <= np.log(num_experts) + 1e-5
    build_classifier(model, "cubes")


def test_parts_of_a_batch_and_its_layouts_give_the_gradient_of_the_whole(source, make_options):
    stream = StudyStream(source.train.open(), source.train.labels, batch_size=8, seed=0, recipe=None, is_dimmed=False)
    batch = stream[0]
    (group,) = batch.groups
    halves = [
        replace(group, places=group.places[part], views=tuple(group.part(part))) for part in (slice(0, 3), slice(3, 8))
    ]
    weights = []
    for groups, num_parts in (((group,), 1), ((group,), 3), (tuple(halves), 1)):
        run = prepare(source, make_options())
        learner = ClassificationLearner(run.parts, source.plan, run.options, keeps_best=False)
        learner.numbers["num_study_parts"] = num_parts
        learner.step(replace(batch, groups=groups))
        weights.append(run.parts.task.head.weight.grad)
    for other in weights[1:]:
        torch.testing.assert_close(weights[0], other, atol=1e-6, rtol=1e-4)


def test_memory_that_does_not_suffice_halves_the_batch(source, make_options, monkeypatch, caplog):
    run = prepare(source, make_options())
    learner = ClassificationLearner(run.parts, source.plan, run.options, keeps_best=False)
    network = run.parts.network.forward

    def narrow(views):
        if len(views[0][0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(views)

    monkeypatch.setattr(run.parts.network, "forward", narrow)
    batch = StudyStream(source.train.open(), source.train.labels, batch_size=8, seed=0, recipe=None, is_dimmed=False)[0]
    assert np.isfinite(learner.learn(batch)["loss"])
    assert learner.numbers["num_study_parts"] == 4
    assert "from now on at most 2" in caplog.text


def test_images_that_are_dimmed_are_dimmed_in_prediction_too(source, make_options, monkeypatch, tmp_path: Path):
    plan = source.plan.model_copy(update={"brightness": 0.5})
    views = [source.train.open()[0]]
    [(plain, _)], [(dimmed, _)] = (as_input(views, it, torch.device("cpu")) for it in (source.plan, plan))
    torch.testing.assert_close((dimmed + 1) / 2, 0.5 * (plain + 1) / 2)
    seen = []
    prepare_group = learning.ClassificationLearner.prepare

    def look(self, group, part, brightness):
        (view, _), *_ = prepare_group(self, group, part, brightness)
        seen.append(((view + 1) / 2).amax((1, 2, 3, 4)) / brightness)
        return [(view, 0)]

    monkeypatch.setattr(learning.ClassificationLearner, "prepare", look)
    options = make_options(is_dimmed=True, augmentation=None, max_steps=2)
    train_classification(prepare(replace(source, plan=plan), options), tmp_path)
    brightest = torch.cat(seen)  # of each cube, before it was dimmed
    assert brightest.min() > 0.9
    assert load_model(tmp_path).classifiers["cubes"].plan.brightness == 0.5


def test_without_auc_the_lowest_loss_decides_and_that_is_said_once(source, make_options, tmp_path: Path, caplog):
    held_out = replace(source.held_out, labels=np.zeros_like(source.held_out.labels))
    scores = train_classification(prepare(replace(source, held_out=held_out), make_options()), tmp_path)
    assert scores is not None
    assert scores.auc is None
    points = read_epochs(tmp_path)
    best = min(points, key=lambda point: point.loss or 0)
    provenance = load_model(tmp_path).provenance
    assert (provenance["best_epoch"], provenance["validation_auc"]) == (f"{best.epoch:g}", "undefined")
    assert caplog.text.count("their AUC is not defined") == 1


def test_without_validation_the_last_weights_are_kept(source, make_options, tmp_path: Path):
    assert train_classification(prepare(replace(source, held_out=None), make_options(max_steps=2)), tmp_path) is None
    assert not (tmp_path / "validation").exists()
    assert "best_epoch" not in load_model(tmp_path).provenance


def test_findings_of_which_some_are_unknown_are_learned(source, make_options, tmp_path: Path):
    classes = ClassSet(kind="multi-label", names=("back", "front"))
    plan = source.plan.model_copy(update={"classes": classes})

    def both(side):
        labels = np.concatenate([side.labels, 1 - side.labels], axis=1)
        labels[::3, 1] = UNKNOWN
        return replace(side, labels=labels)

    changed = replace(source, plan=plan, train=both(source.train), held_out=both(source.held_out))
    scores = train_classification(prepare(changed, make_options(max_steps=16)), tmp_path)
    assert scores is not None and scores.auc is not None
    assert scores.auc > 0.9
    assert scores.results[1].num_unknown == 3
