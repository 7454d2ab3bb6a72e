"""Which preset a run has that is typed again on another device, and folders that a run must not write to."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from spadunet.cli import train, train_place
from spadunet.cli.earlier_run import require_apart
from spadunet.cli.train_place import MANIFEST, choose_network
from spadunet.errors import InputError
from spadunet.files import sha256_of_file
from spadunet.model import load_model
from spadunet.training.state import Learned, Progress, checkpoint_path, save_state

CPU = torch.device("cpu")  # where tiny is usual
REQUEST = {"max_steps": "50000", "max_minutes": "None", "recipe": "None", "seed": "0"}


def options_of(**changes: object) -> argparse.Namespace:
    """Of a command that names neither network nor folder."""
    usual = {"backbone": None, "preset": None, "init": None, "output": None, "scratch_twin": False, "restart": False}
    usual |= {"fold": "0", "fraction": 1.0, "fraction_seed": None, "repeats": None}
    usual |= {"max_steps": 50_000, "max_minutes": None, "recipe": None, "seed": 0}
    return argparse.Namespace(**usual | changes)


def begin(folder: Path, *, is_done: bool = False, **changes: str) -> None:
    """A checkpoint of a run, and if it is done its manifest."""
    progress = Progress(step=1, seconds=1, is_finished=is_done, run=REQUEST | changes)
    path = checkpoint_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state(path, Learned(networks={"n": torch.nn.Linear(1, 1)}, optimisers={}, numbers={}), progress)
    if is_done:
        (folder / MANIFEST).touch()


def chosen(results: Path, **changes: object) -> tuple[str, str]:
    return choose_network(options_of(**changes), {}, results, CPU)


def test_an_unfinished_run_keeps_its_preset_where_another_is_usual(tmp_path: Path, caplog):
    caplog.set_level("INFO", "spadunet")
    assert chosen(tmp_path) == ("spad_unet", "tiny")
    begin(tmp_path / "spad_unet_base/fold_0")
    assert chosen(tmp_path) == ("spad_unet", "base")
    folder = tmp_path / "spad_unet_base/fold_0"
    assert f"{folder}: unfinished, so it goes on, though tiny is usual on this device; --preset tiny" in caplog.text
    for other in (
        {"preset": "tiny"},
        {"restart": True},
        {"output": tmp_path / "own"},
        {"backbone": "spad_vit"},
        {"fold": "1"},
        {"max_steps": 10},
        {"seed": 1},
    ):
        assert chosen(tmp_path, **other)[1] == "tiny"


def test_runs_that_are_finished_damaged_or_of_the_usual_preset_keep_none_from_beginning(tmp_path: Path):
    begin(tmp_path / "spad_unet_base/fold_0", is_done=True)
    checkpoint_path(tmp_path / "spad_unet_large/fold_0").parent.mkdir(parents=True)
    checkpoint_path(tmp_path / "spad_unet_large/fold_0").write_bytes(b"damaged")
    assert chosen(tmp_path) == ("spad_unet", "tiny")
    begin(tmp_path / "spad_unet_small/fold_0")
    assert chosen(tmp_path) == ("spad_unet", "small")
    begin(tmp_path / "spad_unet_tiny/fold_0")
    assert chosen(tmp_path) == ("spad_unet", "tiny")


def test_of_several_unfinished_runs_none_is_guessed(tmp_path: Path, caplog):
    for preset in ("small", "base"):
        begin(tmp_path / f"spad_unet_{preset}/fold_0")
    assert chosen(tmp_path) == ("spad_unet", "tiny")
    assert "unfinished runs of other presets; a tiny one begins; --preset goes on with one" in caplog.text


def test_repeats_go_on_with_their_preset_until_all_are_done(tmp_path: Path):
    folder = tmp_path / "spad_unet_base/fold_0_repeats"
    begin(folder / "seed_0", is_done=True)
    begin(folder / "seed_1", seed="1")
    for seed in range(3):
        assert chosen(tmp_path, repeats=3, seed=seed) == ("spad_unet", "base")
    begin(folder / "seed_1", seed="1", is_done=True)
    assert chosen(tmp_path, repeats=3, seed=2) == ("spad_unet", "base")
    assert chosen(tmp_path, repeats=2) == ("spad_unet", "tiny")


def test_the_same_command_goes_on_where_another_preset_is_usual(planned: Path, tmp_path: Path, run, quick, monkeypatch):
    seen = []

    def note(*_: object, **given: object) -> None:
        seen.append(given["preset"])
        raise KeyboardInterrupt

    for name in ("raw", "preprocessed"):
        (tmp_path / name).symlink_to(planned / name)
    begin(tmp_path / "results/Dataset004_Hippocampus/spad_unet_tiny/fold_0", max_steps="3")
    monkeypatch.setattr(train_place, "usual_preset", lambda _: "small")
    monkeypatch.setattr("spadunet.training.prepare.prepare_run", note)
    command = ("-d", 4, "--max-steps", 3, *quick, "--data", tmp_path)
    untold = [word for word in command if word not in ("--preset", "tiny")]
    assert run(train.main, *untold) == 130
    assert run(train.main, *untold, "--max-steps", 4) == 130
    assert seen == ["tiny", "small"]


# --- the model to start from


@pytest.mark.parametrize("typed", [(), ("--restart",), ("--scratch-twin", "--restart")])
def test_a_model_is_not_trained_into_its_own_folder(
    typed: tuple[str, ...], planned: Path, joint_model: Path, run, quick, capsys
):
    before = sha256_of_file(joint_model / "model.json")
    command = ("-d", 4, 101, "-f", "all", "--max-steps", 1, *quick, "--data", planned, "--init", joint_model)
    place = ("-o", joint_model.parent / ".." / "spad_unet_tiny" / "fold_all") if "--scratch-twin" in typed else ()
    assert run(train.main, *command, *typed, *place) == 2
    told = f"--init {joint_model}: this run would be written over the model to start from; give another -o"
    assert told in capsys.readouterr().err
    assert sha256_of_file(joint_model / "model.json") == before
    assert load_model(joint_model).tasks


def test_no_seed_is_trained_into_the_model_to_start_from(tmp_path: Path):
    init = tmp_path / "runs/seed_1"
    require_apart(None, init)
    require_apart(init, tmp_path / "runs/seed_0")
    require_apart(tmp_path / "runs/eva02.pt", tmp_path / "runs/seed_0", is_repeat=True)
    with pytest.raises(InputError, match="runs of --repeats would be written over the model to start from"):
        require_apart(init, tmp_path / "runs/seed_0", is_repeat=True)
