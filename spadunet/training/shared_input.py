"""Tasks that see exactly what another task of the model sees, so that one pass of the backbone serves both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..model import load_model, read_model_record
from ..network.heads import SegmentationTask
from ..plan import Plan
from ..record import read_record
from ..task import TaskRecord
from .state import below


def read_shared(init: Path, name: str) -> Plan:
    """The plan of a model's task whose input others may share.

    Raises:
        InputError: if it has no such task, one that classifies, or one with an adapter of its own.
    """
    record = read_model_record(init)
    if name not in record.tasks:
        there = ", ".join(record.tasks) or "none"
        raise InputError(f"--share-input {name}: is no task of {init} that segments; it has {there}")
    task = read_record(init / "tasks" / name / "task.json", TaskRecord, remedy="copy the model again")
    if task.adapter is not None:
        raise InputError(
            f"--share-input {name}: has an adapter, which makes its features its own: no pass could be shared; give a "
            "task without one"
        )
    return task.plan


def as_shared(plan: Plan, source: Plan, name: str) -> Plan:
    """A plan with the patches of another, whose images are prepared as there.

    Args:
        name: of the task that the other plan is of.

    Raises:
        InputError: if channels, intensities or spacing differ; says how to plan alike.
    """
    if (plan.channel_names, plan.optional_channels) != (source.channel_names, source.optional_channels):
        raise InputError(
            f"--share-input {name}: has the channels {', '.join(source.channel_names)}, {plan.dataset_name} has "
            f"{', '.join(plan.channel_names)}; they must be the same, in the same order"
        )
    if (plan.intensity, plan.target_spacing_mm) != (source.intensity, source.target_spacing_mm):
        raise InputError(
            f"--share-input {name}: {plan.dataset_name} is planned for another spacing or other intensities; prepare "
            f"it as that task is: spadunet_plan_and_preprocess -d {plan.dataset_name} {plan_options(source)}"
        )
    return plan.model_copy(update={"patch_sizes_voxels": source.patch_sizes_voxels})


def plan_options(plan: Plan) -> str:
    """The options by which another dataset of its channels is planned alike."""
    spacing = "native" if isinstance(plan.target_spacing_mm, str) else " ".join(map(repr, plan.target_spacing_mm))
    windows = [rule for rule in plan.intensity if rule.kind == "window"]
    return f"--spacing {spacing}" + (f" --window {windows[0].low!r} {windows[0].high!r}" if windows else "")


@torch.no_grad()
def take_channel_map(tasks: Iterable[nn.Module], init: Path, name: str) -> dict[str, str]:
    """Give tasks the channel map of a model's task, to the bit; what that task tells of itself."""
    source = load_model(init).tasks[name]
    state: dict[str, Tensor] = below(source.state, "channel_map.")
    for task in tasks:
        assert isinstance(task, SegmentationTask)
        task.channel_map.load_state_dict(state)
    return source.provenance
