"""Every run below a folder is found and told as it is; nothing that is damaged stops the list."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import pytest
import torch
from run_folder import make_run, plan_of, write_curves
from safetensors import serialize
from torch import nn

from spadunet.model import Model, save_model
from spadunet.pretraining import tokenizer_file
from spadunet.task import Task
from spadunet.training import runs
from spadunet.training.runs import find_runs, last_step, summarise
from spadunet.training.state import Learned, Progress, checkpoint_path, save_state
from spadunet.training.status import hold, read_status, status_path, write_status

A = "Dataset001_A"
REQUEST = {"datasets": A, "backbone": "spad_vit", "preset": "small", "fold": "2", "max_steps": "None"}


def save_checkpoint(folder: Path, step: int, *, is_finished: bool = False, run: dict[str, str] | None = None) -> None:
    """As a run leaves it."""
    learned = Learned(networks={"n": nn.Linear(1, 1)}, optimisers={}, numbers={})
    progress = Progress(step=step, seconds=90.0, is_finished=is_finished, run=REQUEST if run is None else run)
    save_state(checkpoint_path(folder), learned, progress)


def age(folder: Path, seconds: float) -> None:
    """Let all files of a run be so old."""
    then = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_a_finished_run_is_told_with_its_mean_dice(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",), "Dataset002_B": ("LV",)}, state="finished")
    run = summarise(tmp_path)
    assert (run.state, run.kind, run.datasets) == ("finished", "train", (A, "Dataset002_B"))
    assert (run.backbone, run.preset, run.fold) == ("spad_unet", "tiny", "0")
    assert (run.steps, run.max_steps, run.minutes, run.max_minutes) == (100, 200, 1.65, None)
    assert run.dice == pytest.approx(0.7)


def test_a_run_is_running_while_its_folder_is_held_and_interrupted_after(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)})
    save_checkpoint(tmp_path, 60)
    with hold(tmp_path):
        run = summarise(tmp_path)
        assert (run.state, run.steps, run.dice) == ("running", 100, None)
    run = summarise(tmp_path)
    assert (run.state, run.reason) == ("interrupted", "its process is gone without a word")
    assert (run.steps, run.minutes) == (60, 1.5)  # those after the last checkpoint are lost


def test_a_run_on_another_machine_is_running_as_long_as_it_writes(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)}, host=f"not-{platform.node()}")
    assert summarise(tmp_path).state == "running"
    age(tmp_path, 3600)
    assert summarise(tmp_path).state == "interrupted"


def test_a_failed_run_tells_why(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)}, state="failed", reason="loss became nan at step 7")
    assert (summarise(tmp_path).state, summarise(tmp_path).reason) == ("failed", "loss became nan at step 7")


def test_runs_of_earlier_versions_without_a_status_are_told_by_what_is_there(tmp_path: Path):
    write_curves(tmp_path, [A])
    save_checkpoint(tmp_path, 60)
    age(tmp_path, 3600)
    run = summarise(tmp_path)
    assert (run.state, run.kind, run.datasets, run.backbone, run.fold) == (
        "interrupted",
        "train",
        (A,),
        "spad_vit",
        "2",
    )
    save_checkpoint(tmp_path, 100, is_finished=True)
    age(tmp_path, 3600)
    assert summarise(tmp_path).state == "interrupted"  # its validation is not done
    (tmp_path / "spadunet_train.json").write_text("{}", encoding="utf-8")
    assert (summarise(tmp_path).state, summarise(tmp_path).steps) == ("finished", 100)


def test_a_model_and_a_tokenizer_alone_are_finished_runs(tmp_path: Path):
    plan = plan_of(A, ("liver",))
    provenance = {**REQUEST, "steps": "1234"}
    tensors = {"a": torch.zeros(1)}
    tasks = {A: Task(plan=plan, state=tensors)}
    save_model(
        tmp_path / "m",
        Model(backbone="spad_vit", preset="small", backbone_state=tensors, tasks=tasks, provenance=provenance),
    )
    tokenizer_file.save_tokenizer(tmp_path / "t", nn.Linear(1, 1), "tiny", {"corpus": "mine", "steps": "77"})
    model, tokenizer = (summarise(tmp_path / name) for name in "mt")
    assert (model.state, model.kind, model.steps, model.datasets) == ("finished", "train", 1234, (A,))
    assert (tokenizer.state, tokenizer.kind, tokenizer.steps) == ("finished", "tokenizer", 77)
    assert (tokenizer.datasets, tokenizer.backbone, tokenizer.preset) == (("mine",), "tokenizer", "tiny")
    assert runs.TOKENIZER_JSON == tokenizer_file.TOKENIZER_JSON


def test_a_backbone_in_pre_training_is_told_with_its_corpus(tmp_path: Path):
    request = {"kind": "spad_vit", "preset": "tiny", "corpus": "mine", "max_steps": "300000", "max_minutes": "60.0"}
    save_checkpoint(tmp_path, 5, run=request)
    run = summarise(tmp_path)
    assert (run.state, run.kind, run.datasets, run.backbone) == ("running", "mim", ("mine",), "spad_vit")
    assert (run.max_steps, run.max_minutes) == (300000, 60.0)


def checkpoint_that_says(run: str) -> bytes:
    """A sound file without tensors."""
    metadata = {"step": "1", "seconds": "1.0", "is_finished": "0", "run": run}
    return serialize({}, metadata)


DAMAGES = [
    ("state/run.json", b"{"),
    ("state/checkpoint.safetensors", b"\x10\x00\x00"),
    ("state/checkpoint.safetensors", checkpoint_that_says('["datasets"]')),
    ("state/checkpoint.safetensors", checkpoint_that_says('{"datasets": 1}')),
    ("model.json", b'{"format_version": 99}'),
    ("tokenizer.json", b"[]"),
    ("curves.csv", b"step,minutes\nx,y\n"),
    ("curves.csv", b"step,minutes\n0,0.1\n1,0\r.2\n"),
    ("validation/Dataset001_A/scores.json", b"\xff\xfe"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGES, ids=range(len(DAMAGES)))
def test_what_is_damaged_is_told_with_its_reason_and_the_others_too(tmp_path: Path, name: str, content: bytes):
    make_run(tmp_path / "sound", {A: ("liver",)}, state="finished")
    make_run(tmp_path / "damaged", {A: ("liver",)}, state="finished")
    path = tmp_path / "damaged" / name
    path.write_bytes(content)
    found = {run.folder.name: run for run in find_runs(tmp_path)}
    assert found["sound"].state == "finished"
    assert found["damaged"].state == "broken"
    assert str(tmp_path / "damaged") in found["damaged"].reason
    assert "\n" not in found["damaged"].reason


def test_folders_that_cannot_be_opened_or_lead_nowhere_are_told(tmp_path: Path, monkeypatch):
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/model.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in scandir(path)])
    found = {run.folder.name: run for run in find_runs(tmp_path)}
    assert found["locked"].state == "broken" and "Permission denied" in found["locked"].reason
    assert found["gone"].state == "broken" and "model.json: is a link that leads nowhere" in found["gone"].reason


def test_all_runs_are_found_at_any_depth_the_last_changed_last_and_nothing_within_one(tmp_path: Path):
    for number, name in enumerate(["c/fold_0", "a", "b/x/y"]):
        make_run(tmp_path / name, {A: ("liver",)}, state="finished")
        age(tmp_path / name, 1000 - number)
    make_run(tmp_path / "c/fold_0/again", {A: ("liver",)}, state="finished")
    (tmp_path / "a/tasks/x").mkdir(parents=True)
    (tmp_path / "a/tasks/x/model.json").touch()
    (tmp_path / "empty").mkdir()
    found = [run.folder.relative_to(tmp_path).as_posix() for run in find_runs(tmp_path)]
    assert found == ["c/fold_0", "a", "b/x/y", "c/fold_0/again"]
    assert find_runs(tmp_path / "nowhere") == []


def test_links_to_folders_are_followed_and_each_folder_is_listed_once(tmp_path: Path):
    """Results on another disk, a second name for a run, and loops."""
    here, disk = tmp_path / "results", tmp_path / "disk"
    make_run(here / "own", {A: ("liver",)}, state="finished")
    make_run(disk / "far/run", {A: ("liver",)}, state="finished")
    for link, target in {"a": here / "own", "b": here, "own/up": tmp_path, "z": disk, "y": disk / "far"}.items():
        (here / link).symlink_to(target, target_is_directory=True)
    (disk / "far/loop").symlink_to(here / "z", target_is_directory=True)
    found = [run.folder.relative_to(tmp_path).as_posix() for run in find_runs(here)]
    assert sorted(found) == ["results/own", "results/y/run"]


def test_the_last_whole_row_of_a_long_file_is_read_from_its_end(tmp_path: Path):
    path = tmp_path / "curves.csv"
    assert last_step(path) == (None, None)
    path.write_text("step,minutes,task\n", encoding="utf-8")
    assert last_step(path) == (None, None)
    write_curves(tmp_path, ["a, b"], 5000)
    with path.open("a", encoding="utf-8") as file:
        file.write("5000,99")
    assert last_step(path) == (5000, pytest.approx(4999 / 60, abs=1e-3))


def test_a_status_that_lies_about_its_end_is_not_believed(tmp_path: Path):
    make_run(tmp_path, {A: ("liver",)})
    assert summarise(tmp_path).state == "interrupted"
    status = read_status(tmp_path)
    assert status is not None
    write_status(tmp_path, status.model_copy(update={"state": "finished"}))
    assert summarise(tmp_path).state == "finished"
    assert json.loads(status_path(tmp_path).read_text())["state"] == "finished"
