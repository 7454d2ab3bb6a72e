"""Several tasks of one model that classify: what each gives alone, by no pass of the encoder that is not needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from classifier_model import classification_plan, write_classifier
from random_models import plan_of, write_model
from study_folder import write_study_image

from spadunet.classes import ClassSet
from spadunet.cli import predict
from spadunet.files import sha256_of_file
from spadunet.inference import class_sources, predict_classes, shared_tokens, sources, studies
from spadunet.model import load_model, save_model
from spadunet.network.adapters import Adapter
from spadunet.network.build import build_backbone, build_classification_task
from spadunet.network.unet import Encoder
from spadunet.task import ADAPTER_PREFIX, AdapterRecord, Classifier

FINDINGS = ClassSet(kind="multi-label", names=("fluid", "mass", "air"))
NAMES = ("cubes", "findings", "dim", "lora", "large")
NUM_STUDIES = 4
WORDS = ("--precision", "float32", "--batch-size", 3)


def classifier_of(pooling: str, seed: int, channel_map: dict, *, adapter: AdapterRecord | None = None, **plan):
    """Random pooling and head, on a channel map."""
    torch.manual_seed(seed)
    task = build_classification_task(1, len(FINDINGS.names), "spad_unet", "tiny", pooling)
    with torch.no_grad():
        task.head.weight *= 20
    state = task.state_dict() | channel_map
    if adapter is not None:
        change = Adapter(build_backbone("spad_unet", "tiny"), rank=adapter.rank, has_decoder=False)
        state |= {ADAPTER_PREFIX + key: torch.randn_like(it) / 10 for key, it in change.state_dict().items()}
    own = classification_plan(FINDINGS, size=plan.pop("size", (1, 64, 64))).model_copy(update=plan)
    return Classifier(plan=own, pooling=pooling, state=state, adapter=adapter)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task that segments, and five that classify: two see the same, one darker, one has an adapter, one larger."""
    folder = tmp_path_factory.mktemp("models")
    segmenter = load_model(write_model(folder / "labels", 0, plan_of()))
    whole = load_model(write_classifier(folder / "one", size=(1, 64, 64), tasks=segmenter.tasks))
    channel_map = {key: it for key, it in whole.classifiers["cubes"].state.items() if key.startswith("channel_map")}
    more = {
        "findings": classifier_of("attention", 1, channel_map),
        "dim": classifier_of("mean", 2, channel_map, brightness=0.5),
        "lora": classifier_of("mean", 3, channel_map, adapter=AdapterRecord(rank=2)),
        "large": classifier_of("attention", 4, channel_map, size=(1, 96, 64)),
    }
    save_model(folder / "model", replace(whole, classifiers=whole.classifiers | more))
    return folder / "model"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """As many as studies, single slices."""
    for name in "abcd":
        write_study_image(tmp_path / "images" / f"{name}.nii.gz", shape=(1, 6, 5))
    return tmp_path / "images"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of images with each pass of an encoder."""
    counts: list[int] = []
    real = Encoder.forward

    def forward(self, x, da):
        counts.append(len(x))
        return real(self, x, da)

    monkeypatch.setattr(Encoder, "forward", forward)
    return counts


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of images that are read, one after the other."""
    names: list[str] = []
    real = studies.read_view
    monkeypatch.setattr(studies, "read_view", lambda raw, **more: names.append(raw.name) or real(raw, **more))
    return names


def predicted(run, model: Path, images: Path, output: Path, *words: object) -> int:
    """The exit code."""
    return run(predict.main, "-m", model, "-i", images, "-o", output, "-device", "cpu", *words)


def written(folder: Path) -> dict[str, str]:
    """SHA-256 of tables and heat maps by name."""
    paths = [folder / "predictions.csv", folder / "classes.json", *sorted((folder / "heat_maps").glob("*"))]
    return {path.name: sha256_of_file(path) for path in paths}


def test_tasks_together_give_what_each_gives_alone_and_share_reading_and_encoding(
    model: Path, images: Path, tmp_path: Path, run, encoded: list[int], read: list[str], caplog, monkeypatch
):
    with monkeypatch.context() as forbidden:  # the model is read once for all
        forbidden.delattr(class_sources, "load_model")
        forbidden.delattr(sources, "load_model")
        assert predicted(run, model, images, tmp_path / "together", "--tasks", *NAMES, *WORDS, "--heat-maps") == 0
    assert "one pass of the encoder serves cubes, findings" in caplog.text
    assert [f"a pass of its own: {name}" in caplog.text for name in NAMES] == [False, False, True, True, True]
    assert sum(encoded) == NUM_STUDIES * 4  # cubes and findings are one, heat maps are of the same pass
    assert len(read) == NUM_STUDIES * 2  # all but one are prepared alike
    for name in NAMES:
        assert predicted(run, model, images, tmp_path / name, "-d", name, *WORDS, "--heat-maps") == 0
        assert written(tmp_path / "together" / name) == written(tmp_path / name)
        assert len(written(tmp_path / name)) == 2 + 2 * NUM_STUDIES
    assert sum(encoded) == NUM_STUDIES * (4 + 5)


