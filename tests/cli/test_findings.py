"""`spadunet_train --findings`, as a user calls it: label maps and findings of real cases through one backbone."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from findings_folder import COLUMNS, write_findings
from small_model import shrink_presets

from spadunet.class_predictions import read_predictions
from spadunet.classes import UNKNOWN
from spadunet.classification import joint
from spadunet.classification.batches import StudyBatch, StudyStream
from spadunet.classification.joint import JointLearner, JointRun, JointStream, join_networks
from spadunet.cli import evaluate, plan_and_preprocess, predict, runs, train
from spadunet.errors import OutputError
from spadunet.evaluation.classification import ClassificationScores
from spadunet.model import load_model
from spadunet.network.classify import ClassificationTask
from spadunet.network.heads import SegmentationTask
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.vit import SpadViT
from spadunet.training.curves import read_rows
from spadunet.training.epochs import read_epochs
from spadunet.training.loop import JointNetwork
from spadunet.training.patches import BatchStream
from spadunet.training.report import write_report

NAME = "Dataset004_Hippocampus"
FINDINGS = f"{NAME}_findings"
QUICK = ("--preset", "tiny", "--num-workers", 0, "-device", "cpu", "--precision", "float32")
SMALL = ("--batch-size", 1, "--findings-batch", 2, "--max-steps", 6, "--validate-every", 3, *QUICK)
WITHOUT_MAP = {"hippocampus_101", "hippocampus_108"}
WITHOUT_ROW = "hippocampus_011"

Train = Callable[..., int]


@pytest.fixture(autouse=True)
def small_and_undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of two levels, and no page."""
    shrink_presets(monkeypatch)
    monkeypatch.setattr("spadunet.training.follow.write_report", lambda folder: None)
    monkeypatch.setattr("spadunet.training.curves.Curves.draw", lambda self: None)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, copy_demo, run) -> Path:
    """Ten planned cases: seven with label map and findings, one with a label map, two with findings."""
    folder = tmp_path_factory.mktemp("workspace")
    raw = copy_demo(NAME, folder / "raw" / NAME, num_cases=10, size=(20, 24, 16))
    write_findings(raw)
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.02, "-np", 1, "--data", folder) == 0
    return folder


@pytest.fixture
def learn(run, workspace: Path) -> Train:
    """The command on these cases."""

    def call(*words: object) -> int:
        return run(train.main, "-d", 4, "--findings", "--data", workspace, *words)

    return call


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[JointRun]:
    """Runs that would begin now."""
    found: list[JointRun] = []

    def take(run: JointRun, *_: object, **__: object) -> list[str]:
        found.append(run)
        return []

    monkeypatch.setattr("spadunet.classification.joint_train.train_with_findings", take)
    return found


@pytest.fixture
def joined(learn: Train, tmp_path: Path, taken: list[JointRun]) -> JointRun:
    """The usual one."""
    assert learn(*SMALL, "-o", tmp_path / "run") == 0
    return taken[0]


def stream_of(run: JointRun) -> JointStream:
    train = run.source.train
    patches = BatchStream(run.segmentation.tasks, 0)
    studies = StudyStream(train.open(), train.labels, batch_size=2, seed=0, recipe=None, is_dimmed=False)
    return JointStream(patches, studies, run.share)


@pytest.fixture
def trained(learn: Train, workspace: Path) -> Path:
    """The folder of a run without -o, which is trained once."""
    folder = workspace / f"results/{NAME}+{FINDINGS}/spad_unet_tiny/fold_0"
    assert folder.is_dir() or learn(*SMALL) == 0
    return folder


def test_one_command_trains_and_validates_both(learn: Train, run, workspace: Path, trained: Path, capsys):
    folder = trained
    model = load_model(folder)
    assert (list(model.tasks), list(model.classifiers)) == ([NAME], [FINDINGS])
    assert model.classifiers[FINDINGS].plan.classes.names == COLUMNS
    assert model.classifiers[FINDINGS].plan.target_spacing_mm == model.tasks[NAME].plan.target_spacing_mm
    assert {row["task"] for row in read_rows(folder / "curves.csv")} == {NAME, FINDINGS}
    assert [point.step for point in read_epochs(folder)] == [3, 6]
    assert {row["step"] for row in read_rows(folder / "validation.csv")} == {"3", "6"}
    scores = ClassificationScores.from_json((folder / "validation" / FINDINGS / "scores.json").read_text())
    held_out = {path.name.removesuffix(".nii.gz") for path in (folder / "validation" / NAME).glob("*.nii.gz")}
    classes = model.classifiers[FINDINGS].plan.classes
    predicted = read_predictions(folder / "validation" / FINDINGS / "predictions.csv", classes).studies
    assert scores.num_studies == len(predicted)
    assert held_out and held_out - {WITHOUT_ROW} == set(predicted) - WITHOUT_MAP
    page = write_report(folder).read_text()
    assert "cannot be shown" not in page
    assert "AUC" in page and "Dice" in page
    assert run(runs.main, "--data", workspace) == 0
    assert f", AUC {scores.auc:.4f}" in capsys.readouterr().out
    assert learn(*SMALL) == 2
    assert "trained already (6 steps)" in capsys.readouterr().err


