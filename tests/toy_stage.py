"""A stage small enough to be checked by hand: two networks, and a loss with a term of the mean over the batch."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from spadunet.pretraining.loop import PretrainingOptions
from spadunet.training.optimiser import take_step
from spadunet.training.ranks import Ranks, distribute, mean_over_ranks

GLOBAL_BATCH = 4
NUM_STEPS = 6


@dataclass(frozen=True)
class ToyBatch:
    """Noise of one step."""

    da: int
    image: Tensor
    step: int
    names: tuple[str, ...] = ("noise",)
    unreadable: tuple[str, ...] = ()


def toy_batches(ranks: Ranks, num_steps: int = NUM_STEPS) -> Callable[[int], Iterator[ToyBatch]]:
    """This rank's part of batches that follow from the step alone."""

    def batches(start: int) -> Iterator[ToyBatch]:
        for step in range(start, num_steps):
            whole = torch.randn((GLOBAL_BATCH, 1, 1, 2, 3), generator=torch.Generator().manual_seed(step))
            share = ranks.share(GLOBAL_BATCH)
            yield ToyBatch(step % 3, whole[ranks.rank * share : (ranks.rank + 1) * share].double(), step)

    return batches


def adamw(network: nn.Module, peak: float) -> torch.optim.Optimizer:
    """As the stages have it."""
    return torch.optim.AdamW([{"params": list(network.parameters()), "peak": peak}], lr=peak, weight_decay=0.05)


@dataclass
class ToyStage:
    """A soft tokenizer of vectors with dual prior regularisation, and a second network that learns at its own rate."""

    ranks: Ranks
    mean: Callable[[Tensor], Tensor] = mean_over_ranks
    before: Callable[[ToyBatch], None] = lambda batch: None
    shown: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)).double()
        self.judge = nn.Linear(6, 1).double()
        self.networks = {"encoder": self.encoder, "judge": self.judge}
        self.optimisers = {"encoder": adamw(self.encoder, 1e-2), "judge": adamw(self.judge, 1e-3)}
        self.numbers = {"running": math.inf}
        self.wrapped = {name: distribute(network, self.ranks) for name, network in self.networks.items()}

    def learn(self, batch: ToyBatch) -> dict[str, float]:
        self.before(batch)
        x = batch.image.flatten(1)
        q = self.wrapped["encoder"](x).softmax(1)
        mean = self.mean(q.mean(0))
        loss = -(q * q.log()).sum(1).mean() + 3 * (mean * mean.log()).sum()
        judged = self.wrapped["judge"](x).square().mean()
        for (name, optimiser), value in zip(self.optimisers.items(), (loss, judged), strict=True):
            take_step(value, self.networks[name], optimiser, math.inf)
        told = mean_over_ranks(torch.stack([loss, judged]).detach()).tolist()
        if math.isfinite(told[0]):
            self.numbers["running"] = min(self.numbers["running"], 10.0) * 0.9 + told[0] * 0.1
        return {"loss": told[0], "judge_loss": told[1]}

    def show(self, folder: Path, step: int) -> None:
        self.shown.append(step)


def toy_options(**changes: object) -> PretrainingOptions:
    """A short run on one core."""
    options = {
        "max_steps": NUM_STEPS,
        "max_minutes": None,
        "seed": 0,
        "device": torch.device("cpu"),
        "precision": torch.float32,
        "num_workers": 0,
        "checkpoint_minutes": 60.0,
        "batch_size": GLOBAL_BATCH,
        "warm_up_share": 0.2,
        "lowest_rate": 1e-6,
        "show_minutes": 60.0,
    }
    return PretrainingOptions(**{**options, **changes})


def spoil_from(first: int, last: int | None = None) -> Callable[[ToyBatch], None]:
    """Makes what is learned from a step, or from some, infinite."""

    def act(batch: ToyBatch) -> None:
        if first <= batch.step <= (first if last is None else last):
            batch.image[:] = math.inf

    return act


def signal_at(step: int, number: int = signal.SIGTERM) -> Callable[[ToyBatch], None]:
    """A signal to this process at the start of a step."""

    def act(batch: ToyBatch) -> None:
        if batch.step == step:
            os.kill(os.getpid(), number)

    return act
