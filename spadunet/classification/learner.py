"""What a step of classification does."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..classification_plan import ClassificationPlan
from ..errors import OutputError, listed
from ..inference.classify import dim, resize
from ..network.adapters import gates_of
from ..network.routing import expert_use, measures_of, router_entropy
from ..parallel import is_out_of_memory
from ..training.augment import augment, join
from ..training.optimiser import follow_gradient, forget_step, make_optimiser
from ..training.options import autocast
from ..training.steps import MAX_NAMES
from .batches import Group, StudyBatch
from .loss import num_known, summed_loss
from .options import ClassificationOptions
from .parts import Parts

MAX_GRADIENT_NORM = 1.0

NUM_PARTS = "num_study_parts"
"""Number that is remembered; batches of patches have another."""

log = logging.getLogger("spadunet")


class ClassificationLearner:
    """All that changes in a run.

    A batch is taken layout by layout, and in parts where memory does not suffice; the gradient is that of the whole
    batch, since nothing in a network depends on the other studies.

    Args:
        optimiser: of more than these parts; None for one of their own.

    Attributes:
        best: weights of the best epoch so far; None where nothing tells which it is.
    """

    def __init__(
        self,
        parts: Parts,
        plan: ClassificationPlan,
        options: ClassificationOptions,
        *,
        keeps_best: bool,
        optimiser: torch.optim.Optimizer | None = None,
    ):
        self.parts, self.plan, self.options = parts, plan, options
        self.optimiser = optimiser or make_optimiser(
            parts.network, options.learning_rate, options.weight_decay, spares_vectors=True
        )
        self.networks: dict[str, nn.Module] = {"backbone": parts.backbone, "task": parts.task}
        if parts.adapter is not None:
            self.networks["adapter"] = parts.adapter
        self.best = parts.copied() if keeps_best else None
        if self.best is not None:
            self.networks["best"] = self.best
        self.optimisers: dict[str, torch.optim.Optimizer] = {"all": self.optimiser}
        self.numbers: dict[str, float] = {NUM_PARTS: 1}

    def learn(self, batch: StudyBatch) -> dict[str, float]:
        """One step: the mean loss of the batch; of experts, how much each is used, and the router's entropy."""
        while True:
            try:
                return self.step(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = str(error).splitlines()[0]
            forget_step(self.optimiser)  # after the error is gone, which holds what filled the memory
            if self.options.device.type == "cuda":
                torch.cuda.empty_cache()
            self.halve(batch, problem)

    def step(self, batch: StudyBatch) -> dict[str, float]:
        """As `learn`, within the memory."""
        self.optimiser.zero_grad(set_to_none=True)
        total, gates = 0.0, list[Tensor]()
        number = max(num_known(batch.labels), 1)
        for logits, labels in self.logits_of(batch, gates):
            loss = summed_loss(logits, labels, self.plan.classes) / number
            loss.backward()
            total += float(loss.detach())
        is_sound = follow_gradient(self.parts.network, self.optimiser, MAX_GRADIENT_NORM)
        measures = {"loss": total if is_sound else float("nan")}
        if gates:
            of_all = torch.cat(gates).float()
            measures |= measures_of(expert_use(of_all), router_entropy(of_all).mean())
        return measures

    def logits_of(self, batch: StudyBatch, gates: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (b, K) and labels (b, L) of one part of the batch after the other; `gates` is added to."""
        device = self.options.device
        size = -(-len(batch.names) // int(self.numbers[NUM_PARTS]))
        for group in batch.groups:
            places = torch.tensor(group.places)
            for start in range(0, len(places), size):
                part = slice(start, start + size)
                views = self.prepare(group, part, batch.brightness[places[part]])
                with autocast(device, self.options.precision):
                    logits = self.parts.network(views)
                found = gates_of(self.parts.network.backbone) if self.parts.adapter is not None else None
                if found is not None:
                    gates.append(found)
                yield logits, batch.labels[places[part]].to(device)

    def prepare(self, group: Group, part: slice, brightness: Tensor) -> list[tuple[Tensor, int]]:
        """Studies as the network sees them: dimmed, augmented and interpolated on the training device."""
        device = self.options.device
        views = [(view.to(device, non_blocking=True), da) for view, da in group.part(part)]
        if self.options.is_dimmed:
            views = [(dim(view, brightness.to(device)), da) for view, da in views]
        if group.changes:
            views = [
                (augment(view, torch.zeros_like(view[:, 0], dtype=torch.int64), join(changes[part]))[0], da)
                for (view, da), changes in zip(views, group.changes, strict=True)
            ]
        return [(resize(view, self.plan), da) for view, da in views]

    @torch.no_grad()
    def find_cause(self, batch: StudyBatch) -> str | None:
        """The studies that alone give a loss that is not finite; empty if all do, since then it is the weights.

        None if no study does: then the gradient was not finite.
        """
        found = []
        for group in batch.groups:
            for index, place in enumerate(group.places):
                views = self.prepare(group, slice(index, index + 1), batch.brightness[[place]])
                with autocast(self.options.device, self.options.precision):
                    logits = self.parts.network(views)
                if not logits.isfinite().all():
                    found.append(batch.names[place])
        if not found:
            return None
        if len(found) == len(batch.names):
            return ""
        return f"{'study' if len(found) == 1 else 'studies'} {listed(found, MAX_NAMES)}"

    def halve(self, batch: StudyBatch, problem: str) -> None:
        """Take parts of half the size from now on.

        Raises:
            OutputError: if they have one study each.
        """
        number = min(int(self.numbers[NUM_PARTS]), len(batch.names))
        if number == len(batch.names):
            raise OutputError(
                f"out of memory with a single study ({batch.names[0]}: {problem}); the last checkpoint is kept: take a "
                "smaller --input-size or --preset"
            )
        self.numbers[NUM_PARTS] = 2 * number
        log.warning(
            "out of memory with %d studies at once: from now on at most %d, whose gradients are added up; the batch "
            "stays as large as it is",
            -(-len(batch.names) // number),
            -(-len(batch.names) // (2 * number)),
        )