@pytest.mark.slow
def test_both_are_learned(learn: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of each kind the last losses are well below the first, with the network that users have."""
    monkeypatch.undo()
    words = ("--batch-size", 2, "--findings-batch", 9, "--max-steps", 60, "--init", "spad_unet_tiny", *QUICK)
    assert learn(*words, "-f", "all", "-o", tmp_path / "run") == 0
    rows = read_rows(tmp_path / "run/curves.csv")
    for task, share in ((NAME, 0.7), (FINDINGS, 0.5)):
        losses = [float(row["loss"]) for row in rows if row["task"] == task]
        assert len(losses) in range(25, 36)
        assert np.mean(losses[-5:]) < share * np.mean(losses[:5])
    assert not (tmp_path / "run/validation").exists()


def test_studies_may_have_one_size(learn: Train, joined: JointRun, tmp_path: Path, taken: list[JointRun]):
    assert joined.source.plan.input_size_voxels is None
    assert learn(*SMALL, "--input-size", 8, "-o", tmp_path / "sized") == 0
    assert taken[-1].source.plan.input_size_voxels == (8, 8, 8)
    (view,) = taken[-1].source.train.open()[0]
    assert view.array.shape == (1, 8, 8, 8)


def test_a_run_begins_with_both_tasks_of_a_model(learn: Train, trained: Path, tmp_path: Path, taken: list[JointRun]):
    assert learn(*SMALL, "--init", trained, "-o", tmp_path / "run", "--dataset-weights", 1, 3) == 0
    (run,), model = taken, load_model(trained)
    assert run.share == 0.75
    states = [(run.task, model.classifiers[FINDINGS]), (run.segmentation.network.tasks[0], model.tasks[NAME])]
    for task, before in states:
        assert all(torch.equal(value, before.state[key]) for key, value in task.state_dict().items())
    assert run.segmentation.coverage is not None
    assert f"{FINDINGS} head" in {row.group for row in run.segmentation.coverage.rows}


def test_splits_of_the_table_are_those_of_both(run, tmp_path: Path, copy_demo, taken: list[JointRun]):
    """The patient of the last case is of the test split: neither kind learns of it, or validates on it."""
    raw = copy_demo(NAME, tmp_path / "raw" / NAME, num_cases=10, size=(20, 24, 16))
    rows = ("011,train,1", "017,train,0", "035,val,1", "046,val,0", "108,test,0")
    (raw / "labels.csv").write_text("\n".join(["image,split,large", *(f"hippocampus_{row}" for row in rows)]))
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.02, "-np", 1, "--data", tmp_path) == 0
    assert run(train.main, "-d", 4, "--findings", "--data", tmp_path, *SMALL) == 0
    (joined,) = taken
    assert joined.request["fold"] == "split"
    assert joined.segmentation.held_out == (("hippocampus_035", "hippocampus_046"),)
    (task,) = joined.segmentation.tasks
    assert len(task.cases) == 7
    assert "hippocampus_108" not in {case.name for case in task.cases}
    assert joined.source.held_out is not None
    assert joined.source.held_out.names == ("hippocampus_035", "hippocampus_046")
    assert (tmp_path / f"results/{NAME}+{FINDINGS}/spad_unet_tiny/fold_split").is_dir()


@pytest.mark.slow
def test_both_are_predicted_and_scored_by_the_usual_commands(
    run, workspace: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    raw, folder, out = workspace / "raw" / NAME, trained, tmp_path / "out"
    images, classes = raw / "imagesTr", load_model(folder).classifiers[FINDINGS].plan.classes
    assert run(predict.main, "-m", folder, "--tasks", NAME, FINDINGS, "-i", images, "-o", out, "-device", "cpu") == 0
    told = read_predictions(out / FINDINGS / "predictions.csv", classes)
    assert len(told.studies) == len(list((out / NAME).glob("*.nii.gz"))) == 10
    validated = read_predictions(folder / "validation" / FINDINGS / "predictions.csv", classes)
    same = [told.studies.index(name) for name in validated.studies]
    np.testing.assert_allclose(told.probabilities[same], validated.probabilities, atol=1e-3)  # stored as float16
    assert run(evaluate.main, "-p", out / FINDINGS / "predictions.csv", "-r", raw / "labels.csv") == 0
    assert f"predictions without a reference, left out: 1 ({WITHOUT_ROW})" in caplog.text
    for name in WITHOUT_MAP:
        (out / NAME / f"{name}.nii.gz").unlink()
    assert run(evaluate.main, "-p", out / NAME, "-r", raw / "labelsTr") == 0


def test_an_interrupted_run_ends_with_the_very_weights_of_one_that_was_not(
    learn: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    """SIGTERM in the midst of the third step, after which both kinds are validated."""
    assert learn(*SMALL, "-o", tmp_path / "whole") == 0
    real, count = JointLearner.learn, iter(range(100))

    def stopped(self: JointLearner, batch: joint.AnyBatch) -> dict[str, float]:
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(JointLearner, "learn", stopped)
        assert learn(*SMALL, "-o", tmp_path / "parts") == 130
    assert learn(*SMALL, "-o", tmp_path / "parts") == 0
    assert "going on after step 3" in caplog.text
    whole, parts = (load_model(tmp_path / name) for name in ("whole", "parts"))
    states = [
        {**it.backbone_state, **{f"t.{k}": v for task in it.all_tasks.values() for k, v in task.state.items()}}
        for it in (whole, parts)
    ]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert read_epochs(tmp_path / "whole") == read_epochs(tmp_path / "parts")
    assert whole.provenance == parts.provenance


def test_a_step_teaches_what_is_labelled_and_nothing_else(joined: JointRun):
    stream, learner = stream_of(joined), JointLearner(joined)
    network, task = joined.segmentation.network, joined.task
    patches, studies = (next(it for it in map(stream.__getitem__, range(9)) if isinstance(it, StudyBatch) is kind)
                        for kind in (False, True))  # fmt: skip

    def moved(batch: joint.AnyBatch) -> set[str]:
        """Parts whose weights a step changes; moments of earlier steps move nothing."""
        parts = {"encoder": network.backbone.encoder, "decoder": network.backbone.decoder, "task": network.tasks[0]}
        parts["findings"] = task
        before = {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in parts.items()}
        assert np.isfinite(learner.learn(batch)["loss"])
        return {n for n, p in parts.items() if any(not torch.equal(v, before[n][k]) for k, v in p.state_dict().items())}

    assert moved(patches) == {"encoder", "decoder", "task"}
    assert moved(studies) == {"encoder", "findings"}
    assert moved(patches) == {"encoder", "decoder", "task"}
    first = replace(studies, labels=torch.tensor([[1, UNKNOWN]] * 2))
    learner.studies.step(first)
    gradient = task.head.weight.grad
    assert gradient is not None
    assert gradient[0].any() and not gradient[1].any()  # the second finding was not looked for
    learner.studies.step(replace(studies, labels=torch.full((2, 2), UNKNOWN)))
    assert not any(it.grad.any() for it in learner.studies.parts.network.parameters() if it.grad is not None)


def test_a_case_without_a_label_map_is_never_drawn_for_patches_nor_one_without_a_row_for_findings(joined: JointRun):
    (task,), source = joined.segmentation.tasks, joined.source
    assert not WITHOUT_MAP & {case.name for case in task.cases}
    sides = [{*source.train.names}, {*source.held_out.names}]
    assert WITHOUT_ROW not in sides[0] | sides[1]
    assert sides[0] | sides[1] >= WITHOUT_MAP
    assert {case.name for case in task.cases} - {WITHOUT_ROW} == sides[0] - WITHOUT_MAP
    stream = stream_of(joined)
    drawn: dict[bool, set[str]] = {True: set(), False: set()}
    for batch in map(stream.__getitem__, range(24)):
        is_study = isinstance(batch, StudyBatch)
        drawn[is_study] |= set(batch.names if is_study else batch.cases)
    assert drawn[True] == sides[0]
    assert drawn[False] <= {case.name for case in task.cases}


def test_the_final_norm_of_a_vit_learns_from_findings_alone():
    vit = SpadViT(width=16, depth=4, num_heads=2, hidden_width=16)
    network = JointNetwork(SpadViTUNet(vit, [8, 8, 16, 16, 16, 16]), [SegmentationTask(1, 3, [8, 8])])
    parts = join_networks(network, ClassificationTask(1, 2, 16, "cls"))
    image = torch.rand(1, 1, 4, 16, 16)
    network.deep_logits(image, 2, 0)[0].sum().backward()
    assert vit.norm.weight.grad is None
    parts.network([(image, 2)]).square().sum().backward()
    assert vit.norm.weight.grad is not None and vit.norm.weight.grad.any()


def test_studies_that_do_not_fit_into_memory_are_taken_in_parts_of_their_own(joined: JointRun, monkeypatch):
    stream, learner = stream_of(joined), JointLearner(joined)
    studies = next(it for it in map(stream.__getitem__, range(9)) if isinstance(it, StudyBatch))
    real = learner.studies.parts.network.forward

    def narrow(views):
        if len(views[0][0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(views)

    monkeypatch.setattr(learner.studies.parts.network, "forward", narrow)
    batch = replace(studies, groups=studies.groups)
    assert np.isfinite(learner.learn(batch)["loss"])
    assert learner.numbers["num_parts"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--adapter", "lora"), "--adapter: does not go with --findings"),
        (("--fraction", 0.5), "--fraction: does not go with --findings"),
        (("--dataset-weights", 1), "with --findings give one of label maps, one of them"),
        (("--epochs", 3), "--epochs: is for --task classification"),
        (("--task", "classification"), "--findings: is for segmentation; leave it out"),
        (("--input-size", 8, "--spacing", "native"), "--spacing native: studies have an --input-size instead"),
        (("--pooling", "cls", *SMALL), "--pooling cls: a U-Net has no cls token"),
    ],
)
def test_options_that_do_not_go_together_are_refused(learn: Train, tmp_path: Path, words, message: str, capsys):
    assert learn(*words, "-o", tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_what_will_be_refused_is_refused_before_studies_are_preprocessed(
    learn: Train, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    def too_early(*_: object, **__: object) -> None:
        raise AssertionError("preprocessed")

    monkeypatch.setattr("spadunet.classification.preparation.prepare_folder", too_early)
    said = {
        ("--pooling", "cls", "-o", tmp_path / "run"): "--pooling cls: a U-Net has no cls token; use mean or attention",
        ("-o", trained): "trained already (6 steps)",
        ("-o", trained, "--findings-batch", 3): "an earlier run had findings_batch 2, not 3; give the same options",
        ("-o", trained, "--pooling", "attention"): "an earlier run had pooling mean, not attention",
    }
    for words, message in said.items():
        for more in ((), ("--dry-run",)):
            assert learn(*SMALL, *words, *more) == 2
            assert message in capsys.readouterr().err


def test_findings_batch_needs_findings(run, workspace: Path, capsys):
    assert run(train.main, "-d", 4, "--findings-batch", 3, "--data", workspace) == 2
    assert "--findings-batch 3: is of --findings; give that too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "labels.csv: not found; --findings learns what it says of images"),
        ("image,large\nhippocampus_017,yes\nnobody,no\n", "line 3: image 'nobody' is not in"),
        ("image,large\nhippocampus_017,yes\nhippocampus_035,yes\n", "every label is 'yes'; expected at least two"),
        ("image,split,large\nhippocampus_017,train,yes\nhippocampus_035,val,no\n", "-f 0: "),
    ],
)
def test_tables_that_teach_nothing_are_refused(
    run, workspace: Path, tmp_path: Path, copy_demo, table: str | None, message: str, capsys
):
    raw = copy_demo(NAME, tmp_path / "raw" / NAME, num_cases=3, size=(12, 16, 12))
    (tmp_path / "preprocessed").symlink_to(workspace / "preprocessed")
    if table is not None:
        (raw / "labels.csv").write_text(table)
    words = ("-d", 4, "--findings", "--data", tmp_path, "-o", tmp_path / "run", "-f", 0, *QUICK)
    assert run(train.main, *words) == 2
    assert message in capsys.readouterr().err


def test_images_with_rows_alone_are_for_the_other_command_and_one_without_either_is_told(
    run, tmp_path: Path, copy_demo, capsys
):
    raw = copy_demo(NAME, tmp_path / "raw" / NAME, num_cases=3, size=(12, 16, 12))
    write_findings(raw, without_map=3, without_row=0)
    words = ("-d", 4, "--data", tmp_path, "-np", 1)
    assert run(plan_and_preprocess.main, *words) == 2
    told = capsys.readouterr().err
    assert "no image has a label map, only rows in labels.csv" in told
    assert "spadunet_train --task classification" in told
    (raw / "labels.csv").write_text("image,large\nhippocampus_017,1\n")
    assert run(plan_and_preprocess.main, *words) == 2
    assert (
        "label file missing (and 1 more); add it or take its image out of imagesTr, or give it a row in"
        in capsys.readouterr().err
    )


def test_a_dry_run_tells_of_both_and_writes_nothing(learn: Train, tmp_path: Path, monkeypatch, capsys):
    def no_trial(*_: object) -> None:
        raise OutputError("no trial")

    monkeypatch.setattr("spadunet.training.estimate.estimate_training", no_trial)
    assert learn(*SMALL, "-o", tmp_path / "run", "--dry-run") == 0
    told = capsys.readouterr().out
    assert f"{FINDINGS}: multi-label, anterior_larger, large" in told
    assert "studies of" in told
    assert not (tmp_path / "run").exists()
