"""Tasks of a model: what one dataset owns beside the shared backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from .classification_plan import ClassificationPlan
from .plan import Plan
from .postprocessing import Postprocessing
from .quality import Calibration
from .record import FormatVersion, Record, is_unused

if TYPE_CHECKING:
    from torch import Tensor

ADAPTER_PREFIX = "adapter."
"""Before the names of an adapter's tensors in a task's file."""


MAX_RANK, MAX_EXPERTS = 1024, 256
"""More than any layer has channels, or any router could tell apart."""


class AdapterRecord(Record):
    """What a task changes of the frozen backbone: low-rank experts, of which one alone is LoRA."""

    rank: int = Field(ge=1, le=MAX_RANK)
    num_experts: int = Field(default=1, ge=1, le=MAX_EXPERTS)

    def __str__(self) -> str:
        return (
            f"LoRA of rank {self.rank}" if self.num_experts == 1 else f"{self.num_experts} experts of rank {self.rank}"
        )


class TaskRecord(Record):
    """task.json of a task that segments."""

    format_version: FormatVersion = 1
    name: str
    plan: Plan
    provenance: dict[str, str] = Field(default={}, exclude_if=is_unused)
    """Of a task that was added to a model; of the others, model.json tells."""
    adapter: AdapterRecord | None = Field(default=None, exclude_if=is_unused)


class ClassifierRecord(Record):
    """task.json of a task that classifies whole studies."""

    format_version: FormatVersion = 1
    kind: Literal["classification"] = "classification"
    name: str
    plan: ClassificationPlan
    pooling: Literal["cls", "mean", "attention"]
    """As `network.classify.Pooling`."""
    provenance: dict[str, str] = Field(default={}, exclude_if=is_unused)
    adapter: AdapterRecord | None = Field(default=None, exclude_if=is_unused)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One dataset's plan and weights, for segmentation."""

    plan: Plan
    state: dict[str, Tensor]
    provenance: dict[str, str] = field(default_factory=dict)
    adapter: AdapterRecord | None = None
    """Its tensors are among `state`, under `ADAPTER_PREFIX`."""
    postprocessing: Postprocessing | None = None
    calibration: Calibration | None = None

    def record(self, name: str) -> TaskRecord:
        """What task.json says of it."""
        return TaskRecord(name=name, plan=self.plan, provenance=self.provenance, adapter=self.adapter)


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """One dataset's plan and weights, for classification of whole studies."""

    plan: ClassificationPlan
    pooling: Literal["cls", "mean", "attention"]
    state: dict[str, Tensor]
    provenance: dict[str, str] = field(default_factory=dict)
    adapter: AdapterRecord | None = None
    """As of `Task`."""

    def record(self, name: str) -> ClassifierRecord:
        """What task.json says of it."""
        return ClassifierRecord(
            name=name, plan=self.plan, pooling=self.pooling, provenance=self.provenance, adapter=self.adapter
        )


AnyTask = Task | Classifier
AnyTaskRecord = TaskRecord | ClassifierRecord
