"""Both backbones from training to label maps, and runs that start from weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch
from torch import Tensor

from spadunet.cli import info, plan_and_preprocess, predict, train
from spadunet.inference import predict as prediction
from spadunet.inference.sliding import Slab
from spadunet.model import Model, load_model, read_model_record, save_model
from spadunet.network import build
from spadunet.training import loop
from spadunet.training import train as training
from spadunet.training.loop import RunOptions
from spadunet.training.patches import BatchStream

HIPPOCAMPUS = "Dataset004_Hippocampus"
QUICK = ("-f", "all", "--batch-size", 1, "--num-workers", 0, "-device", "cpu", "--precision", "float32")
SMALL_VIT = {"width": 24, "depth": 4, "num_heads": 2, "hidden_width": 32}
PREDICT_OFTEN = f"""
import sys
from spadunet.cli.predict import main
from spadunet.network import build
build.VIT_PRESETS["tiny"] = build.ViTSize(**{SMALL_VIT})
output, *words = sys.argv[1:]
for number in range(40):
    try:
        main([*words, "-o", f"{{output}}/{{number}}"])
    except SystemExit as end:
        assert not end.code
"""


@pytest.fixture(autouse=True)
def quick_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transformer made for tests in the place of `tiny`."""
    monkeypatch.setitem(build.VIT_PRESETS, "tiny", build.ViTSize(**SMALL_VIT))


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A pre-trained SPAD-ViT: a model folder without a task."""
    torch.manual_seed(7)
    state = {f"vit.{name}": value for name, value in build.build_vit("tiny").state_dict().items()}
    folder = tmp_path / "pretrained"
    save_model(folder, Model(backbone="spad_vit", preset="tiny", backbone_state=state, tasks={}, provenance={}))
    return folder


@pytest.mark.slow
def test_spad_vit_from_training_to_label_maps(planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    data = ("--data", tmp_path / "data")
    for part in ("raw", "preprocessed"):
        shutil.copytree(planned / part, tmp_path / "data" / part)
    names = ("-d", 4, "101", "--backbone", "spad_vit", "--preset", "tiny", "--max-steps", 2)
    assert run(train.main, *names, *QUICK, "-f", 0, *data) == 0
    [folder] = (tmp_path / "data/results").glob("*/spad_vit_tiny/fold_0")
    assert load_model(folder).backbone == "spad_vit"
    images = tmp_path / "data/raw" / HIPPOCAMPUS / "imagesTr"
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-d", 4, "-device", "cpu", *data) == 0
    for path in images.iterdir():
        image, labels = sitk.ReadImage(path), sitk.ReadImage(tmp_path / "out" / path.name.replace("_0000", ""))
        assert labels.GetSize() == image.GetSize()
        assert labels.GetSpacing() == image.GetSpacing()
    capsys.readouterr()
    assert run(info.main, *data) == 0
    assert f"{folder.relative_to(tmp_path / 'data/results')}  (spad_vit tiny, 2 steps)" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_tries_the_network_of_spad_vit(planned: Path, tmp_path: Path, run, capsys, monkeypatch):
    monkeypatch.undo()  # the trial is a process of its own
    names = ("-d", 4, "--backbone", "spad_vit", "--preset", "tiny", "--max-steps", 1, "-o", tmp_path / "model")
    assert run(train.main, *names, *QUICK, "--data", planned, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "network spad_vit tiny, fold all, cpu" in out
    assert "9 million parameters" in out
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("backbone", [pytest.param("spad_unet", marks=pytest.mark.slow), "spad_vit"])
def test_one_checkpoint_of_one_spacing_predicts_at_every_degree_of_anisotropy(
    backbone: str, copy_demo, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
):
    data = ("--data", tmp_path)
    raw = copy_demo(HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS, num_cases=2, size=(20, 24, 16))
    plan = ("-d", 4, "--spacing", "native", "--memory-gb", 0.03, "-np", 1)
    assert run(plan_and_preprocess.main, *plan, *data) == 0
    names = ("-d", 4, "--backbone", backbone, "--preset", "tiny", "--max-steps", 1)
    assert run(train.main, *names, *QUICK, *data) == 0

    write_each_degree(raw, tmp_path / "images")
    seen = []
    original = prediction.sweep_logits

    def note(network, image, da: int, *arguments, **options) -> Iterator[Slab]:
        seen.append(da)
        for slab in original(network, image, da, *arguments, **options):
            assert slab.logits.isfinite().all()
            yield slab

    monkeypatch.setattr(prediction, "sweep_logits", note)
    arguments = ("-i", tmp_path / "images", "-o", tmp_path / "out", "-d", 4, "-device", "cpu")
    assert run(predict.main, *arguments, *data) == 0
    assert sorted(seen) == list(range(7))
    assert len(list((tmp_path / "out").glob("da*.nii.gz"))) == 7


@pytest.mark.slow
def test_forty_predictions_of_seven_images_in_one_process_do_not_damage_its_memory(copy_demo, tmp_path: Path, run):
    """Without `ITK_LOCK` every third such process or so died."""
    raw = copy_demo(HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS, num_cases=2, size=(20, 24, 16))
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 4, "--spacing", "native", "--memory-gb", 0.03, "-np", 1, *data) == 0
    names = ("-d", 4, "--backbone", "spad_vit", "--preset", "tiny", "--max-steps", 1)
    assert run(train.main, *names, *QUICK, *data) == 0
    write_each_degree(raw, tmp_path / "images")
    words = ("-i", tmp_path / "images", "-d", 4, "-device", "cpu", *data)
    done = subprocess.run(
        [sys.executable, "-c", PREDICT_OFTEN, tmp_path / "out", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "out").glob("*/da*.nii.gz"))) == 40 * 7


def write_each_degree(raw: Path, folder: Path) -> None:
    """An image of a dataset at each degree of anisotropy from 0 to 6."""
    source = sitk.ReadImage(min((raw / "imagesTr").iterdir()))
    for da in range(6):
        source.SetSpacing((1.0, 1.0, float(2**da)))
        write(source, folder / f"da{da}_0000.nii.gz")
    write(source[:, :, 5:6], folder / "da6_0000.nii.gz")


def write(image: sitk.Image, path: Path) -> None:
    """Write an image, and its folder first."""
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


def start_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[dict[str, Tensor], list[Tensor], RunOptions]]:
    """Catch what a run's loop is given: weights, the first two batches, options."""
    caught: list[tuple[dict[str, Tensor], list[Tensor], RunOptions]] = []
    original = training.train_network

    def train_network(network, tasks, folder, options, **others):
        state = {name: value.clone() for name, value in network.state_dict().items()}
        stream = BatchStream(tasks, options.seed)
        caught.append((state, [stream[step].image for step in range(2)], options))
        return original(network, tasks, folder, options, **others)

    monkeypatch.setattr(training, "train_network", train_network)
    return caught.pop


