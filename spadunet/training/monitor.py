"""Validation while a run learns: the Dice of each class in a few patches of held-out cases, and an early end by it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ..preprocessing.store import StoredCase
from ..scores import mean_of
from .board import DicePoint, add_validation, read_validation, write_validation
from .held_out import choose_patches, count_voxels
from .options import LoopOptions, autocast
from .patches import TrainingTask
from .ranks import Ranks

NUM_VALIDATIONS = 50
"""Of a run, if they are cheap enough."""
MOST_SHARE = 0.03
"""Of a run's time, spent on them."""
FORWARD_SHARE = 1 / 3
"""Of a training step's time a patch takes to be predicted: the way back is twice the way forth."""
MIN_PATCHES, MAX_PATCHES = 16, 64
FEWEST_PATCHES = 4
"""Where the user asks for validations more often than is cheap."""
SMOOTHING = 0.8
"""Share of the smoothed Dice that a validation leaves: about five count."""
COOL_DOWN = 0.1
"""Of the run so far: how long the rest of the schedule takes where a run ends early."""

log = logging.getLogger("spadunet")


class Network(Protocol):
    """A `JointNetwork`."""

    def deep_logits(self, x: Tensor, da: int, task: int) -> list[Tensor]:
        """Logits of one task at each supervised level, finest first."""

    def modules(self) -> Iterator[nn.Module]:
        """All that have a training mode."""


