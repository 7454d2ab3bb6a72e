"""Out of memory: a batch in parts learns what the whole batch would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spadunet.errors import OutputError
from spadunet.network.heads import SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.parallel import is_out_of_memory
from spadunet.tensors import read_tensors
from spadunet.training import steps
from spadunet.training.curves import read_rows
from spadunet.training.loop import JointNetwork, SegmentationLearner, loss_of, train_network
from spadunet.training.optimiser import room_for_moments, take_step
from spadunet.training.parts import halve, in_company
from spadunet.training.patches import Batch, BatchStream
from spadunet.training.ranks import Ranks
from spadunet.training.state import read_metadata

CHECKPOINT = "state/checkpoint.safetensors"
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "linux": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "windows": RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuda runtime": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GiB, other allocations: 1.00 GiB)"),
    "python": MemoryError(),
}


def small_network() -> JointNetwork:
    """Two levels of eight channels; two supervised levels."""
    torch.manual_seed(0)
    return JointNetwork(SpadUNet([8, 8, 8], [1, 1, 1]), [SegmentationTask(1, 3, [8, 8])])


def limit_patches(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception, *, from_call: int = 0) -> list[int]:
    """A memory that holds the activations of so many patches; the sizes of what was run."""
    real, sizes = JointNetwork.deep_logits, []

    def deep_logits(self: JointNetwork, x: Tensor, da: int, task: int) -> list[Tensor]:
        sizes.append(len(x))
        if len(x) > most and len(sizes) > from_call:
            raise error
        return real(self, x, da, task)

    monkeypatch.setattr(JointNetwork, "deep_logits", deep_logits)
    return sizes


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_kind_of_shortage_is_recognised(error: Exception):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_what_torch_really_raises_on_this_machine_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("num_parts", [2, 3, 4])
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(make_task, make_options, num_parts: int):
    """The loss has a Dice over the whole batch, so the mean of the parts' losses would have another one."""
    task, options = make_task(batch_size=4), make_options()
    batch = BatchStream([task], 0)[0]
    batch = replace(batch, image=batch.image.double())

    def gradient(losses: Callable[[JointNetwork], Iterable[Tensor]]) -> Tensor:
        network = small_network().double()
        sum(losses(network)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])

    whole = gradient(lambda network: [loss_of(network, 0, batch, task, options)])
    parts = gradient(lambda network: [loss_of(network, 0, batch, task, options, num_parts)])
    apart = gradient(lambda network: (loss_of(network, 0, batch.patch(n), task, options) / 4 for n in range(4)))
    assert float((whole - parts).abs().max()) < 1e-12
    assert float((whole - apart).abs().max()) > 1e-4


