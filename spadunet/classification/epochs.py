"""Validation after every epoch, and the weights of the best one.

The best weights are part of the run's checkpoint, so that whatever it goes on from, both belong together.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..evaluation.classification import accuracy, mean_auc
from ..inference.classify import classify, probabilities_of
from ..inference.studies import Studies
from ..training.epochs import EpochPoint, read_epochs, write_epochs
from .batches import Labelled
from .learner import NUM_PARTS, ClassificationLearner
from .loss import num_known, summed_loss

NEVER = -1

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How well weights do on the studies that are held out. Letters: N studies, K outputs."""

    probabilities: np.ndarray
    """(N, K) float64."""
    loss: float
    auc: float | None
    accuracy: float | None


class Epochs:
    """Told of every step.

    Args:
        held_out: studies to validate on; None for none: the last weights are then the result.
        folder: of the run; epochs.csv goes there.
        num_steps: of an epoch.
    """

    def __init__(self, learner: ClassificationLearner, held_out: Labelled | None, folder: Path, num_steps: float):
        self.learner, self.held_out, self.folder, self.num_steps = learner, held_out, folder, num_steps
        self.studies: Studies | None = None if held_out is None else held_out.open()
        learner.numbers |= {"judged_step": NEVER, "best_step": NEVER, "best_auc": NEVER, "best_loss": math.inf}

    def begin(self, step: int) -> None:
        """Before the first step of a process, the number `step` from zero: what a run that was stopped still owes."""
        if self.held_out is not None:
            self.forget_later()
            self.after_step(step)

    def forget_later(self) -> None:
        """Take out of epochs.csv what a run told that went further before it was killed."""
        judged = self.learner.numbers["judged_step"]
        write_epochs(self.folder, [point for point in read_epochs(self.folder) if point.step <= judged])

    def after_step(self, step: int, seconds: float = 0.0) -> None:
        """Validate at the end of an epoch."""
        if step and step % self.num_steps == 0:
            self.judge_once(step)

    def finish(self, step: int) -> None:
        """Validate after the last step, and put the best weights back.

        Args:
            step: how many are done.
        """
        self.judge_once(step)
        learner = self.learner
        if learner.best is not None:
            learner.parts.restore(learner.best)
            log.info("%s, are kept", self.describe_best())

    def describe_best(self) -> str:
        """Which weights are the best, and by what."""
        numbers = self.learner.numbers
        auc = "" if numbers["best_auc"] == NEVER else f"AUC {numbers['best_auc']:.4f}, "
        epoch = numbers["best_step"] / self.num_steps
        return f"weights after epoch {epoch:.4g}, with validation {auc}loss {numbers['best_loss']:.4f}"

    def judge_once(self, step: int) -> None:
        """Validate, unless that is done; keep the weights if none was better, where the learner keeps any.

        Of equal AUC, or where it is not defined, the lower loss is better.
        """
        numbers, best = self.learner.numbers, self.learner.best
        if self.held_out is None or numbers["judged_step"] >= step:
            return
        found = self.judge()
        numbers["judged_step"] = step
        points = [point for point in read_epochs(self.folder) if point.step < step]
        epoch = step / self.num_steps
        points.append(EpochPoint(step=step, epoch=epoch, loss=found.loss, auc=found.auc, accuracy=found.accuracy))
        write_epochs(self.folder, points)
        if best is None:
            return
        auc = NEVER if found.auc is None else found.auc
        if numbers["best_step"] == NEVER or (auc, -found.loss) > (numbers["best_auc"], -numbers["best_loss"]):
            numbers |= {"best_step": step, "best_auc": auc, "best_loss": found.loss}
            self.learner.parts.keep(best)

    def judge(self) -> Judgement:
        """Validate with the weights as they are."""
        assert self.held_out is not None and self.studies is not None
        learner = self.learner
        network, plan, options = learner.parts.network, learner.plan, learner.options
        learning = [module for module in network.modules() if module.training]
        for module in learning:
            module.training = False
        answers = classify(network, self.studies, plan, precision=options.precision, batch_size=self.batch_size())
        logits = torch.cat([part for _, part in answers])  # (N, K)
        for module in learning:
            module.training = True
        labels, classes = torch.from_numpy(self.held_out.labels), plan.classes
        probabilities = probabilities_of(logits, classes)
        return Judgement(
            probabilities=probabilities,
            loss=float(summed_loss(logits, labels, classes)) / max(num_known(labels), 1),
            auc=mean_auc(classes, self.held_out.labels, probabilities),
            accuracy=accuracy(classes, self.held_out.labels, probabilities),
        )

    def batch_size(self) -> int:
        """As large as the parts that training takes."""
        learner = self.learner
        return max(1, learner.options.batch_size // int(learner.numbers[NUM_PARTS]))
