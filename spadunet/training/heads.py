"""Heads of a task from those of a trained one, output by output: a liver is a liver in any dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..channels import plain_name
from ..errors import InputError
from ..labels import LabelSet
from ..task import Task


@dataclass(frozen=True, kw_only=True)
class HeadMatch:
    """Outputs that a task of a model has learned already."""

    task: str
    """Its name in the model."""
    numbers: dict[int, int]
    """Of our outputs, and theirs."""


def match_heads(name: str, labels: LabelSet, tasks: Mapping[str, Task]) -> HeadMatch | None:
    """The task of a model that knows most of a dataset's classes or regions by name; None where none knows any.

    Of two that know as many, that of the same dataset, else the first. Classes (one of many) are not taken for regions
    (yes or no). Background goes along with the others. Names that are mere numbers mean something only in the dataset
    of the same name.

    Args:
        name: of the dataset.
        tasks: of the model, by the names of their datasets.
    """
    found = [
        HeadMatch(task=other, numbers=matching_outputs(labels, task.plan.labels, numbers_too=other == name))
        for other, task in sorted(tasks.items(), key=lambda item: item[0] != name)
        if bool(task.plan.labels.regions) == bool(labels.regions)
    ]
    best = max(found, key=lambda match: len(match.numbers), default=None)
    return best if best and best.numbers else None


def matching_outputs(labels: LabelSet, other: LabelSet, *, numbers_too: bool) -> dict[int, int]:
    """Numbers of our outputs, and of theirs with the same name; none if just background is there in both."""
    theirs = {plain_name(name): number for number, name in enumerate(other.output_names)}
    matching = {
        number: theirs[plain_name(name)]
        for number, name in enumerate(labels.output_names)
        if plain_name(name) in theirs and (numbers_too or not name.isdecimal())
    }
    if labels.regions:
        return matching
    foreground = {number: there for number, there in matching.items() if number and there}
    return {0: 0, **foreground} if foreground else {}


@torch.no_grad()
def load_heads(heads: nn.ModuleList, match: HeadMatch, task: Task, source: Path) -> None:
    """Copy the outputs that match, at every level; the others stay as they are.

    Raises:
        InputError: if the task's tensors do not fit its labels or this network; then nothing is changed.
    """
    ours, theirs = list(match.numbers), list(match.numbers.values())
    state = heads.state_dict()
    for name, place in state.items():
        value = task.state.get(f"heads.{name}")
        expected = (task.plan.labels.num_outputs, *place.shape[1:])
        if value is None or tuple(value.shape) != expected:
            found = "missing" if value is None else "×".join(map(str, value.shape))
            raise InputError(
                f"--init {source}: tensor heads.{name} of its task {match.task} is {found}, not "
                f"{'×'.join(map(str, expected))}; copy the model again"
            )
        state[name] = place.clone()
        state[name][ours] = value[theirs].to(place)
    heads.load_state_dict(state)
