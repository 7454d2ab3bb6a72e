"""Training of a backbone with the tasks of several datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..labels import LabelSet
from ..network.heads import SegmentationNetwork, SegmentationTask
from .loss import deep_loss
from .optimiser import make_optimiser, take_step
from .options import LoopOptions, autocast
from .patches import Batch, BatchStream, TrainingTask
from .schedule import learning_rate
from .state import Progress
from .steps import ENDLESS, Alone, run_steps
from .workers import begin_worker, end_threads

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoopOptions):
    """How to train."""

    learning_rate: float
    weight_decay: float
    spares_vectors: bool = False
    """Weight decay leaves out norms, biases, tokens and positions."""
    is_compiled: bool = False
    """The backbone runs through torch.compile."""


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


@dataclass(frozen=True, kw_only=True)
class SegmentationLearner:
    """All that fine-tuning changes."""

    networks: dict[str, nn.Module]
    optimisers: dict[str, torch.optim.Optimizer]
    numbers: dict[str, float]
    learn: Callable[[Batch], dict[str, float]]


def train_network(
    network: JointNetwork,
    tasks: Sequence[TrainingTask],
    folder: Path,
    options: RunOptions,
    *,
    run: dict[str, str],
    keep: Callable[[int], None] | None = None,
) -> Progress:
    """Train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    Args:
        network: with as many tasks as `tasks`, in that order; trained in place.
        folder: of the model; curves go there, the checkpoint into its state/.
        run: what the run was asked for, kept in the checkpoint.
        keep: called after so many steps, with every checkpoint.

    Raises:
        OutputError: if the loss is no longer finite.
    """
    network.to(options.device)
    if options.is_compiled:
        from ..network.compiling import compile_in_place  # loads the compiler, which takes seconds

        compile_in_place(network.backbone)
    optimiser = make_optimiser(
        network, options.learning_rate, options.weight_decay, spares_vectors=options.spares_vectors
    )
    numbers = {task.name: index for index, task in enumerate(tasks)}

    def learn(batch: Batch) -> dict[str, float]:
        number = numbers[batch.task]
        return {"loss": train_step(network, number, batch, tasks[number].plan.labels, optimiser, options)}

    # Workers augment for a processor, which has no core to spare while it trains; a GPU does it itself, in no time.
    stream = BatchStream(tasks, options.seed, augments=options.device.type == "cpu")
    return run_steps(
        SegmentationLearner(
            networks={"backbone": network.backbone, "tasks": network.tasks},
            optimisers={"all": optimiser},
            numbers={},
            learn=learn,
        ),
        lambda step: load_batches(stream, step, options),
        folder,
        options,
        run=run,
        schedule=learning_rate,
        facts=lambda batch: {"task": batch.task, "da": batch.da},
        by="task",
        title="Training",
        company=Alone(),
        keep=keep,
    )


def load_batches(stream: BatchStream, start_step: int, options: RunOptions) -> Iterator[Batch]:
    """Batches from a step on, made ahead by worker processes, which end when this is closed."""
    steps = range(start_step, options.max_steps if options.max_steps is not None else ENDLESS)
    end_threads()
    yield from DataLoader(
        stream,
        batch_size=None,
        sampler=steps,
        num_workers=options.num_workers,
        prefetch_factor=4 if options.num_workers else None,
        worker_init_fn=begin_worker,
    )


def train_step(
    network: JointNetwork,
    task: int,
    batch: Batch,
    labels: LabelSet,
    optimiser: torch.optim.Optimizer,
    options: RunOptions,
) -> float:
    """One optimiser step; its loss, NaN where its gradient is not finite."""
    batch = batch.finish(options.device)
    with autocast(options.device, options.precision):
        logits = network.deep_logits(batch.image, batch.da, task)
    loss = deep_loss(logits, batch.classes, labels)
    return float(take_step(loss, network, optimiser, MAX_GRADIENT_NORM))
