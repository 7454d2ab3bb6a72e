"""Several processes learn what one would, and end together. torchrun starts them, on this machine's cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_stage import ToyStage, spoil_from, toy_batches, toy_options

from spadunet.errors import InputError
from spadunet.pretraining.loop import pretrain
from spadunet.tensors import read_tensors
from spadunet.training.ranks import Ranks, find_ranks, mean_over_ranks
from spadunet.training.state import read_progress

TOY_RUN = str(Path(__file__).parent.parent / "toy_run.py")
CHECKPOINT = "state/checkpoint.safetensors"


def torchrun(*arguments: object) -> list[str]:
    """The command of two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*launcher, TOY_RUN, *map(str, arguments)]


def run_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes, until they end."""
    return subprocess.run(torchrun(*arguments), capture_output=True, text=True, timeout=250, check=False)


def own_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the processes said, without torchrun's report."""
    return [line for line in done.stderr.splitlines() if line.startswith("toy_run.py")]


@pytest.fixture(scope="module")
def weights_of_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process learns from whole batches."""
    folder, stage = tmp_path_factory.mktemp("one"), ToyStage(Ranks())
    pretrain(stage, toy_batches(Ranks()), folder, toy_options(), Ranks(), run={})
    return read_tensors(folder / CHECKPOINT)


def difference(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    """The largest, over all tensors of a checkpoint."""
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


@pytest.mark.slow
def test_two_processes_with_half_of_every_batch_learn_what_one_learns(weights_of_one, tmp_path: Path):
    """The regularisation of the mean token is of the whole batch."""
    done = run_two(tmp_path)
    assert done.returncode == 0, done.stderr
    assert difference(read_tensors(tmp_path / CHECKPOINT), weights_of_one) < 1e-12


@pytest.mark.slow
def test_with_the_others_means_as_constants_they_would_not(weights_of_one, tmp_path: Path):
    done = run_two(tmp_path, "detached")
    assert done.returncode == 0, done.stderr
    assert difference(read_tensors(tmp_path / CHECKPOINT), weights_of_one) > 1e-4


@pytest.mark.slow
def test_a_step_that_is_not_finite_in_one_process_is_skipped_by_all(tmp_path: Path):
    done = run_two(tmp_path / "two", "spoil", 2, 1)
    assert done.returncode == 0, done.stderr
    assert "at step 2 (da 2; of noise): step skipped (1 so far)" in done.stderr
    stage = ToyStage(Ranks(), before=spoil_from(2))
    pretrain(stage, toy_batches(Ranks()), tmp_path / "one", toy_options(), Ranks(), run={})
    two, one = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("two", "one"))
    assert difference(two, one) < 1e-12


@pytest.mark.slow
def test_an_image_that_one_process_could_not_read_is_told_at_the_end_of_the_run(tmp_path: Path):
    done = run_two(tmp_path, "lose", 2, 1)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unreadable images, whose places others took: 1 (lost)") == 1
    assert read_progress(tmp_path / CHECKPOINT).unreadable == ("lost",)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_at_one_process_stops_all_at_the_same_step_and_the_run_goes_on_exactly(
    rank: int, weights_of_one, tmp_path: Path
):
    stopped = run_two(tmp_path, "signal", 2, rank)
    assert stopped.returncode != 0
    assert own_lines(stopped) == ["toy_run.py: stopped; the same command goes on from here"]
    assert read_progress(tmp_path / CHECKPOINT).step == 3
    assert run_two(tmp_path).returncode == 0
    assert difference(read_tensors(tmp_path / CHECKPOINT), weights_of_one) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_torchrun_saves_the_run(number: int, tmp_path: Path):
    """As Ctrl-C and batch systems send it."""
    run = subprocess.Popen(torchrun(tmp_path, "dawdle", 3), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 100
    while not (tmp_path / "dawdling").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(run.pid, number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "toy_run.py: stopped; the same command goes on from here" in errors
    assert read_progress(tmp_path / CHECKPOINT).step == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "lines"),
    [
        (("missing",), ["toy_run.py: error: {folder}: no corpus"]),
        (("fail", 2, 0), ["toy_run.py: error: image 7 is gone"]),
        (
            ("fail", 2, 1),
            ["toy_run.py (rank 1): error: image 7", "toy_run.py: error: another process of the run ended"],
        ),
    ],
)
def test_an_error_of_one_process_ends_all_and_is_told_once(what, lines: list[str], tmp_path: Path):
    done = run_two(tmp_path, *what)
    assert done.returncode != 0
    told = sorted(own_lines(done))
    assert len(told) == len(lines), done.stderr
    for line, start in zip(told, lines, strict=True):
        assert line.startswith(start.format(folder=tmp_path))


def test_the_mean_over_ranks_has_the_gradient_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch):
    """This process is one of two: what is reduced gets the other's part added."""
    own, other = (torch.tensor(values, dtype=torch.float64) for values in ([0.2, 0.8], [0.6, 0.4]))
    added: list[torch.Tensor] = [other]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(added.pop()))
    own.requires_grad_()
    mean = mean_over_ranks(own)
    assert mean.tolist() == pytest.approx([0.4, 0.6])
    # The loss is Σ m²; each rank sends 2 m back, and gradients are averaged over ranks afterwards.
    added.append(2 * mean.detach())
    mean.square().sum().backward()
    whole = torch.stack([own.detach(), other]).requires_grad_()
    whole.mean(0).square().sum().backward()
    assert torch.allclose(own.grad / 2, whole.grad[0])


def test_without_others_the_mean_is_the_tensor_itself():
    tensor = torch.ones(2)
    assert mean_over_ranks(tensor) is tensor


@pytest.mark.parametrize(("batch_size", "share"), [(48, 8), (6, 1)])
def test_a_batch_is_shared_out_evenly(batch_size: int, share: int):
    assert Ranks(world_size=6).share(batch_size) == share


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(InputError, match="--batch-size 8: 6 processes cannot share it evenly; give a multiple of 6"):
        Ranks(world_size=6).share(8)


def test_each_process_takes_the_gpu_of_its_number_on_the_machine(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("WORLD_SIZE", 4), ("RANK", 3), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ranks = find_ranks(torch.device("cuda"))
    assert (ranks.rank, ranks.world_size, ranks.device, ranks.is_first) == (3, 4, torch.device("cuda:1"), False)
    with pytest.raises(InputError, match="-device cuda:0: under torchrun each process takes its own GPU"):
        find_ranks(torch.device("cuda:0"))
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="this machine has 2 GPUs, fewer than processes; start one a GPU"):
        find_ranks(torch.device("cuda"))


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert find_ranks(torch.device("cpu")) == Ranks()
