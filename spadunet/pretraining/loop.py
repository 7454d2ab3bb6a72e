"""Pre-training on images without labels: a stage learns from batches, on one process or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..training.follow import followed
from ..training.options import LoopOptions
from ..training.ranks import Ranks
from ..training.schedule import learning_rate
from ..training.state import Progress
from ..training.status import RunKind
from ..training.steps import B, B_contra, Learner, run_steps


class Stage(Learner[B_contra], Protocol[B_contra]):
    """What is pre-trained.

    `learn` gives measures of the global batch where that is cheap, else of this rank's part. It draws nothing from the
    global generators: what it draws follows from the batch, so that a run goes on exactly.
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
) -> Progress:
    """Pre-train until the run ends; start where the checkpoint in `folder` left off, if there is one.

    The folder's page shows how the run stands.

    A run that was stopped and goes on ends with the very weights of one that was not (on a processor, in float32).

    Args:
        batches: this rank's part of every batch, from a step on.
        folder: of the result, the same for all ranks; the first writes curves there, and the checkpoint into state/.
        run: what the run was asked for, kept in the checkpoint.
        keep: writes what others use of the result after so many steps, in the first process, with every checkpoint.

    Raises:
        InputError: if the checkpoint is damaged, of another network, or not seen by every rank.
        OutputError: if a measure is no longer finite; the last checkpoint is kept.
        KeyboardInterrupt: after Ctrl-C or SIGTERM at any rank, when the state is saved.
    """

    def schedule(share: float, peak: float) -> float:
        return learning_rate(share, peak, warm_up=options.warm_up_share, lowest=options.lowest_rate)

    kind: RunKind = "tokenizer" if run.get("kind") == "tokenizer" else "mim"
    with followed(folder, kind, options, request=run, is_first=ranks.is_first) as shown:

        def keep_and_show(step: int) -> None:
            if keep is not None:
                keep(step)
            shown.refresh()

        return run_steps(
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
        )
