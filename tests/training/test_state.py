"""The checkpoint: exactly what was saved comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from spadunet.errors import InputError, OutputError
from spadunet.training.state import Progress, load_state, read_progress, save_state

RUN = {"preset": "tiny", "seed": "0", "text": 'ä "quoted"\nline'}


def learn(network: nn.Module, optimiser: torch.optim.Optimizer, num_steps: int) -> None:
    """Some steps on fixed data."""
    x = torch.arange(12.0).view(4, 3)
    for _ in range(num_steps):
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()


def fresh(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network and its optimiser."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return network, torch.optim.AdamW(network.parameters(), lr=0.01, fused=True)


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    network, optimiser = fresh(0)
    learn(network, optimiser, 3)
    save_state(path, network, optimiser, Progress(step=3, seconds=0.1, is_finished=False, run=RUN))
    learn(network, optimiser, 3)
    other, other_optimiser = fresh(1)
    load_state(path, other, other_optimiser)
    learn(other, other_optimiser, 3)
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("is_finished", [False, True])
def test_progress_comes_back_to_the_last_digit(tmp_path: Path, is_finished: bool):
    path = tmp_path / "checkpoint.safetensors"
    progress = Progress(step=12345, seconds=0.1 + 0.2, is_finished=is_finished, run=RUN)
    save_state(path, *fresh(0), progress)
    assert read_progress(path) == progress


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_a_damaged_checkpoint_asks_for_a_restart(tmp_path: Path, content: bytes):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors: damaged checkpoint .*; start anew with --restart"):
        read_progress(path)


def test_a_truncated_checkpoint_asks_for_a_restart(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    save_state(path, *fresh(0), Progress(step=1, seconds=1, is_finished=False, run=RUN))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged checkpoint"):
        read_progress(path)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, limited_files):
    path = tmp_path / "checkpoint.safetensors"
    progress = Progress(step=1, seconds=1, is_finished=False, run=RUN)
    save_state(path, *fresh(0), progress)
    large = nn.Linear(200, 200)
    with limited_files(20_000), pytest.raises(OutputError, match="cannot be written"):
        save_state(path, large, torch.optim.AdamW(large.parameters()), progress)
    assert read_progress(path) == progress
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
