"""A model's channel map for a dataset with other channels: matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..channels import are_colours, match_names
from ..task import AnyTask

WEIGHT, BIAS = "channel_map.weight", "channel_map.bias"


@dataclass(frozen=True, kw_only=True)
class ChannelMatch:
    """The channel map that a task begins with."""

    task: str
    """Of the model, that it comes from."""
    numbers: tuple[int | None, ...]
    """The channel of that task that each channel begins as; None where no name agrees."""
    state: dict[str, Tensor]
    """By the names of `SegmentationTask`."""
    is_same: bool
    """Every channel is there, in the same order, and no other."""

    def describe(self, names: Sequence[str]) -> str:
        """Which channels know something, and which are new."""
        known = [name for name, number in zip(names, self.numbers, strict=True) if number is not None]
        new = [name for name in names if name not in known]
        parts = [
            *([f"{', '.join(known)} by name"] if known else []),
            *([f"{', '.join(new)} as the mean"] if new else []),
        ]
        return f"{' and '.join(parts)} of the channels of task {self.task}"


def match_channels(dataset: str, names: Sequence[str], tasks: Mapping[str, AnyTask]) -> ChannelMatch | None:
    """The channel map of the task with the most channels of these names, or None if the model has no task.

    Nor do colours begin as the mean of what is none: where no task knows them, they stay as in a fresh map.

    A channel that the task knows begins as there, any other as the mean of the task's. The map is a mean over the
    channels that are there (`SegmentationTask`), so weights are scaled by the number of channels: an image that has
    only what the task knows then gives exactly what it gives there.

    Args:
        dataset: whose task goes before others that know as many channels.
        names: of the dataset's channels.
    """
    best: tuple[int, bool, str] | None = None
    for task, there in tasks.items():
        found = match_names(names, there.plan.channel_names)
        rank = (sum(number is not None for number in found), task == dataset, task)
        if best is None or rank[:2] > best[:2]:
            best = rank
    if best is None or (best[0] == 0 and are_colours(names)):
        return None
    source = tasks[best[2]]
    numbers = match_names(names, source.plan.channel_names)
    weight = source.state[WEIGHT]  # (3, C)
    columns = [weight.mean(1) if number is None else weight[:, number] for number in numbers]
    return ChannelMatch(
        task=best[2],
        numbers=numbers,
        state={WEIGHT: torch.stack(columns, dim=1) * (weight.shape[1] / len(names)), BIAS: source.state[BIAS]},
        is_same=numbers == tuple(range(weight.shape[1])),
    )
