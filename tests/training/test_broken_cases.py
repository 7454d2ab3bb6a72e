"""A stored case that is lost or damaged in the midst of a run ends it with one line and its state saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from spadunet.errors import InputError
from spadunet.network.heads import SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.training import loop
from spadunet.training.board import read_validation
from spadunet.training.loop import JointNetwork, train_network
from spadunet.training.state import read_progress

CHECKPOINT = "state/checkpoint.safetensors"


def small_network() -> JointNetwork:
    """Two levels of eight channels."""
    torch.manual_seed(0)
    return JointNetwork(SpadUNet([8, 8], [1, 1]), [SegmentationTask(1, 3, [8])])


def truncate(path: Path) -> None:
    """As a full disk leaves a file."""
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = {
    "c0.b2nd": (
        truncate,
        r"c0\.b2nd: damaged \(.*\); free disk space if it is full, delete the file, and run spadunet_",
    ),
    "c0.classes.b2nd": (Path.unlink, r"c0\.classes\.b2nd: not found any more; run spadunet_preprocess"),
    "c0.foreground.npy": (truncate, r"c0\.foreground\.npy: damaged \(.*, and run spadunet_preprocess"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(make_task, name: str):
    (case,) = make_task(num_cases=1).cases
    act, message = DAMAGES[name]
    act(case.folder / name)
    with pytest.raises(InputError, match=message) as caught:
        case.foreground_voxels()
        case.read_patch((0, 0, 0), (8, 16, 16))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["c0.b2nd", "c0.classes.b2nd"])
def test_a_case_that_breaks_while_a_run_goes_on_costs_no_step(
    make_task, make_options, tmp_path: Path, monkeypatch, name: str, num_workers: int
):
    task = make_task(num_cases=1)
    path = task.cases[0].folder / name
    sound, act, message = path.read_bytes(), *DAMAGES[name]

    def train_step(*_: object) -> float:
        if path.is_file() and path.read_bytes() == sound:
            act(path)
        return 1.0

    options = make_options(max_steps=20, num_workers=num_workers, checkpoint_minutes=60.0)
    with monkeypatch.context() as patch, pytest.raises(InputError, match=message) as caught:
        patch.setattr(loop, "train_step", train_step)
        train_network(small_network(), [task], tmp_path / "run", options, run={})
    step = read_progress(tmp_path / "run" / CHECKPOINT).step
    assert step == 1 or (num_workers and 1 < step < 20)  # some batches were made before
    assert str(caught.value).endswith(f"run spadunet_preprocess; the same command then goes on from step {step}")
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    path.write_bytes(sound)
    monkeypatch.setattr(loop, "train_step", lambda *_: 1.0)
    assert train_network(small_network(), [task], tmp_path / "run", options, run={}).step == 20


def test_a_held_out_case_that_breaks_costs_neither_a_step_nor_its_validation(
    make_task, make_options, tmp_path: Path, monkeypatch
):
    task = make_task(num_cases=2)
    training, held_out = make_task(num_cases=1), [task.cases[1:]]
    path = task.cases[1].folder / "c1.b2nd"
    sound, options = path.read_bytes(), make_options(max_steps=3, validate_every=2, checkpoint_minutes=60.0)

    def train_step(*_: object) -> float:
        path.unlink(missing_ok=True)
        return 1.0

    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"c1\.b2nd: not found any more.*from step 2"):
        patch.setattr(loop, "train_step", train_step)
        train_network(small_network(), [training], tmp_path / "run", options, run={}, held_out=held_out)
    path.write_bytes(sound)
    train_network(small_network(), [training], tmp_path / "run", options, run={}, held_out=held_out)
    assert {point.step for point in read_validation(tmp_path / "run")} == {2}
