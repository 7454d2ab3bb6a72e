"""A run of classification before it begins: its network, and what it was asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..network.classify import Pooling
from ..record import digest_of
from ..study import Study
from ..task import AdapterRecord
from ..training.adding import backbone_of
from ..training.asked import CLASSIFICATION, warn_if_seen
from ..training.init import Coverage, InitKind
from .batches import num_steps
from .options import ClassificationOptions
from .parts import Parts, build_fresh, join_parts
from .sources import Source
from .start import start_classification


@dataclass(frozen=True, kw_only=True)
class PreparedClassification:
    """A run whose every input was found sound, before anything of an earlier run is touched."""

    source: Source
    parts: Parts
    backbone: str
    preset: str
    options: ClassificationOptions
    coverage: Coverage | None
    """What the weights to start from gave; None without such, and where a run goes on."""
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint and in the model's provenance."""
    adds_to: Path | None
    """Model that the task is added to."""

    @property
    def num_steps(self) -> int:
        """Of an epoch."""
        return num_steps(len(self.source.train.names), self.options.batch_size)


def prepare_classification(
    source: Source,
    options: ClassificationOptions,
    *,
    backbone: str,
    preset: str,
    pooling: Pooling | None = None,
    init: Path | None = None,
    adds_task: bool = False,
    goes_on: bool = False,
) -> PreparedClassification:
    """Build the network. Reads no image and writes nothing.

    Args:
        pooling: None for the backbone's own.
        init: what the run starts from.
        adds_task: the task will be added to `init`, whose backbone must be frozen.
        goes_on: the weights will come from a checkpoint; `init` need not exist any more.

    Raises:
        InputError: if the weights do not fit, the pooling is not for the backbone, or what is to be frozen would have
            fresh weights.
    """
    plan, size = source.plan, source.plan.input_size_voxels
    torch.manual_seed(options.seed)
    fresh, task = build_fresh(backbone, preset, plan, pooling)
    coverage = None
    if init is not None and not goes_on:
        is_frozen = options.freezes_backbone or options.adapter is not None
        kind = InitKind(backbone=backbone, preset=preset)
        coverage = start_classification(fresh, task, plan, init, kind=kind, is_frozen=is_frozen, adds_task=adds_task)
    parts = join_parts(fresh, task, options.adapter, is_frozen=options.freezes_backbone)
    request = {
        **request_of(
            options,
            name=source.name,
            fold=source.fold,
            cases=digest_of_sides((side.names, side.labels.tolist()) for side in source.sides),
            backbone=backbone,
            preset=preset,
            pooling=parts.task.pooling,
            init=init,
            adds_task=adds_task,
        ),
        "input_size": "None" if size is None else " ".join(map(str, size)),
        "spacing": "None" if size is not None else "native" if plan.is_native else "median",
        "plans": plan.digest(),
    }
    if init is not None and coverage is not None:
        warn_if_seen(init, coverage.earlier_runs, request)
    return PreparedClassification(
        source=source,
        parts=parts,
        backbone=backbone,
        preset=preset,
        options=options,
        coverage=coverage,
        request=request,
        adds_to=init if adds_task else None,
    )


def request_of(
    options: ClassificationOptions,
    *,
    name: str,
    fold: str,
    cases: str,
    backbone: str,
    preset: str,
    pooling: Pooling,
    init: Path | None,
    adds_task: bool,
) -> dict[str, str]:
    """What a run is asked for, as far as it is known before there is a plan.

    Args:
        cases: as `digest_of_sides` gives it.
    """
    return {
        "task": CLASSIFICATION,
        "datasets": name,
        "recipe": str(options.recipe),
        "backbone": backbone,
        "preset": preset,
        "pooling": pooling,
        "fold": fold,
        "cases": cases,
        "init": str(init and init.resolve()),
        "seed": str(options.seed),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
        "weight_decay": str(options.weight_decay),
        "schedule": options.schedule,
        "augmentation": "none" if options.augmentation is None else "light",
        "dimmed": str(options.is_dimmed),
        "freeze_backbone": str(options.freezes_backbone or options.adapter is not None),
        "adapter": describe_adapter(options.adapter),
        "add_task": backbone_of(init) if adds_task and init else "no",
        "epochs": str(options.epochs),
        "max_steps": str(options.max_steps),
        "max_minutes": str(options.max_minutes),
        "deterministic": str(options.deterministic),
        "precision": str(options.precision),
    }


def describe_adapter(adapter: AdapterRecord | None) -> str:
    """In a few words."""
    if adapter is None:
        return "none"
    return f"rank {adapter.rank}" + (f", {adapter.num_experts} experts" if adapter.num_experts > 1 else "")


def digest_of_sides(sides: Iterable[tuple[Sequence[str], Sequence[Sequence[int]]]]) -> str:
    """Changes when a study changes sides or its label.

    Args:
        sides: names and labels of the studies that train, and where there are any, of those that are held out.
    """
    return digest_of(json.dumps(list(sides)))


def digest_of_studies(*sides: Sequence[Study]) -> str:
    """As `digest_of_sides`, before their images are preprocessed."""
    return digest_of_sides(([it.name for it in side], [it.labels for it in side]) for side in sides if side)
