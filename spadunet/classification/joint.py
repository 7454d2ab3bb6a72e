"""Label maps and findings learned through one backbone: a step is of patches or of whole studies.

Each loss sees what is labelled and nothing else: a step of patches leaves the task that classifies as it is, one of
studies those that segment, and decoders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from ..network.classify import ClassificationNetwork, ClassificationTask, encoder_of
from ..training.loop import JointNetwork, SegmentationLearner
from ..training.monitor import NUM_VALIDATIONS, Monitor
from ..training.optimiser import make_optimiser
from ..training.patches import Batch, BatchStream
from ..training.prepare import PreparedRun
from ..training.schedule import learning_rate
from ..training.state import Progress
from ..training.steps import run_steps
from .batches import StudyBatch, StudyStream, load_batches
from .epochs import Epochs
from .learner import ClassificationLearner
from .options import ClassificationOptions
from .parts import Parts
from .sources import Source

FINDINGS = "findings"
"""The task that classifies, in the checkpoint."""
JUDGED_AT = "judged_at"
"""Seconds of the run after which held-out studies were last scored."""

AnyBatch = Batch | StudyBatch


@dataclass(frozen=True, kw_only=True)
class JointRun:
    """A segmentation, and what joins it; every input was found sound."""

    segmentation: PreparedRun
    source: Source
    """Studies with their findings."""
    task: ClassificationTask
    options: ClassificationOptions
    share: float
    """Of the steps that are of studies, between 0 and 1."""
    request: dict[str, str]
    """What was asked for, of both, as kept in the checkpoint and in the model's provenance."""

    @property
    def num_steps(self) -> float:
        """Of the run, until every training study was seen once."""
        return -(-len(self.source.train.names) // self.options.batch_size) / self.share


class JointStream(Dataset[AnyBatch]):
    """Batch number `step` of a run, for any step; those of studies are spread evenly."""

    def __init__(self, patches: BatchStream, studies: StudyStream, share: float):
        self.patches, self.studies, self.share = patches, studies, share

    def __getitem__(self, step: int) -> AnyBatch:
        number = num_of_studies(step, self.share)
        return self.studies[number] if num_of_studies(step + 1, self.share) > number else self.patches[step]


def num_of_studies(num_steps: int, share: float) -> int:
    """How many of the first steps of a run are of studies."""
    return math.floor(num_steps * share)


def join_networks(network: JointNetwork, task: ClassificationTask) -> Parts:
    """The backbone with the task that classifies; all of the encoder learns, a ViT's final norm too, which
    segmentation keeps as it is."""
    encoder_of(network.backbone).requires_grad_(True)
    joined = ClassificationNetwork(network.backbone, task)
    return Parts(backbone=network.backbone, task=task, adapter=None, network=joined, is_frozen=False)


class JointLearner:
    """All that changes in a run of both kinds, under one optimiser.

    Attributes:
        segmentation, studies: what learns from a batch of either kind.
    """

    def __init__(self, run: JointRun):
        member = run.segmentation
        options = member.options
        parts = join_networks(member.network, run.task)
        both = nn.ModuleDict({"segmentation": member.network, FINDINGS: run.task})
        optimiser = make_optimiser(
            both, options.learning_rate, options.weight_decay, spares_vectors=options.spares_vectors
        )
        self.segmentation = SegmentationLearner(member.network, member.tasks, options, member.ranks, optimiser)
        self.studies = ClassificationLearner(parts, run.source.plan, run.options, keeps_best=False, optimiser=optimiser)
        self.networks: dict[str, nn.Module] = {**self.segmentation.networks, FINDINGS: run.task}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"all": optimiser}
        self.numbers = self.segmentation.numbers
        self.numbers |= self.studies.numbers | {JUDGED_AT: 0.0}
        self.studies.numbers = self.numbers

    def learn(self, batch: AnyBatch) -> dict[str, float]:
        """One step; the loss of its kind."""
        return self.studies.learn(batch) if isinstance(batch, StudyBatch) else self.segmentation.learn(batch)

    def find_cause(self, batch: AnyBatch) -> str | None:
        """What in the batch gives a loss that is not finite; empty if it is the weights, None if the gradient."""
        kind = self.studies if isinstance(batch, StudyBatch) else self.segmentation
        return kind.find_cause(batch)  # type: ignore[arg-type]


def train_both(run: JointRun, folder: Path, *, refresh: Callable[[], None]) -> tuple[Progress, Epochs]:
    """Train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    The weights of the last step are the result: what is best for findings need not be for label maps.

    Args:
        refresh: called with every checkpoint.

    Returns:
        How far it came, and what scores held-out studies.

    Raises:
        InputError: if a stored case cannot be read any more; names its file.
        OutputError: if a loss is no longer finite, or a single patch or study is too large for the memory.
    """
    member, source = run.segmentation, run.source
    options = member.options
    member.network.to(options.device)
    run.task.to(options.device)
    learner = JointLearner(run)
    monitor = Monitor(
        member.network,
        member.tasks,
        member.watched,
        folder,
        options,
        member.ranks,
        every=options.validate_every,
        patience=options.patience,
        numbers=learner.numbers,
    )
    epochs = Epochs(learner.studies, source.held_out, folder, run.num_steps)
    patches = BatchStream(member.tasks, options.seed, augments=options.device.type == "cpu")
    studies = StudyStream(
        source.train.open(),
        source.train.labels,
        batch_size=run.options.batch_size,
        seed=options.seed,
        recipe=run.options.augmentation,
        is_dimmed=False,
    )
    stream = JointStream(patches, studies, run.share)

    def batches(step: int) -> Iterator[AnyBatch]:
        if source.held_out is not None:
            epochs.forget_later()
            if step and is_due(run, step, 0.0, 0.0):  # a run that was stopped still owes it
                epochs.judge_once(step)
        return load_batches(stream, step, options.max_steps, options.num_workers)

    def after_step(step: int, seconds: float) -> None:
        monitor.after_step(step, seconds)
        if is_due(run, step, seconds, learner.numbers[JUDGED_AT]):
            learner.numbers[JUDGED_AT] = seconds
            epochs.judge_once(step)

    progress = run_steps(
        learner,
        batches,
        folder,
        options,
        run=run.request,
        schedule=partial(learning_rate, warm_up=options.warm_up_share, lowest=options.lowest_rate),
        facts=partial(describe, findings=source.name),
        by="task",
        title="Training",
        company=member.ranks,
        course=monitor.course,
        after_step=after_step,
        find_cause=learner.find_cause,
        keep=lambda step: refresh(),
    )
    monitor.tell(progress.seconds)
    epochs.finish(progress.step)
    return progress, epochs


def describe(batch: AnyBatch, findings: str) -> dict[str, object]:
    """What the curves tell of a batch.

    Args:
        findings: name of the task that classifies.
    """
    return {"task": findings if isinstance(batch, StudyBatch) else batch.task, "da": batch.da}


def is_due(run: JointRun, step: int, seconds: float, last_seconds: float) -> bool:
    """Whether held-out studies are scored after a step: as often as patches are, but not within an epoch unless asked.

    Args:
        seconds: of the run.
        last_seconds: when they were scored last.
    """
    options = run.segmentation.options
    if options.validate_every is not None:
        return options.validate_every > 0 and step % options.validate_every == 0
    if options.max_minutes is not None or options.max_steps is None:
        return seconds - last_seconds >= 60 * (options.max_minutes or math.inf) / NUM_VALIDATIONS
    return step % math.ceil(max(options.max_steps / NUM_VALIDATIONS, run.num_steps)) == 0
