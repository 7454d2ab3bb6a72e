"""The network of a run, and which parts of it learn."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from ..channels import are_colours
from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..network.adapters import Adapter, adapt
from ..network.build import build_backbone, build_classification_task, choose_pooling
from ..network.classify import (
    ClassificationNetwork,
    ClassificationTask,
    Pooling,
    encoder_of,
    train_encoder_alone,
)
from ..task import ADAPTER_PREFIX, AdapterRecord


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A backbone with one classification task, and what learns."""

    backbone: nn.Module
    task: ClassificationTask
    adapter: Adapter | None
    network: ClassificationNetwork
    """Of these; it shares their parameters."""
    is_frozen: bool
    """The backbone stays as it is."""

    @property
    def learning(self) -> dict[str, nn.Module]:
        """What learns, by name."""
        parts: dict[str, nn.Module] = {"task": self.task}
        if self.adapter is not None:
            parts["adapter"] = self.adapter
        return parts if self.is_frozen else {"encoder": encoder_of(self.backbone), **parts}

    def copied(self) -> nn.ModuleDict:
        """What learns as it is now, in the processor's memory."""
        return nn.ModuleDict({name: copy.deepcopy(part).cpu() for name, part in self.learning.items()}).requires_grad_(
            False
        )

    def keep(self, copies: nn.ModuleDict) -> None:
        """Put what learns, as it is now, into copies of it."""
        for name, part in self.learning.items():
            copies[name].load_state_dict(part.state_dict())

    def restore(self, copies: nn.ModuleDict) -> None:
        """The way back from `keep`."""
        for name, part in self.learning.items():
            part.load_state_dict(copies[name].state_dict())

    def task_state(self) -> dict[str, Tensor]:
        """Tensors of the task's file."""
        state = dict(self.task.state_dict())
        if self.adapter is not None:
            state |= {ADAPTER_PREFIX + name: value for name, value in self.adapter.state_dict().items()}
        return state


def require_pooling(backbone: str, pooling: Pooling | None) -> Pooling:
    """What the user asks for, or else the backbone's own.

    Raises:
        InputError: if the backbone is not pooled so.
    """
    try:
        return choose_pooling(backbone, pooling)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def build_fresh(
    backbone: str, preset: str, plan: ClassificationPlan, pooling: Pooling | None
) -> tuple[nn.Module, ClassificationTask]:
    """A backbone and a task with fresh weights.

    Raises:
        InputError: if the backbone is not pooled so.
    """
    return build_backbone(backbone, preset), build_fresh_task(backbone, preset, plan, pooling)


def build_fresh_task(
    backbone: str, preset: str, plan: ClassificationPlan, pooling: Pooling | None
) -> ClassificationTask:
    """The task alone.

    Raises:
        InputError: if the backbone is not pooled so.
    """
    pooling = require_pooling(backbone, pooling)
    num_channels, num_outputs = len(plan.channel_names), plan.classes.num_outputs
    is_colour = are_colours(plan.channel_names)
    return build_classification_task(num_channels, num_outputs, backbone, preset, pooling, is_colour=is_colour)


def join_parts(
    backbone: nn.Module, task: ClassificationTask, adapter: AdapterRecord | None, *, is_frozen: bool
) -> Parts:
    """Decide what learns: the task, and the encoder or an adapter of the frozen backbone if there is one."""
    if adapter is None:
        if is_frozen:
            backbone.requires_grad_(False)
        else:
            train_encoder_alone(backbone)
        network = ClassificationNetwork(backbone, task)
        return Parts(backbone=backbone, task=task, adapter=None, network=network, is_frozen=is_frozen)
    change = Adapter(backbone, rank=adapter.rank, num_experts=adapter.num_experts, has_decoder=False)
    network = ClassificationNetwork(adapt(backbone, change), task)
    return Parts(backbone=backbone, task=task, adapter=change, network=network, is_frozen=True)