def test_a_run_from_a_pretrained_backbone_and_its_scratch_twin_differ_in_the_loaded_weights_only(
    planned: Path, pretrained: Path, tmp_path: Path, run, monkeypatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "data").mkdir()
    for part in ("raw", "preprocessed"):
        (tmp_path / "data" / part).symlink_to(planned / part)
    caught = start_of(monkeypatch)
    command = ("-d", 4, "--init", pretrained, "--max-steps", 1, "--data", tmp_path / "data", *QUICK)
    caplog.set_level("INFO", "spadunet")
    assert run(train.main, *command) == 0  # backbone and preset are those of the weights
    state, batches, options = caught()
    folder = tmp_path / "data/results" / HIPPOCAMPUS / "spad_vit_tiny/fold_all"
    assert "vit.blocks.3 " in caplog.text
    assert run(train.main, *command, "--scratch-twin") == 0
    twin_state, twin_batches, twin_options = caught()
    twin = folder.parents[1] / "spad_vit_tiny_twin/fold_all"

    assert options == twin_options
    assert (options.learning_rate, options.weight_decay, options.spares_vectors) == (3e-3, 0.05, True)
    assert all(torch.equal(a, b) for a, b in zip(batches, twin_batches, strict=True))
    loaded = load_model(pretrained).backbone_state
    assert state.keys() == twin_state.keys()
    for name, value in state.items():
        expected = loaded.get(name.removeprefix("backbone."), twin_state[name])
        assert torch.equal(value, expected), name
    assert not torch.equal(state["backbone.vit.cls_token"], twin_state["backbone.vit.cls_token"])

    table, twin_table = (json.loads((path / "init_coverage.json").read_text()) for path in (folder, twin))
    assert {row["fate"] for row in table["rows"]} == {"loaded", "new"}
    assert {row["fate"] for row in twin_table["rows"]} == {"new"}
    assert table["source"] == twin_table["source"] == str(pretrained)
    about, twin_about = (read_model_record(path).provenance for path in (folder, twin))
    assert (about["scratch_twin"], twin_about["scratch_twin"]) == ("False", "True")
    assert "% loaded" in about["init_coverage"]
    assert "100.0 % new" in twin_about["init_coverage"]


