"""The loop: draw a batch, learn from it, note it, save now and then."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..errors import OutputError
from ..labels import LabelSet
from ..network.heads import SegmentationNetwork, SegmentationTask
from .curves import Curves
from .loss import deep_loss
from .optimiser import make_optimiser
from .patches import Batch, BatchStream, TrainingTask
from .schedule import learning_rate
from .state import Progress, checkpoint_path, load_state, read_progress, save_state

MAX_GRADIENT_NORM = 1.0
ENDLESS = 10**9
LINE_SECONDS = 30
"""Without a terminal there is no bar: a line this often says how far a run is."""

PACE_STEPS = 20
LONG_HOURS = 12

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to train. The run ends at max_steps or max_minutes, whichever comes first."""

    max_steps: int | None
    max_minutes: float | None
    learning_rate: float
    weight_decay: float
    seed: int
    device: torch.device
    precision: torch.dtype
    num_workers: int
    checkpoint_minutes: float
    spares_vectors: bool = False
    """Weight decay leaves out norms, biases, tokens and positions."""


class JointNetwork(nn.Module):
    """A backbone with the tasks of all datasets in a run."""

    def __init__(self, backbone: nn.Module, tasks: Sequence[SegmentationTask]):
        super().__init__()
        self.backbone = backbone
        self.tasks = nn.ModuleList(tasks)

    def deep_logits(self, x: Tensor, da: int, task: int) -> list[Tensor]:
        """Logits of one task at each supervised level, finest first."""
        member = self.tasks[task]
        assert isinstance(member, SegmentationTask)
        return SegmentationNetwork(self.backbone, member).deep_logits(x, da)


def train_network(
    network: JointNetwork,
    tasks: Sequence[TrainingTask],
    folder: Path,
    options: RunOptions,
    *,
    run: dict[str, str],
) -> Progress:
    """Train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    Args:
        network: with as many tasks as `tasks`, in that order; trained in place.
        folder: of the model; curves go there, the checkpoint into its state/.
        run: what the run was asked for, kept in the checkpoint.

    Raises:
        OutputError: if the loss is no longer finite.
    """
    checkpoint = checkpoint_path(folder)
    network.to(options.device).train()
    optimiser = make_optimiser(
        network, options.learning_rate, options.weight_decay, spares_vectors=options.spares_vectors
    )
    step, seconds = 0, 0.0
    if checkpoint.is_file():
        progress = read_progress(checkpoint)
        step, seconds = progress.step, progress.seconds
        load_state(checkpoint, network, optimiser)

    def save(*, is_finished: bool) -> Progress:
        progress = Progress(step=step, seconds=seconds, is_finished=is_finished, run=run)
        save_state(checkpoint, network, optimiser, progress)
        return progress

    first_step, first_seconds = step, seconds
    numbers = {task.name: index for index, task in enumerate(tasks)}
    batches = iter(load_batches(BatchStream(tasks, options.seed), step, options))
    curves = Curves(folder, step)
    start = time.monotonic() - seconds
    last_save = last_line = time.monotonic()
    now = start + seconds
    bar = tqdm(total=options.max_steps, initial=step, desc="Training", unit="step", disable=None, dynamic_ncols=True)
    with stop_signal() as is_stopped, contextlib.closing(bar), contextlib.closing(curves):
        try:
            while share_done(step, seconds, options) < 1 and not is_stopped():
                before = now
                batch = next(batches)
                waited = time.monotonic() - before
                number = numbers[batch.task]
                rate = learning_rate(share_done(step, seconds, options), options.learning_rate)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                loss = train_step(network, number, batch, tasks[number].plan.labels, optimiser, options)
                now = time.monotonic()
                seconds = now - start
                curves.add(
                    step=step,
                    minutes=f"{seconds / 60:.4f}",
                    task=batch.task,
                    da=batch.da,
                    loss=f"{loss:.9g}",
                    learning_rate=f"{rate:.6g}",
                    samples_per_second=f"{len(batch.image) / (now - before):.4g}",
                    waiting_share=f"{waited / (now - before):.3f}",
                )
                step += 1
                bar.update()
                bar.set_postfix_str(describe(step, loss, seconds, options), refresh=False)
                if step == first_step + PACE_STEPS:
                    warn_if_long(seconds - first_seconds, step, options)
                if bar.disable and now - last_line > LINE_SECONDS:
                    log.info(describe(step, loss, seconds, options))
                    last_line = now
                if now - last_save > options.checkpoint_minutes * 60:
                    save(is_finished=False)
                    curves.draw()
                    last_save = now
        except RuntimeError:
            if not is_stopped():  # the signal reaches the workers too, whose end is then no news
                raise
    if is_stopped():
        save(is_finished=False)
        raise KeyboardInterrupt
    return save(is_finished=True)


def load_batches(stream: BatchStream, start_step: int, options: RunOptions) -> DataLoader[Batch]:
    """Batches from a step on, made ahead by worker processes."""
    steps = range(start_step, options.max_steps if options.max_steps is not None else ENDLESS)
    return DataLoader(
        stream,
        batch_size=None,
        sampler=steps,
        num_workers=options.num_workers,
        prefetch_factor=4 if options.num_workers else None,
    )


def share_done(step: int, seconds: float, options: RunOptions) -> float:
    """How much of the run is behind us, 0 … 1, by steps or by time, whichever is further."""
    by_steps = step / options.max_steps if options.max_steps else 0.0
    by_time = seconds / (60 * options.max_minutes) if options.max_minutes else 0.0
    return max(by_steps, by_time)


def train_step(
    network: JointNetwork,
    task: int,
    batch: Batch,
    labels: LabelSet,
    optimiser: torch.optim.Optimizer,
    options: RunOptions,
) -> float:
    """One optimiser step; its loss.

    Raises:
        OutputError: if the loss is not finite.
    """
    image, classes = batch.image.to(options.device), batch.classes.to(options.device)
    uses_bf16 = options.precision == torch.bfloat16
    with torch.autocast(options.device.type, dtype=torch.bfloat16, enabled=uses_bf16):
        logits = network.deep_logits(image, batch.da, task)
    loss = deep_loss(logits, classes, labels)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise OutputError(
            f"the loss of {batch.task} became {value}; the last checkpoint is kept: try a lower --learning-rate"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
    return value


def warn_if_long(seconds: float, step: int, options: RunOptions) -> None:
    """Say it early if PACE_STEPS steps took so long that the run will need days."""
    if options.max_minutes is None and options.max_steps is not None:
        hours = (options.max_steps - step) * seconds / PACE_STEPS / 3600
        if hours > LONG_HOURS:
            log.warning(
                "at this pace the run needs about %.0f hours; --max-minutes ends it in time, "
                "a smaller --preset, or patches planned with a lower --memory-gb, make steps shorter",
                hours,
            )


def describe(step: int, loss: float, seconds: float, options: RunOptions) -> str:
    """Where a run stands, in one line."""
    steps = f"step {step}" + (f" of {options.max_steps}" if options.max_steps else "")
    minutes = f"{seconds / 60:.1f}" + (f" of {options.max_minutes:g}" if options.max_minutes else "")
    return f"{steps}, {minutes} minutes, loss {loss:.3f}"


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """Tell whether Ctrl-C or SIGTERM came, so that a run stops between two steps; a second Ctrl-C stops at once."""
    came: list[int] = []

    def note(number: int, _: object) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
