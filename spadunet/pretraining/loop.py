"""Pre-training on images without labels: a stage learns from batches, on one process or many."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import listed
from ..training.follow import followed
from ..training.options import LoopOptions
from ..training.ranks import Ranks
from ..training.schedule import learning_rate
from ..training.state import Progress
from ..training.status import RunKind
from ..training.steps import MAX_NAMES, ImageBatch, Learner, run_steps

log = logging.getLogger("spadunet")


class CorpusBatch(ImageBatch, Protocol):
    """Crops of a corpus's images."""

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of the images."""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Keys of those that should have been among them, and could not be read."""


B = TypeVar("B", bound=CorpusBatch)
B_contra = TypeVar("B_contra", bound=CorpusBatch, contravariant=True)


class Stage(Learner[B_contra], Protocol[B_contra]):
    """What is pre-trained.

    `learn` gives measures of the global batch where that is cheap, else of this rank's part. It draws nothing from the
    global generators: what it draws follows from the batch, so that a run goes on exactly. A step whose gradient is not
    finite leaves the weights as they are.
    """

    def show(self, folder: Path, step: int) -> None:
        """Write pictures and slow measures into the folder of the result; called in the first process alone."""


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions(LoopOptions):
    """How to pre-train."""

    batch_size: int
    """Over all processes."""
    warm_up_share: float
    """Of the run, in which the learning rate rises to its peak."""
    lowest_rate: float
    """The learning rate's end."""
    show_minutes: float


def pretrain(
    stage: Stage[B],
    batches: Callable[[int], Iterable[B]],
    folder: Path,
    options: PretrainingOptions,
    ranks: Ranks,
    *,
    run: dict[str, str],
    keep: Callable[[int], None] | None = None,
    is_locked: bool | None = None,
) -> Progress:
    """Pre-train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    The folder's page shows how the run stands.

    A step with a measure that is not finite is skipped. How many were, and which images could not be read in any
    process, is told at the end and on the page.

    A run that was stopped and goes on ends with the very weights of one that was not (on a processor, in float32).

    Args:
        batches: this rank's part of every batch, from a step on.
        folder: of the result, the same for all ranks; the first writes curves there, and the checkpoint into state/.
        run: what the run was asked for, kept in the checkpoint.
        keep: writes what others use of the result after so many steps, in the first process, with every checkpoint.
        is_locked: as `followed` takes it.

    Raises:
        InputError: if the checkpoint is damaged, of another network, or not seen by every rank.
        OutputError: if in ten steps in a row a measure was not finite; the last checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C or SIGTERM at any rank, when the state is saved.
    """

    def schedule(share: float, peak: float) -> float:
        return learning_rate(share, peak, warm_up=options.warm_up_share, lowest=options.lowest_rate)

    kind: RunKind = "tokenizer" if run.get("kind") == "tokenizer" else "mim"
    with followed(folder, kind, options, request=run, is_first=ranks.is_first, is_locked=is_locked) as shown:

        def keep_and_show(step: int) -> None:
            if keep is not None:
                keep(step)
            shown.refresh()

        progress = run_steps(
            stage,
            batches,
            folder,
            options,
            run=run,
            schedule=schedule,
            facts=lambda batch: {"da": batch.da},
            title="Pre-training",
            company=ranks,
            show=lambda step: stage.show(folder, step),
            show_minutes=options.show_minutes,
            keep=keep_and_show,
            names_of=lambda batch: batch.names,
            unreadable_of=lambda batch: batch.unreadable,
        )
        shown.problems = shortfalls(progress)
        for line in shown.problems:
            log.warning(line)
        return progress


def shortfalls(progress: Progress) -> list[str]:
    """What a run could not do, in lines."""
    lines = []
    if progress.num_skipped:
        lines.append(f"{progress.num_skipped} of {progress.step} steps were skipped: a measure was not finite")
    if progress.unreadable:
        names = listed(sorted(progress.unreadable), MAX_NAMES)
        lines.append(f"unreadable images, whose places others took: {len(progress.unreadable)} ({names})")
    return lines
