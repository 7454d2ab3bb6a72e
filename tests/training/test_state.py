"""The checkpoint: exactly what was saved comes back."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from spadunet.errors import InputError, OutputError
from spadunet.tensors import write_tensors
from spadunet.training.state import Learned, Progress, load_state, read_progress, save_state

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


def learned(*seeds: int, **numbers: float) -> Learned:
    """A network and its optimiser for each seed, of the same names."""
    members = {f"part{index}": fresh(seed) for index, seed in enumerate(seeds)}
    return Learned(
        networks={name: network for name, (network, _) in members.items()},
        optimisers={name: optimiser for name, (_, optimiser) in members.items()},
        numbers=numbers,
    )


def learn_all(state: Learned, num_steps: int) -> None:
    """Some steps of every network."""
    for network, optimiser in zip(state.networks.values(), state.optimisers.values(), strict=True):
        learn(network, optimiser, num_steps)


def assert_equal(state: Learned, other: Learned) -> None:
    """The same weights to the last bit."""
    for network, twin in zip(state.networks.values(), other.networks.values(), strict=True):
        for a, b in zip(network.parameters(), twin.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    state = learned(0, 1, gate=math.inf, running=0.1 + 0.2)
    learn_all(state, 3)
    save_state(path, state, Progress(step=3, seconds=0.1, is_finished=False, run=RUN))
    learn_all(state, 3)
    other = learned(2, 3, gate=0.0, running=0.0)
    load_state(path, other)
    learn_all(other, 3)
    assert_equal(state, other)
    assert other.numbers == {"gate": math.inf, "running": 0.1 + 0.2}


def test_a_checkpoint_of_version_0_1_is_gone_on_from(tmp_path: Path):
    """One network, one nameless optimiser, no numbers: what came later keeps its value."""
    path = tmp_path / "checkpoint.safetensors"
    state = learned(0)
    learn_all(state, 3)
    tensors = {f"network.part0.{key}": value for key, value in state.networks["part0"].state_dict().items()}
    for index, entry in state.optimisers["part0"].state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": value for key, value in entry.items()}
    write_tensors(path, tensors, {"step": "3", "seconds": "0.1", "is_finished": "0", "run": "{}"})
    other = learned(1, num_parts=1)
    load_state(path, other)
    learn_all(state, 3)
    learn_all(other, 3)
    assert_equal(state, other)
    assert other.numbers == {"num_parts": 1}
    assert read_progress(path).step == 3


@pytest.mark.parametrize("other", [learned(0, gate=0.0), learned(0, 1), learned(0, 1, 2, gate=0.0)])
def test_the_state_of_another_kind_of_run_is_refused(other: Learned, tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    save_state(path, learned(0, 1, gate=0.0), Progress(step=3, seconds=0.1, is_finished=False, run=RUN))
    with pytest.raises(InputError, match="was written for another network; start anew with --restart"):
        load_state(path, other)


@pytest.mark.parametrize("is_finished", [False, True])
def test_progress_comes_back_to_the_last_digit(tmp_path: Path, is_finished: bool):
    path = tmp_path / "checkpoint.safetensors"
    progress = Progress(step=12345, seconds=0.1 + 0.2, is_finished=is_finished, run=RUN)
    save_state(path, learned(0), progress)
    assert read_progress(path) == progress


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_a_damaged_checkpoint_asks_for_a_restart(tmp_path: Path, content: bytes):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors: damaged checkpoint .*; start anew with --restart"):
        read_progress(path)


def test_a_truncated_checkpoint_asks_for_a_restart(tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    save_state(path, learned(0), Progress(step=1, seconds=1, is_finished=False, run=RUN))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged checkpoint"):
        read_progress(path)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, limited_files):
    path = tmp_path / "checkpoint.safetensors"
    progress = Progress(step=1, seconds=1, is_finished=False, run=RUN)
    save_state(path, learned(0), progress)
    large = Learned(networks={"part0": nn.Linear(200, 200)}, optimisers={}, numbers={})
    with limited_files(20_000), pytest.raises(OutputError, match="cannot be written"):
        save_state(path, large, progress)
    assert read_progress(path) == progress
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