def test_each_task_goes_on_where_it_was_stopped(
    model: Path, images: Path, tmp_path: Path, run, encoded: list[int], monkeypatch
):
    names, words = NAMES[:2], ("--precision", "float32", "--batch-size", 1)
    for name in names:
        assert predicted(run, model, images, tmp_path / name, "-d", name, *words) == 0
    out, arguments = tmp_path / "out", ("--tasks", *names, *words)
    classify, calls = predict_classes.classify_batch, []

    def stop(batch, *more):
        calls.append(batch[0].item.name)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return classify(batch, *more)

    monkeypatch.setattr(predict_classes, "classify_batch", stop)
    assert predicted(run, model, images, out, *arguments) == 130
    assert [(out / name / "predictions.csv").read_text().count("\n") for name in names] == [3, 3]
    encoded.clear()
    assert predicted(run, model, images, out, *arguments) == 0
    assert sum(encoded) == 2
    for name in names:
        assert written(out / name) == written(tmp_path / name)
    assert predicted(run, model, images, out, *arguments, "--continue") == 0
    assert sum(encoded) == 2
    (out / names[0] / "predictions.csv").unlink()  # one has all to do, the other one nothing
    assert predicted(run, model, images, out, *arguments, "--continue") == 0
    assert sum(encoded) == 2 + NUM_STUDIES
    assert written(out / names[0]) == written(tmp_path / names[0])


def test_an_image_that_cannot_be_read_fails_in_every_task_and_values_that_are_not_finite_in_their_own(
    model: Path, images: Path, tmp_path: Path, run, caplog
):
    (images / "b.nii.gz").write_bytes(b"broken")
    whole = load_model(model)
    bad = whole.classifiers["findings"]
    bad = replace(bad, state=bad.state | {"head.bias": torch.full((3,), torch.nan)})
    save_model(tmp_path / "model", replace(whole, classifiers=whole.classifiers | {"findings": bad}))
    assert predicted(run, tmp_path / "model", images, tmp_path / "out", "--tasks", *NAMES[:2], *WORDS) == 1
    assert caplog.text.count("b.nii.gz: damaged gzip file") == 2
    assert caplog.text.count("the network gives values that are not finite") == 3
    assert (tmp_path / "out/cubes/predictions.csv").read_text().count("\n") == 4
    assert not (tmp_path / "out/findings/predictions.csv").exists()


def test_what_other_tasks_left_in_memory_goes_where_a_task_finds_no_room(
    model: Path, images: Path, tmp_path: Path, run, encoded: list[int], monkeypatch
):
    real = shared_tokens.SharedTokens.__call__

    def call(self, backbone, x, da):
        if any(other is not backbone for other, *_ in self.known):
            raise torch.OutOfMemoryError("out of memory")
        return real(self, backbone, x, da)

    monkeypatch.setattr(shared_tokens.SharedTokens, "__call__", call)
    assert predicted(run, model, images, tmp_path / "out", "--tasks", "cubes", "lora", *WORDS) == 0
    assert encoded == [3, 3, 1, 1]  # in the batches of the task alone


def test_input_of_all_tasks_is_checked_before_any_work(
    model: Path, images: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    words = ("--tasks", "Dataset001_A", *NAMES[:2])
    assert predicted(run, model, images, tmp_path / "out", *words, "--split", "val") == 2
    assert "--split val: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    write_study_image(images / "volume.nii.gz")
    assert predicted(run, model, images, tmp_path / "out", *words) == 2
    assert "1 of 5 images are volumes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_each_log_has_what_concerns_its_folder_and_options_of_one_kind_are_told(
    model: Path, images: Path, tmp_path: Path, run
):
    out, names = tmp_path / "out", NAMES[:2]
    words = ("--overlap", 0, "--heat-maps", "--save-probabilities", *WORDS)
    assert predicted(run, model, images, out, "--tasks", "Dataset001_A", *names, *words) == 0
    log = (out / "spadunet_predict.log").read_text()
    told = ["--overlap: for Dataset001_A", "--save-probabilities: for Dataset001_A", "--heat-maps: for cubes, findings"]
    for line in (*told, "task Dataset001_A, on cpu", "task findings, on cpu", "memory that may be taken"):
        assert line in log
    assert log.index("task Dataset001_A") < log.index("memory that may be taken")
    for name, other in (names, names[::-1]):
        own = (out / name / "spadunet_predict.log").read_text()
        assert f"task {name}, on cpu" in own
        assert f"4 studies predicted, 0 failed: {out / name}" in own
        assert other not in own
        assert "Dataset001_A" not in own


def test_a_dry_run_tells_of_each_task_and_writes_nothing(model: Path, images: Path, tmp_path: Path, run, capsys):
    assert predicted(run, model, images, tmp_path / "out", "--tasks", *NAMES[:2], "--dry-run") == 0
    assert capsys.readouterr().out.count("spadunet_predict --dry-run: nothing is written") == 2
    assert not (tmp_path / "out").exists()