class Monitor:
    """Told of every step in every process.

    Args:
        network: with a task for each of `tasks`.
        held_out: cases of each task; without any, nothing is done.
        folder: of the run; validation.csv goes there.
        every: steps between validations, 0 for none; None for about NUM_VALIDATIONS in at most MOST_SHARE of the time.
        patience: validations without a better smoothed Dice after which the run is brought to its end.
        numbers: of the learner; what is remembered here is added to it.
    """

    def __init__(
        self,
        network: Network,
        tasks: Sequence[TrainingTask],
        held_out: Sequence[Sequence[StoredCase]],
        folder: Path,
        options: LoopOptions,
        ranks: Ranks,
        *,
        every: int | None,
        patience: int | None,
        numbers: dict[str, float],
    ):
        self.network, self.tasks, self.folder = network, tasks, folder
        self.options, self.ranks, self.patience, self.numbers = options, ranks, patience, numbers
        self.every, num_patches = plan_validations(tasks, options, every if any(held_out) else 0)
        self.patches = choose_patches(tasks, held_out, num_patches) if num_patches else []
        self.is_open = False
        numbers |= {
            "num_validations": 0,
            "smoothed_dice": 0.0,
            "best_dice": 0.0,
            "best_step": 0,
            "num_stale": 0,
            "hurried_from": math.inf,
            "validated_at": 0.0,
            "validation_seconds": 0.0,
            "last_validation_seconds": 0.0,
        }

    def course(self, share: float) -> float:
        """Share of the schedule that is behind: that of the run, or faster where it is brought to its end.

        The learning rate then runs through the rest of its cosine in a tenth of the time so far, so that the weights
        of an early end are those of a finished schedule too.
        """
        start = self.numbers["hurried_from"]
        rest, cool_down = 1 - start, COOL_DOWN * start
        return share if share <= start or rest <= cool_down else start + (share - start) * rest / cool_down

    def after_step(self, step: int, seconds: float) -> None:
        """Validate if it is time to.

        Args:
            step: how many are done.
            seconds: of the run, the same in all processes.

        Raises:
            InputError: if a held-out case cannot be read any more; names its file.
        """
        if not self.patches:
            return
        if self.ranks.is_first and not self.is_open:
            self.is_open = True
            write_validation(self.folder, [point for point in read_validation(self.folder) if point.step < step])
        if self.every is not None:
            is_due = step % self.every == 0
        else:
            minutes = self.options.max_minutes or math.inf
            pause = max(minutes * 60 / NUM_VALIDATIONS, self.numbers["last_validation_seconds"] * (1 / MOST_SHARE - 1))
            is_due = seconds - self.numbers["validated_at"] >= pause
        if is_due:
            self.validate(step, seconds)
            self.numbers["validated_at"] = seconds

    def validate(self, step: int, seconds: float) -> None:
        """Predict the patches, write the Dice of each class, and judge by their mean."""
        start = time.monotonic()
        points, values = [], []
        for task, (overlap, predicted, reference) in zip(self.tasks, self.count(), strict=True):
            both = [p + r for p, r in zip(predicted, reference, strict=True)]
            dices = [2 * o / b if b else None for o, b in zip(overlap, both, strict=True)]
            values.append(mean_of(dices))
            for structure, dice in zip(task.plan.labels.structures, dices, strict=True):
                points.append(DicePoint(dataset=task.name, step=step, name=structure.name, dice=dice))
        if self.ranks.is_first:
            add_validation(self.folder, points)
        (took,) = self.ranks.largest([time.monotonic() - start])
        self.numbers["last_validation_seconds"] = took
        self.numbers["validation_seconds"] += took
        mean = mean_of(values)
        if mean is not None:
            self.judge(mean, step, self.options.share_done(step, seconds))

    def count(self) -> list[list[list[float]]]:
        """`count_voxels` of each task's patches, each process predicting some."""
        counts = [torch.zeros(3, len(task.plan.labels.structures), dtype=torch.float64) for task in self.tasks]
        learning = [module for module in self.network.modules() if module.training]
        for module in learning:
            module.training = False
        with torch.inference_mode():
            for patch in self.patches[self.ranks.rank :: self.ranks.world_size]:
                plan, da = self.tasks[patch.task].plan, patch.case.da
                size, class_outside = plan.patch_sizes_voxels[da], plan.labels.ignore_class or 0
                image, classes = map(torch.from_numpy, patch.case.read_patch(patch.corner, size, class_outside))
                with autocast(self.options.device, self.options.precision):
                    logits = self.network.deep_logits(image[None].to(self.options.device), da, patch.task)[0][0]
                found = count_voxels(logits, classes.to(self.options.device), plan.labels)
                known = plan.labels.known_outputs(patch.case.header.annotated)[-found.shape[1] :]
                counts[patch.task] += found * torch.from_numpy(known)
        for module in learning:
            module.training = True
        totals = iter(self.ranks.total(torch.cat([count.flatten() for count in counts]).tolist()))
        return [[[next(totals) for _ in row] for row in count] for count in counts]

    def judge(self, dice: float, step: int, share: float) -> None:
        """Smooth the Dice, and hurry to the end if it has not become better for long."""
        numbers = self.numbers
        kept = SMOOTHING if numbers["num_validations"] else 0.0
        numbers["smoothed_dice"] = kept * numbers["smoothed_dice"] + (1 - kept) * dice
        numbers["num_validations"] += 1
        log.debug("validation after step %d: Dice %.4f, smoothed %.4f", step, dice, numbers["smoothed_dice"])
        if numbers["num_validations"] == 1 or numbers["smoothed_dice"] > numbers["best_dice"]:
            numbers |= {"best_dice": numbers["smoothed_dice"], "best_step": step, "num_stale": 0}
        else:
            numbers["num_stale"] += 1
        if self.patience is None or numbers["num_stale"] < self.patience or numbers["hurried_from"] < math.inf:
            return
        numbers["hurried_from"] = share
        log.info(
            "--patience %d: the smoothed validation Dice, %.4f, was best after step %d (%.4f); the run ends at step %d "
            "or so, and its learning rate falls to zero until then",
            self.patience,
            numbers["smoothed_dice"],
            numbers["best_step"],
            numbers["best_dice"],
            round(step * min(1 + COOL_DOWN, 1 / share)),
        )

    def tell(self, seconds: float) -> None:
        """Say how validation went in a run of so many seconds, if there was any."""
        if self.numbers["num_validations"]:
            log.info(
                "%d validations on %d patches took %.1f %% of the time; smoothed Dice %.4f, best %.4f after step %d",
                self.numbers["num_validations"],
                len(self.patches),
                100 * self.numbers["validation_seconds"] / seconds,
                self.numbers["smoothed_dice"],
                self.numbers["best_dice"],
                self.numbers["best_step"],
            )


def plan_validations(tasks: Sequence[TrainingTask], options: LoopOptions, every: int | None) -> tuple[int | None, int]:
    """Steps between validations, or None where time says when, and patches of one.

    By counts of patches and not by the clock, so that a run of so many steps validates at the same ones every time.
    """
    if every == 0:
        return None, 0
    batch_size = min(task.num_patches(task.plan.degree_of_anisotropy) for task in tasks)
    if every is None:
        if options.max_minutes is not None or options.max_steps is None:
            return None, MIN_PATCHES
        cheap = MIN_PATCHES * FORWARD_SHARE / (MOST_SHARE * batch_size)
        every = math.ceil(max(options.max_steps / NUM_VALIDATIONS, cheap))
    affordable = int(MOST_SHARE * every * batch_size / FORWARD_SHARE)
    num_patches = min(max(affordable, FEWEST_PATCHES), MAX_PATCHES)
    if num_patches > affordable:
        cost = num_patches * FORWARD_SHARE
        share = cost / (cost + every * batch_size)
        log.info("--validate-every %d: validation will take about %.0f %% of the time", every, 100 * share)
    return every, num_patches
