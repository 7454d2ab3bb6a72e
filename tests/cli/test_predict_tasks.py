"""Several tasks of one model at once: the label maps of each alone, and no pass of the backbone that is not needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_model import write_classifier
from random_models import engine_of, hippocampus, plan_of, write_model

from spadunet.cli import predict
from spadunet.files import sha256_of_file
from spadunet.inference import shared
from spadunet.inference.budget import Budget
from spadunet.inference.ensemble import Member
from spadunet.inference.predict import build_networks, views_of
from spadunet.inference.shared import segment_together
from spadunet.inference.stages import StageTimes
from spadunet.inference.storage import Storage
from spadunet.labels import LabelSet
from spadunet.model import load_model, save_model
from spadunet.network.adapters import Adapter
from spadunet.network.build import build_backbone, build_task
from spadunet.network.unet import SpadUNet
from spadunet.task import ADAPTER_PREFIX, AdapterRecord, Task

CLASSES = LabelSet(names=("background", "a", "b", "c", "d"), ids=(0, 1, 2, 5, 7))
MANY = LabelSet(names=("background", *(f"organ{n}" for n in range(1, 20))), ids=tuple(range(20)))
"""More than the network has features."""
REGIONS = LabelSet.model_validate(
    {
        "names": ("background", "left kidney", "right kidney"),
        "ids": (0, 1, 2),
        "regions": (
            {"name": "kidneys", "ids": (1, 2), "painted_id": 1},
            {"name": "right kidney", "ids": (2,), "painted_id": 2},
        ),
    }
)
NAMES = tuple(f"Dataset00{number}_{name}" for number, name in enumerate(("A", "Many", "Regions", "Other", "Lora"), 1))


def task_of(labels: LabelSet, name: str, *, depth: int = 24, seed: int, channel_map: dict) -> Task:
    """Random heads, on a channel map."""
    torch.manual_seed(seed)
    head = build_task(1, labels.num_outputs, "spad_unet", "tiny")
    with torch.no_grad():
        head.heads[0].weight *= 8
    plan = plan_of(labels, depth=depth).model_copy(update={"dataset_name": name})
    return Task(plan=plan, state=head.state_dict() | channel_map)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tasks: three see the same, one has other windows, one an adapter."""
    folder = write_model(tmp_path_factory.mktemp("models") / "one", 0, plan_of(CLASSES))
    whole = load_model(folder)
    channel_map = {key: value for key, value in next(iter(whole.tasks.values())).state.items() if "channel" in key}
    kinds = {NAMES[0]: CLASSES, NAMES[1]: MANY, NAMES[2]: REGIONS}
    tasks = {
        name: task_of(labels, name, seed=seed, channel_map=channel_map)
        for seed, (name, labels) in enumerate(kinds.items())
    }
    tasks[NAMES[3]] = task_of(CLASSES, NAMES[3], depth=16, seed=7, channel_map=channel_map)
    record, backbone = AdapterRecord(rank=2, num_experts=2), build_backbone("spad_unet", "tiny")
    adapter = Adapter(backbone, rank=2, num_experts=2)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    adapted = task_of(CLASSES, NAMES[4], seed=8, channel_map=channel_map)
    state = adapted.state | {ADAPTER_PREFIX + key: value for key, value in adapter.state_dict().items()}
    tasks[NAMES[4]] = replace(adapted, state=state, adapter=record)
    save_model(folder.parent / "model", replace(whole, tasks=tasks))
    return folder.parent / "model"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> Path:
    """Two real cases, in parts."""
    raw = copy_demo("Dataset004_Hippocampus", tmp_path_factory.mktemp("raw") / "x", num_cases=2, size=(40, 36, 28))
    return raw / "imagesTr"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of windows with each pass of a backbone."""
    counts: list[int] = []
    real = SpadUNet.forward

    def forward(self, x, da):
        counts.append(len(x))
        return real(self, x, da)

    monkeypatch.setattr(SpadUNet, "forward", forward)
    return counts


def predicted(run, model: Path, images: Path, output: Path, *words: object) -> int:
    """The exit code."""
    return run(predict.main, "-m", model, "-i", images, "-o", output, "-device", "cpu", *words)


def label_maps(folder: Path) -> dict[str, str]:
    """SHA-256 by name."""
    return {path.name: sha256_of_file(path) for path in folder.glob("*.nii.gz")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [(), ("--mirror", "left-right"), ("--precision", "bf16", "--spacing", "native", "--save-probabilities")]
)
def test_tasks_together_give_the_label_maps_and_quality_of_each_alone(
    words, model: Path, images: Path, tmp_path: Path, run, passes: list[int], caplog: pytest.LogCaptureFixture
):
    assert predicted(run, model, images, tmp_path / "together", "--tasks", *NAMES, *words) == 0
    num_together = sum(passes)
    assert f"one pass of the backbone serves {', '.join(NAMES[:3])}" in caplog.text
    alone = {}
    for name in NAMES:
        passes.clear()
        assert predicted(run, model, images, tmp_path / name, "-d", name, *words) == 0
        alone[name] = sum(passes)
        folder = tmp_path / "together" / name
        assert len(label_maps(folder)) == 2
        assert label_maps(folder) == label_maps(tmp_path / name)
        for file in ("quality.csv", "labels.json"):
            assert (folder / file).read_text() == (tmp_path / name / file).read_text()
        assert (folder / "spadunet_predict.json").is_file()
        for path in (tmp_path / name).glob("*.npz"):
            with np.load(path) as one, np.load(folder / path.name) as other:
                assert np.array_equal(one["probabilities"], other["probabilities"])
        assert len(list(folder.glob("*.npz"))) == (2 if "--save-probabilities" in words else 0)
    mirrored = max(alone[name] for name in NAMES[:3])  # regions of left and right may not be mirrored
    assert num_together == mirrored + alone[NAMES[3]] + alone[NAMES[4]]
    assert num_together < sum(alone.values())


def test_one_pass_serves_tasks_that_see_the_same(model: Path, images: Path, tmp_path: Path, run, passes: list[int]):
    """The quick one of the above."""
    one = tmp_path / "images"
    one.mkdir()
    first = sorted(images.iterdir())[0]
    (one / first.name).write_bytes(first.read_bytes())
    words = ("--overlap", 0)
    assert predicted(run, model, one, tmp_path / "together", "--tasks", "A", 2, *words) == 0
    num_together = len(passes)
    passes.clear()
    for name in NAMES[:2]:
        assert predicted(run, model, one, tmp_path / name, "-d", name, *words) == 0
        assert label_maps(tmp_path / "together" / name) == label_maps(tmp_path / name) != {}
    assert len(passes) == 2 * num_together > 0


def test_where_memory_is_short_tasks_are_predicted_one_by_one(
    model: Path, images: Path, tmp_path: Path, run, passes: list[int], caplog: pytest.LogCaptureFixture, monkeypatch
):
    """Logits of all together would be rounded to half precision, those of each alone are not."""
    half = (Storage(place="host", dtype=torch.float16),)
    real = shared.choose_storages
    words = ("--overlap", 0)
    most = max(CLASSES.num_outputs, len(REGIONS.regions))
    monkeypatch.setattr(shared, "choose_storages", lambda it, b: half if it.num_outputs > most else real(it, b))
    assert predicted(run, model, images, tmp_path / "both", "--tasks", NAMES[0], NAMES[2], *words) == 0
    assert caplog.text.count("no room for the logits of 2 tasks at once; predicted one by one") == 2
    num_both = len(passes)
    passes.clear()
    assert predicted(run, model, images, tmp_path / "alone", "-d", NAMES[0], *words) == 0
    assert label_maps(tmp_path / "both" / NAMES[0]) == label_maps(tmp_path / "alone")
    assert num_both == 2 * len(passes)


def test_where_the_shared_pass_fails_tasks_are_predicted_one_by_one(
    model: Path, images: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture, monkeypatch
):
    def fail(*arguments):
        raise RuntimeError("some operator")

    monkeypatch.setattr(shared, "sweep_together", fail)
    names = (NAMES[0], NAMES[2])
    assert predicted(run, model, images, tmp_path / "both", "--tasks", *names, "--overlap", 0) == 0
    assert caplog.text.count("unexpected RuntimeError with 2 tasks at once; predicted one by one") == 2
    for name in names:
        assert len(label_maps(tmp_path / "both" / name)) == 2


def test_features_of_all_mirror_images_count_among_the_memory_that_the_shared_pass_takes(model: Path, monkeypatch):
    whole = load_model(model)
    engines = [
        engine_of(Member(network=network, plan=whole.tasks[name].plan), mirror=("left-right", "anterior-posterior"))
        for name, network in build_networks(whole, [NAMES[0], NAMES[2]]).items()
    ]
    views = views_of("a", hippocampus(), engines[0])
    geometry = next(iter(views.values())).geometry
    of_each = [it.demand(geometry.shape, geometry.da, geometry.stored_shape) for it in engines]
    num_outputs = sum(it.num_outputs for it in of_each)
    together = replace(of_each[0], num_outputs=num_outputs, num_logits=num_outputs)
    room_bytes = together.least_bytes() + 2 * together.held_bytes(torch.float32)
    of_features = 4 * (1 + engines[0].network.head.in_channels) * 24 * 32 * 32 * 4
    swept = [object()]
    monkeypatch.setattr(shared, "sweep_together", lambda *arguments: swept)
    for more, answers in ((0, None), (of_features - 1, None), (of_features, swept)):
        budget = Budget(host_bytes=room_bytes + more)
        assert segment_together(views, [replace(it, budget=budget) for it in engines], StageTimes()) is answers


def test_a_task_that_gives_nan_fails_alone(model: Path, images: Path, tmp_path: Path, run, caplog):
    whole = load_model(model)
    bad = replace(
        whole.tasks[NAMES[2]], state=whole.tasks[NAMES[2]].state | {"heads.0.bias": torch.full((2,), torch.nan)}
    )
    save_model(tmp_path / "model", replace(whole, tasks={NAMES[0]: whole.tasks[NAMES[0]], NAMES[2]: bad}))
    assert predicted(run, tmp_path / "model", images, tmp_path / "out", "--tasks", 1, 3, "--overlap", 0) == 1
    assert predicted(run, model, images, tmp_path / "alone", "-d", 1, "--overlap", 0) == 0
    assert label_maps(tmp_path / "out" / NAMES[0]) == label_maps(tmp_path / "alone") != {}
    assert label_maps(tmp_path / "out" / NAMES[2]) == {}


def test_a_broken_image_fails_in_every_task_and_stops_no_other(model: Path, images: Path, tmp_path: Path, run, caplog):
    mixed = tmp_path / "images"
    mixed.mkdir()
    first = sorted(images.iterdir())[0]
    (mixed / first.name).write_bytes(first.read_bytes())
    (mixed / "broken_0000.nii.gz").write_bytes(b"no image")
    words = ("--overlap", 0, "--tasks", *NAMES[:2])
    assert predicted(run, model, mixed, tmp_path / "out", *words) == 1
    assert caplog.text.count("broken_0000.nii.gz: damaged gzip file") == 2
    for name in NAMES[:2]:
        assert len(label_maps(tmp_path / "out" / name)) == 1


def test_a_dry_run_writes_nothing_and_wrong_options_are_told(
    model: Path, images: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    said = {
        ("--tasks", "Liver"): f"--tasks Liver: is no task of {model}, which has {NAMES[0]}, ",
        ("--tasks", NAMES[0], "-d", 1): "-d: does not go with --tasks",
        ("--tasks", NAMES[0], "--roi-subset", "a"): "--roi-subset: does not go with --tasks",
        ("--tasks", NAMES[0], "-m", model, model): "--tasks: are of one model",
        ("--tasks", NAMES[0], "--heat-maps"): "--heat-maps: is for tasks that classify, and these predict label maps",
    }
    for words, message in said.items():
        assert predicted(run, model, images, out, *words) == 2
        assert message in capsys.readouterr().err
    assert predicted(run, model, images, out, "--tasks", *NAMES[:2], "--dry-run") == 0
    assert capsys.readouterr().out.count("spadunet_predict --dry-run: nothing is written") == 2
    assert not out.exists()


def test_tasks_that_classify_follow_those_that_segment(model: Path, images: Path, tmp_path: Path, run):
    """Each with what it writes when it is asked for alone."""
    whole, name = load_model(model), "cubes"
    write_classifier(tmp_path / "mixed", size=(16, 16, 16), tasks={NAMES[0]: whole.tasks[NAMES[0]]})
    assert predicted(run, tmp_path / "mixed", images, tmp_path / "out", "--tasks", name, NAMES[0], "--overlap", 0) == 0
    assert len(label_maps(tmp_path / "out" / NAMES[0])) == 2
    assert predicted(run, tmp_path / "mixed", images, tmp_path / "alone", "-d", name) == 0
    table = "predictions.csv"
    assert (tmp_path / "out" / name / table).read_text() == (tmp_path / "alone" / table).read_text()