def test_weights_that_do_not_fit_or_nothing_to_be_the_twin_of_end_before_any_work(
    planned: Path, pretrained: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "new"
    command = ("-d", 4, "--max-steps", 1, "--data", planned, "-o", output, *QUICK)
    for wrong, message in (
        (("--scratch-twin",), "--scratch-twin: compares with a run that starts from --init MODEL; give that too"),
        (("--init", tmp_path / "none"), "model.json: not found; give a model folder"),
        (
            ("--init", pretrained, "--backbone", "spad_unet"),
            "is a spad_vit tiny, not a spad_unet tiny; give --backbone spad_vit --preset tiny, or leave both out",
        ),
        (("--init", pretrained, "--preset", "small"), "is a spad_vit tiny, not a spad_vit small; give --backbone"),
    ):
        assert run(train.main, *command, *wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert not (output / "model.json").exists()
    images = planned / "raw" / HIPPOCAMPUS / "imagesTr"
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-m", pretrained, "--data", planned) == 2
    assert f"fine-tune it with spadunet_train -d DATASET --init {pretrained}" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_run_of_spad_vit_goes_on_as_if_nothing_had_been(
    planned: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
):
    names = ("-d", 4, "--backbone", "spad_vit", "--preset", "tiny", "--max-steps", 3, "--data", planned, *QUICK)
    assert run(train.main, *names, "-o", tmp_path / "whole") == 0
    original = loop.train_step

    def stop_after(*arguments) -> float:
        loss = original(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)
        return loss

    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", stop_after)
            assert run(train.main, *names, "-o", tmp_path / "parts") == 130
    assert run(train.main, *names, "-o", tmp_path / "parts") == 0
    whole, parts = (load_model(tmp_path / name).backbone_state for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_info_tells_a_pretrained_backbone_from_a_model(pretrained: Path, tmp_path: Path, run, capsys):
    pretrained.rename(tmp_path / "results")
    assert run(info.main, "--data", tmp_path) == 0
    assert "(spad_vit tiny, ? steps, pre-trained: for spadunet_train --init)" in capsys.readouterr().out


@pytest.mark.slow
def test_an_init_run_that_starts_anew_without_weights_leaves_no_account_of_the_earlier(
    planned: Path, pretrained: Path, tmp_path: Path, run
):
    output = tmp_path / "new"
    command = ("-d", 4, "--max-steps", 1, "--data", planned, "-o", output, *QUICK)
    assert run(train.main, *command, "--init", pretrained) == 0
    assert (output / "init_coverage.json").is_file()
    assert run(train.main, *command, "--backbone", "spad_vit", "--preset", "tiny", "--restart") == 0
    assert not (output / "init_coverage.json").exists()
    assert "init_coverage" not in read_model_record(output).provenance