@pytest.mark.parametrize("error", [ERRORS["cuda"], ERRORS["linux"]], ids=["cuda", "linux"])
def test_out_of_memory_halves_what_is_run_at_once_and_says_so(
    error, make_task, make_options, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    task, options = make_task(batch_size=4), make_options(max_steps=3)
    train_network(small_network(), [task], tmp_path / "whole", options, run={})
    sizes = limit_patches(monkeypatch, 1, error)
    train_network(small_network(), [task], tmp_path / "parts", options, run={})
    # 4 do not fit, nor do 2; then 4 parts of one patch forth and, as their activations were let go, again for the way
    # back; from then on no larger one is tried.
    assert sizes == [4, 2] + [1] * 8 + [1] * 16
    assert "out of memory with 4 patches at once: from now on at most 2" in caplog.text
    assert "out of memory with 2 patches at once: from now on at most 1" in caplog.text
    assert "the batch stays 4" in caplog.text
    losses = [[float(row["loss"]) for row in read_rows(tmp_path / name / "curves.csv")] for name in ("whole", "parts")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert json.loads(read_metadata(tmp_path / "parts" / CHECKPOINT)["numbers"])["num_parts"] == 4


class Killed(BaseException):
    """Stands for kill -9."""


def test_a_run_in_parts_goes_on_in_parts_to_the_same_weights(make_task, make_options, tmp_path: Path, monkeypatch):
    """Whole batches again would give other roundings."""
    task, options = make_task(), make_options(max_steps=4)
    with monkeypatch.context() as patch:
        limit_patches(patch, 1, ERRORS["linux"], from_call=1)  # the second step is the first that does not fit
        train_network(small_network(), [task], tmp_path / "whole", options, run={})
    real = steps.save_state

    def save_until(path, learned, progress) -> None:
        if progress.step > 2:
            raise Killed
        real(path, learned, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        limit_patches(patch, 1, ERRORS["linux"], from_call=1)
        patch.setattr(steps, "save_state", save_until)
        train_network(small_network(), [task], tmp_path / "parts", options, run={})
    sizes = limit_patches(monkeypatch, 2, ERRORS["linux"])  # memory is there again
    train_network(small_network(), [task], tmp_path / "parts", options, run={})
    assert set(sizes) == {1}
    tensors = [read_tensors(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (1, r"out of memory with a single patch of 8×16×16 voxels of Dataset001_A; the last checkpoint is kept: plan"),
        (2, r"of Dataset001_A beside the logits and the loss of all 2; .* kept: take a smaller --batch-size, or plan"),
    ],
)
def test_a_single_patch_that_does_not_fit_ends_the_run_with_advice(
    make_task, make_options, tmp_path: Path, monkeypatch, batch_size: int, message: str
):
    limit_patches(monkeypatch, 0, ERRORS["cuda"])
    with pytest.raises(OutputError, match=message):
        train_network(small_network(), [make_task(batch_size=batch_size)], tmp_path, make_options(), run={})


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_shortage_in_a_step_that_others_wait_in_is_told_in_a_line(error: Exception):
    def step() -> None:
        raise error

    with pytest.raises(OutputError, match="out of memory in the midst of a step.*the same command goes on"):
        in_company(step)


def test_a_trial_leaves_room_for_moments_that_are_not_there_yet(make_task, make_options):
    learner = SegmentationLearner(small_network(), [make_task()], make_options(), Ranks())
    num_bytes = sum(parameter.nbytes for parameter in learner.network.parameters())
    assert sum(tensor.nbytes for tensor in room_for_moments(learner.optimiser)) == 2 * num_bytes
    learner.learn(BatchStream([make_task()], 0)[0])
    assert room_for_moments(learner.optimiser) == []


def test_a_first_step_that_runs_out_of_memory_is_taken_again_as_if_it_had_not_been(make_task, make_options):
    """AdamW counts a parameter's steps before it makes its moments."""
    task = make_task()
    batch = BatchStream([task], 0)[0]
    learners = [SegmentationLearner(small_network(), [task], make_options(), Ranks()) for _ in range(2)]
    learners[0].numbers["num_parts"] = 2

    def run_short(optimiser: torch.optim.Optimizer, *_: object) -> None:
        if learners[1].numbers["num_parts"] == 1:
            parameter = next(iter(learners[1].network.parameters()))
            optimiser.state[parameter]["step"] = torch.zeros(())
            raise MemoryError

    learners[1].optimiser.register_step_pre_hook(run_short)
    losses = [learner.learn(batch) for learner in learners]
    assert losses[0] == losses[1]
    states = [learner.network.state_dict() for learner in learners]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert learners[1].numbers["num_parts"] == 2


def test_a_device_that_has_no_room_to_augment_is_tried_again_with_smaller_parts(
    make_task, make_options, monkeypatch, caplog
):
    """The same patches come of it: what is done to them was drawn before."""
    task = make_task(batch_size=4)
    batch = BatchStream([task], 0, augments=False)[0]
    learners = [SegmentationLearner(small_network(), [task], make_options(), Ranks()) for _ in range(2)]
    learners[0].numbers["num_parts"] = 2
    losses, finish = [learners[0].learn(batch)], Batch.finish

    def run_short(self: Batch, device: torch.device) -> Batch:
        if learners[1].numbers["num_parts"] == 1:
            raise ERRORS["cuda"]
        return finish(self, device)

    monkeypatch.setattr(Batch, "finish", run_short)
    losses.append(learners[1].learn(batch))
    assert losses[0] == losses[1]
    states = [learner.network.state_dict() for learner in learners]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert learners[1].numbers["num_parts"] == 2
    assert "out of memory with 4 patches at once: from now on at most 2" in caplog.text
    assert batch.image.shape[2:] != (8, 16, 16)  # what patches are made from is larger
    with pytest.raises(OutputError, match="a single patch of 8×16×16 voxels"):
        halve(4, batch, Ranks())


def test_nothing_has_been_learned_where_there_is_no_room_for_moments(make_task, make_options, monkeypatch):
    """One group of parameters would have stepped before those of the next one are made."""
    task = make_task()
    learner = SegmentationLearner(small_network(), [task], make_options(spares_vectors=True), Ranks())
    assert len(learner.optimiser.param_groups) == 2
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    batch = BatchStream([task], 0)[0]
    loss = loss_of(learner.network, 0, batch, task, learner.options)

    def run_short(*_: object) -> Tensor:
        raise MemoryError

    monkeypatch.setattr(torch, "empty_like", run_short)
    with pytest.raises(MemoryError):
        take_step(loss, learner.network, learner.optimiser, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in learner.network.state_dict().items())
    assert not learner.optimiser.state


def test_another_error_is_no_shortage(make_task, make_options, tmp_path: Path, monkeypatch):
    limit_patches(monkeypatch, 0, RuntimeError("a shape is wrong"))
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        train_network(small_network(), [make_task()], tmp_path, make_options(), run={})
