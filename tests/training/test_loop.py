"""The loop: exact resume, honest ends."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spadunet.errors import OutputError
from spadunet.network import compiling
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.preprocessing.store import write_array
from spadunet.tensors import read_tensors
from spadunet.training import loop, steps
from spadunet.training.curves import CSV_FILE, read_rows
from spadunet.training.loop import JointNetwork, train_network
from spadunet.training.optimiser import make_optimiser
from spadunet.training.patches import Batch, BatchStream, TrainingTask
from spadunet.training.state import Learned, Progress, read_progress

CHECKPOINT = "state/checkpoint.safetensors"


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def small_network(num_tasks: int = 1) -> JointNetwork:
    """Three levels of sixteen channels."""
    torch.manual_seed(0)
    tasks = [SegmentationTask(1, 3, [16, 16]) for _ in range(num_tasks)]
    return JointNetwork(SpadUNet([16, 16, 16], [1, 1, 1]), tasks)


def tiny_network() -> JointNetwork:
    """The preset `tiny`."""
    torch.manual_seed(0)
    return JointNetwork(build_backbone("spad_unet", "tiny"), [build_task(1, 3, "spad_unet", "tiny")])


def losses(folder: Path) -> list[tuple[str, str]]:
    """Task and loss of every step, as written."""
    rows = read_rows(folder / "curves.csv")
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    return [(row["task"], row["loss"]) for row in rows]


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, action: Callable[[], object]) -> None:
    """Act at the start of the train_step of this number."""
    real, calls = loop.train_step, 0

    def train_step(*arguments: object) -> float:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            action()
        return real(*arguments)

    monkeypatch.setattr(loop, "train_step", train_step)


def raising(error: BaseException) -> Callable[[], object]:
    """An action that raises."""

    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("network", [pytest.param(tiny_network, marks=pytest.mark.slow), small_network])
def test_a_run_killed_after_its_checkpoint_goes_on_to_the_same_losses_and_weights(
    network, make_task, make_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks = [make_task()]
    whole, parts = network(), network()
    train_network(whole, tasks, tmp_path / "whole", make_options(), run={})
    real_save = steps.save_state

    def save_until_step_4(path: Path, learned: Learned, progress: Progress) -> None:
        if progress.step <= 4:
            real_save(path, learned, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(steps, "save_state", save_until_step_4)
        fail_at(patch, 6, raising(Killed()))
        train_network(parts, tasks, tmp_path / "parts", make_options(), run={})
    assert read_progress(tmp_path / "parts" / CHECKPOINT).step == 4
    assert len(losses(tmp_path / "parts")) == 6  # two steps further than the checkpoint
    resumed = network()
    progress = train_network(resumed, tasks, tmp_path / "parts", make_options(), run={})
    assert (progress.step, progress.is_finished) == (8, True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    checkpoints = [read_tensors(tmp_path / folder / CHECKPOINT) for folder in ("whole", "parts")]
    assert checkpoints[0].keys() == checkpoints[1].keys()
    assert all(torch.equal(value, checkpoints[1][name]) for name, value in checkpoints[0].items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_between_two_steps_with_its_state_saved(
    number, make_task, make_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks, options = [make_task()], make_options(checkpoint_minutes=60.0, max_steps=5)
    train_network(small_network(), tasks, tmp_path / "whole", options, run={})
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        fail_at(patch, 2, lambda: os.kill(os.getpid(), number))
        train_network(small_network(), tasks, tmp_path / "parts", options, run={"seed": "0"})
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    progress = read_progress(tmp_path / "parts" / CHECKPOINT)
    assert (progress.step, progress.is_finished, progress.run) == (3, False, {"seed": "0"})
    train_network(small_network(), tasks, tmp_path / "parts", options, run={})
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    make_task, make_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = loop.deep_loss, 0

    def explode(logits: list[Tensor], *arguments: object, **further: object) -> Tensor:
        nonlocal calls
        calls += 1
        return real(logits, *arguments, **further) * (float("nan") if calls >= 4 and len(logits[0]) > 1 else 1)

    monkeypatch.setattr(loop, "deep_loss", explode)
    with pytest.raises(
        OutputError, match=r"loss became nan at step 3 \(task Dataset001_A, .*try a lower --learning-rate"
    ):
        train_network(small_network(), [make_task()], tmp_path, make_options(), run={})
    progress = read_progress(tmp_path / CHECKPOINT)
    assert (progress.step, progress.is_finished) == (3, False)
    assert all(value.isfinite().all() for value in read_tensors(tmp_path / CHECKPOINT).values())
    assert len(losses(tmp_path)) == 3


def test_a_loss_that_is_not_finite_names_the_case_and_the_state_before_it_is_saved(
    make_task, make_options, tmp_path: Path
):
    """One of three cases is broken on disk; mended, the same run goes on to the weights of an unbroken one."""
    task = make_task(batch_size=1)
    whole, options = small_network(), make_options(max_steps=6, checkpoint_minutes=60.0)
    train_network(whole, [task], tmp_path / "whole", options, run={})
    stream = loop.BatchStream([task], 0)
    drawn = [stream[step].cases[0] for step in range(6)]
    broken = next(name for name in drawn[1:] if name != drawn[0])
    step = drawn.index(broken)
    path = task.cases[0].folder / f"{broken}.b2nd"
    sound = path.read_bytes()
    write_array(path, np.full((1, 12, 24, 24), np.nan, np.float16))
    message = rf"loss became nan at step {step} \(task {task.name}, da 0, case {broken}\); the state before it is saved"
    with pytest.raises(OutputError, match=message):
        train_network(small_network(), [task], tmp_path / "parts", options, run={})
    assert read_progress(tmp_path / "parts" / CHECKPOINT).step == step
    path.write_bytes(sound)
    resumed = small_network()
    train_network(resumed, [task], tmp_path / "parts", options, run={})
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_of_several_cases_the_one_that_is_not_finite_alone_is_named(make_task, make_options):
    task = make_task(batch_size=4)
    learner = loop.SegmentationLearner(small_network(), [task], make_options(), loop.Ranks())
    batch = loop.BatchStream([task], 0)[0]
    assert learner.find_cause(batch) is None
    batch.image[2, 0, 0, 0, 0] = float("inf")
    assert learner.find_cause(batch) == f"case {batch.cases[2]}"


def test_weights_that_have_diverged_are_no_fault_of_the_cases(make_task, make_options, tmp_path: Path):
    network = small_network()
    with torch.no_grad():
        next(network.backbone.parameters()).fill_(float("inf"))
    message = r"step 0 \(task Dataset001_A, da 0\) with every case of the batch: the weights have diverged; lower --lea"
    with pytest.raises(OutputError, match=message):
        train_network(network, [make_task()], tmp_path, make_options(), run={})


@pytest.mark.parametrize(
    ("precision", "advice"),
    [(torch.float32, "a lower --learning-rate and --restart"), (torch.bfloat16, "or --precision float32, and --rest")],
)
def test_a_gradient_that_is_not_finite_is_told_and_no_sound_case_is_blamed(
    precision, advice: str, make_task, make_options, tmp_path: Path, monkeypatch
):
    real, num_steps = loop.take_step, itertools.count()

    def take_step(loss: Tensor, *rest) -> Tensor:
        if next(num_steps) == 2:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return real(loss, *rest)

    monkeypatch.setattr(loop, "take_step", take_step)
    options = make_options(precision=precision, checkpoint_minutes=60.0)
    with pytest.raises(steps.DivergedError) as caught:
        train_network(small_network(), [make_task()], tmp_path, options, run={})
    told = str(caught.value)
    assert told.startswith("the gradient became infinite or nan at step 2 (task Dataset001_A, da 0), though the loss")
    assert advice in told and "correct the case" not in told
    assert read_progress(tmp_path / CHECKPOINT).step == 2


def test_max_minutes_ends_a_run(make_task, make_options, tmp_path: Path):
    options = make_options(max_steps=None, max_minutes=1e-6)
    progress = train_network(small_network(), [make_task()], tmp_path, options, run={})
    assert (progress.step, progress.is_finished) == (1, True)  # 60 µs are over after one step


def test_minutes_before_a_run_was_stopped_count(make_task, make_options, tmp_path: Path, monkeypatch):
    """By a clock that goes on ten seconds a step: three steps before, three after, and no waiting in between."""
    task, options = make_task(), make_options(max_steps=None, max_minutes=1.0)
    clock, num_taken = [1000.0], itertools.count(1)

    def train_step(*_: object) -> float:
        clock[0] += 10
        if next(num_taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(loop, "train_step", train_step)
    with pytest.raises(KeyboardInterrupt):
        train_network(small_network(), [task], tmp_path, options, run={})
    progress = read_progress(tmp_path / CHECKPOINT)
    assert (progress.step, progress.seconds) == (3, 30.0)
    clock[0] = 50.0  # another start of the machine
    progress = train_network(small_network(), [task], tmp_path, options, run={})
    assert (progress.step, progress.seconds, progress.is_finished) == (6, 60.0, True)


def test_whichever_limit_comes_first_ends_a_run(make_options):
    assert make_options(max_steps=8).share_done(4, 0.0) == 0.5
    assert make_options(max_steps=8, max_minutes=0.5).share_done(4, 30.0) == 1
    assert make_options(max_steps=None, max_minutes=0.5).share_done(4, 15.0) == 0.5


@pytest.mark.slow
def test_training_on_one_patch_again_and_again_learns_it(make_task, make_options, tmp_path: Path, monkeypatch):
    task = make_task(num_cases=1)
    batch = loop.BatchStream([task], 0)[0]
    monkeypatch.setattr(loop.BatchStream, "__getitem__", lambda *_: batch)
    train_network(small_network(), [task], tmp_path, make_options(max_steps=25, learning_rate=1e-2), run={})
    values = [float(loss) for _, loss in losses(tmp_path)]
    assert values[-1] < values[0] / 2


def test_two_tasks_share_the_backbone_and_keep_their_own_heads(make_task, make_options, tmp_path: Path):
    tasks: list[TrainingTask] = [
        make_task("Dataset001_A"),
        make_task("Dataset002_B", spacing_mm=(8.0, 1.0, 1.0), shape=(4, 24, 24), patch=(2, 16, 16)),
    ]
    network = small_network(num_tasks=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train_network(network, tasks, tmp_path, make_options(max_steps=6), run={})
    assert {task for task, _ in losses(tmp_path)} == {"Dataset001_A", "Dataset002_B"}
    after = network.state_dict()
    for name in ("tasks.0.heads.0.weight", "tasks.1.heads.0.weight", "backbone.encoder.stem.norm.weight"):
        assert not torch.equal(before[name], after[name]), name


def test_a_batch_of_one_task_gives_the_others_no_gradient_and_leaves_them_as_they_are(make_task, make_options):
    tasks = [make_task("Dataset001_A"), make_task("Dataset002_B")]
    network = small_network(num_tasks=2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = make_optimiser(network, 1e-2, 0.1, spares_vectors=False)
    for number in (1, 0):  # the moments that B's own step left move nothing later
        loop.train_step(network, number, BatchStream(tasks[number : number + 1], 0)[0], tasks[number], optimiser,
                        make_options())  # fmt: skip
        if number == 1:
            before |= {f"tasks.1.{name}": value.clone() for name, value in network.tasks[1].state_dict().items()}
    assert all(parameter.grad is None for parameter in network.tasks[1].parameters())
    assert all(parameter.grad is not None for parameter in network.tasks[0].parameters())
    after = network.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if not name.startswith("tasks.1.")}


@pytest.mark.parametrize("spares_vectors", [False, True])
def test_a_frozen_backbone_has_no_gradient_no_moments_and_stays_as_it_is(
    make_task, make_options, tmp_path: Path, spares_vectors: bool
):
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    options = make_options(max_steps=3, weight_decay=0.5, freezes_backbone=True, spares_vectors=spares_vectors)
    train_network(network, [make_task()], tmp_path, options, run={})
    after = network.state_dict()
    for name, value in after.items():
        assert torch.equal(value, before[name]) == name.startswith("backbone."), name
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert not network.backbone.training
    moments = [name for name in read_tensors(tmp_path / CHECKPOINT) if name.startswith("optimiser.")]
    assert len(moments) == 3 * len(list(network.tasks.parameters()))  # step and two moments of each


def test_classes_that_weigh_more_move_the_network_otherwise(make_task, make_options):
    task = make_task()
    batch, losses = BatchStream([task], 0)[0], []
    for weights in (None, (1.0, 1.0, 1.0), (1.0, 1.0, 5.0)):
        network = small_network()
        optimiser = make_optimiser(network, 1e-2, 0.1, spares_vectors=False)
        weighted = dataclasses.replace(task, class_weights=weights)
        losses.append(loop.train_step(network, 0, batch, weighted, optimiser, make_options()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert abs(losses[2] - losses[0]) > 1e-3


def test_bfloat16_trains(make_task, make_options, tmp_path: Path):
    options = make_options(max_steps=1, precision=torch.bfloat16)
    train_network(small_network(), [make_task()], tmp_path, options, run={})
    assert float(losses(tmp_path)[0][1]) > 0


@pytest.mark.gpu
def test_trains_on_a_gpu(make_task, make_options, tmp_path: Path):
    options = make_options(max_steps=2, device=torch.device("cuda"), precision=torch.bfloat16)
    train_network(small_network(), [make_task()], tmp_path, options, run={})
    assert len(losses(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork
@pytest.mark.parametrize(
    ("num_workers", "checkpoint_minutes", "lowest", "highest"),
    [
        (0, 60.0, 0.55, 0.76),  # 0.3 of 0.4 s, and of a little more on a busy machine
        (1, 60.0, 0.3, 0.76),  # a worker makes the next batch meanwhile: 0.2 of 0.3 s
        (0, 1e-9, 0.0, 0.5),  # saving and drawing take longer than all else, and are no waiting
    ],
)
def test_the_time_that_a_step_waits_for_its_batch_is_noted_with_and_without_workers(
    num_workers, checkpoint_minutes, lowest, highest, make_task, make_options, tmp_path: Path, monkeypatch
):
    task = make_task()
    batch = loop.BatchStream([task], 0)[0]

    def make_slowly(*_) -> Batch:
        time.sleep(0.3)
        return batch

    monkeypatch.setattr(loop.BatchStream, "__getitem__", make_slowly)
    monkeypatch.setattr(loop, "train_step", lambda *_: time.sleep(0.1) or 1.0)
    monkeypatch.setattr(steps, "save_state", lambda *_: time.sleep(0.4))
    options = make_options(max_steps=5, num_workers=num_workers, checkpoint_minutes=checkpoint_minutes)
    train_network(small_network(), [task], tmp_path, options, run={})
    shares = [float(row["waiting_share"]) for row in read_rows(tmp_path / CSV_FILE)][1:]
    assert lowest < statistics.median(shares) < highest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own
def test_a_compiled_run_learns_the_same_and_its_weights_keep_their_names(
    make_task, make_options, tmp_path: Path, monkeypatch
):
    task, compiled, real = make_task(), [], compiling.compile_in_place

    def compile_without_code(network: nn.Module) -> None:
        compiled.append(network)
        real(network, backend="eager")

    monkeypatch.setattr(compiling, "compile_in_place", compile_without_code)
    weights = []
    for is_compiled in (False, True):
        network = small_network()
        options = make_options(max_steps=2, is_compiled=is_compiled)
        train_network(network, [task], tmp_path / str(is_compiled), options, run={})
        weights.append(network.state_dict())
    assert len(compiled) == 1
    assert list(weights[0]) == list(weights[1])
    assert all(torch.allclose(one, weights[1][name], atol=1e-6) for name, one in weights[0].items())
