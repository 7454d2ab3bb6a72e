"""Models that grow: frozen backbones, and tasks that join without touching what is there."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from spadunet.cli import predict, train
from spadunet.files import sha256_of_file
from spadunet.inference.predict import build_network
from spadunet.model import BACKBONE_FILE, TASK_FILES, Model, load_model, read_model_record, save_model
from spadunet.network.build import build_backbone
from spadunet.pretrained import find_weights
from spadunet.training import loop
from spadunet.training import train as training

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"
OLD_FILES = [BACKBONE_FILE, *(f"tasks/{name}/{file}" for name in (HIPPOCAMPUS, HEART) for file in TASK_FILES)]


@pytest.fixture
def old_model(joint_model: Path, tmp_path: Path) -> Path:
    """A copy of the model of hippocampus and heart."""
    shutil.copytree(joint_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def add(planned: Path, old_model: Path, quick) -> tuple[object, ...]:
    """The command that adds slices of the heart to it."""
    steps = ("--max-steps", 3, "-f", "all", *quick[2:])
    return ("-d", SLICES, "--init", old_model, "--add-task", *steps, "--data", planned)


def hashes(folder: Path) -> dict[str, str]:
    """Of the files that must not change."""
    return {file: sha256_of_file(folder / file) for file in OLD_FILES}


def predicted(run, model: Path, name: str, planned: Path, output: Path) -> dict[str, str]:
    """SHA-256 of the label maps that a task of a model makes of its own dataset."""
    words = ("-i", planned / "raw" / name / "imagesTr", "-o", output, "-m", model, "-d", name, "-device", "cpu")
    assert run(predict.main, *words, "--data", planned) == 0
    return {path.name: sha256_of_file(path) for path in output.glob("*.nii.gz")}


@pytest.mark.parametrize("in_place", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["in place", "in a copy"])
def test_a_new_task_joins_and_the_older_ones_predict_as_before_to_the_bit(
    old_model: Path, add, planned: Path, tmp_path: Path, run, in_place: bool
):
    names = (HIPPOCAMPUS, HEART)
    before = {name: predicted(run, old_model, name, planned, tmp_path / f"before {name}") for name in names}
    files, whole = hashes(old_model), load_model(old_model)
    grown = old_model if in_place else tmp_path / "grown"
    assert run(train.main, *add, *(() if in_place else ("-o", grown))) == 0
    assert hashes(grown) == hashes(old_model) == files
    assert read_model_record(grown).tasks == (HIPPOCAMPUS, HEART, SLICES)
    assert read_model_record(old_model).tasks == ((HIPPOCAMPUS, HEART, SLICES) if in_place else (HIPPOCAMPUS, HEART))
    model = load_model(grown)
    image = torch.rand(1, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in names:
        assert predicted(run, grown, name, planned, tmp_path / f"after {name}") == before[name]
        with torch.no_grad():
            assert torch.equal(*(build_network(it, name)(image, 2) for it in (whole, model)))
    assert len(predicted(run, grown, SLICES, planned, tmp_path / "new")) == 12
    learned = model.tasks[SLICES]
    assert learned.provenance["steps"] == "3"
    assert learned.provenance["datasets"] == SLICES
    assert ", after 3 steps, by spadunet " in model.provenance[f"added {SLICES}"]
    assert model.provenance["steps"] == whole.provenance["steps"]  # what was told of the others is still told
    start = whole.tasks[HEART].state["heads.0.weight"]  # the same class, by name
    assert not torch.equal(learned.state["heads.0.weight"], start)
    assert torch.allclose(learned.state["heads.0.weight"], start, atol=0.02)


def test_a_task_that_is_there_is_not_added_again_and_other_options_say_what_they_need(
    old_model: Path, add, planned: Path, run, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    files = hashes(old_model)
    shipped = find_weights("spad_unet_tiny")
    tiny = (*add, "--init", shipped, "--dry-run")  # which would leave the package alone in any case
    said = {
        tiny: f"--add-task: {shipped} comes with spadunet and stays as it is; give a folder for a copy with -o",
        (*tiny, "-o", shipped): "comes with spadunet and stays as it is; give a folder for a copy with -o",
        (
            *add,
            "-d",
            HEART,
        ): f"{old_model} has a task {HEART} already, which stays as it is; to train it further, leave",
        (*add, "--scratch-twin"): "--add-task: a scratch twin has no model to be added to; leave --scratch-twin out",
        (*add, "--init", tmp_path / "none"): "model.json: not found; give a model folder",
        (*add, "--init", planned / "raw" / HEART / "dataset.json"): "is a file; --add-task needs the folder of a model",
        ("-d", 4, "--add-task"): "--add-task: needs the model whose backbone is kept; give it with --init MODEL",
        ("-d", 4, "--freeze-backbone"): "--freeze-backbone: needs the model whose backbone is kept; give it with",
        ("-d", 4, "101", "--dataset-weights", 1): "--dataset-weights: 1 weights for 2 datasets; give one for each",
    }
    for command, message in said.items():
        assert run(train.main, *command) == 2
        assert message in capsys.readouterr().err
    assert hashes(old_model) == files
    assert read_model_record(old_model).tasks == (HIPPOCAMPUS, HEART)


def test_a_run_that_dies_before_its_task_is_added_leaves_the_model_as_it_was_and_goes_on(
    old_model: Path, add, run, monkeypatch: pytest.MonkeyPatch
):
    before = {path: sha256_of_file(path) for path in old_model.iterdir()}

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spadunet.model.write_tensors", die)  # in the midst of adding
        assert run(train.main, *add) == 130
    for name in ("model.json", BACKBONE_FILE):
        assert sha256_of_file(old_model / name) == before[old_model / name]
    assert list(load_model(old_model).tasks) == [HIPPOCAMPUS, HEART]
    with monkeypatch.context() as patch:
        patch.setattr("spadunet.cli.train.write_manifest", die)
        assert run(train.main, *add) == 130  # the task is there, the run not told as finished
    assert list(load_model(old_model).tasks) == [HIPPOCAMPUS, HEART, SLICES]
    assert run(train.main, *add) == 0
    assert list(load_model(old_model).tasks) == [HIPPOCAMPUS, HEART, SLICES]


@pytest.mark.slow
def test_the_run_that_made_a_model_does_not_take_away_what_was_added_since(
    planned: Path, add, quick, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    model = tmp_path / "own"
    first = ("-d", 4, "-f", "all", "--max-steps", 1, *quick, "--data", planned, "-o", model)
    assert run(train.main, *first) == 0
    assert run(train.main, *add, "--init", model) == 0
    for flag in ("--c", "--restart"):
        assert run(train.main, *first, flag) == 2
        assert f"{model}: was given the task {SLICES} since, which would be lost" in capsys.readouterr().err
    assert list(load_model(model).tasks) == [HIPPOCAMPUS, SLICES]
    again = (*add, "-d", HEART, "--init", model, "-o", tmp_path / "copy")
    assert run(train.main, *again) == 0
    assert run(train.main, *again, "--restart") == 0  # loses nothing
    assert list(load_model(tmp_path / "copy").tasks) == [HIPPOCAMPUS, SLICES, HEART]


def test_a_model_whose_backbone_was_replaced_meanwhile_is_left_alone(
    old_model: Path, add, run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real = training.as_model

    def meanwhile(*arguments: object, **further: object) -> Model:
        other = load_model(old_model)
        state = {name: value + 1 for name, value in other.backbone_state.items()}
        save_model(
            old_model,
            Model(backbone="spad_unet", preset="tiny", backbone_state=state, tasks=other.tasks, provenance={}),
        )
        return real(*arguments, **further)

    monkeypatch.setattr("spadunet.training.train.as_model", meanwhile)
    assert run(train.main, *add) == 1
    assert "has got another backbone since this run began" in capsys.readouterr().err
    assert list(load_model(old_model).tasks) == [HIPPOCAMPUS, HEART]


def test_a_frozen_backbone_keeps_every_byte_through_an_interruption(
    old_model: Path, planned: Path, quick, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
):
    def command(name: str) -> tuple[object, ...]:
        words = ("-d", SLICES, "--init", old_model, "--freeze-backbone", "-f", "all", "--max-steps", 4)
        return (*words, *quick[2:], "--data", planned, "-o", tmp_path / name)

    assert run(train.main, *command("whole")) == 0
    real, calls = loop.train_step, []

    def interrupted(network: loop.JointNetwork, *arguments: object) -> float:
        calls.append(network.backbone.training)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(network, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        assert run(train.main, *command("parts")) == 130
    shutil.move(old_model, tmp_path / "away")  # the checkpoint has the backbone
    assert run(train.main, *command("parts")) == 0
    assert calls == [False, False]
    for name in ("whole", "parts"):
        assert sha256_of_file(tmp_path / name / BACKBONE_FILE) == sha256_of_file(tmp_path / "away" / BACKBONE_FILE)
        assert read_model_record(tmp_path / name).provenance["freeze_backbone"] == "True"
    tasks = [load_model(tmp_path / name).tasks[SLICES].state for name in ("whole", "parts")]
    assert all(torch.equal(value, tasks[1][key]) for key, value in tasks[0].items())


def test_a_backbone_with_fresh_parts_is_not_frozen(planned: Path, quick, tmp_path: Path, run, capsys):
    state = build_backbone("spad_unet", "tiny").state_dict()
    state = {name: value for name, value in state.items() if name.startswith("encoder.")}
    save_model(
        tmp_path / "encoder",
        Model(backbone="spad_unet", preset="tiny", backbone_state=state, tasks={}, provenance={}),
    )
    words = ("-d", 4, "-f", "all", "--init", tmp_path / "encoder", "--freeze-backbone", "-o", tmp_path / "out")
    assert run(train.main, *words, *quick, "--data", planned) == 2
    assert "has no weights for decoder of the backbone, which would stay random" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_tells_which_model_grows(add, old_model: Path, run, capsys: pytest.CaptureFixture[str]):
    files = hashes(old_model)
    assert run(train.main, *add, "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"adds to the tasks of {old_model}, in {old_model}" in out
    assert f"writes into {old_model / 'added' / SLICES}" in out
    assert not (old_model / "added").exists()
    assert hashes(old_model) == files
