"""A run of classification before it begins: its network, and what it was asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..model import read_model_record
from ..network.classify import Pooling
from ..record import digest_of
from ..task import AdapterRecord
from ..training.adding import backbone_of
from ..training.asked import runs_behind, warn_if_seen
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
    try:
        fresh, task = build_fresh(backbone, preset, plan, pooling)
    except ValueError as error:
        raise InputError(f"--{error}") from error
    coverage = None
    if init is not None and not goes_on:
        is_frozen = options.freezes_backbone or options.adapter is not None
        kind = InitKind(backbone=backbone, preset=preset)
        coverage = start_classification(fresh, task, plan, init, kind=kind, is_frozen=is_frozen, adds_task=adds_task)
    parts = join_parts(fresh, task, options.adapter, is_frozen=options.freezes_backbone)
    request = {
        "task": "classification",
        "datasets": source.name,
        "recipe": str(options.recipe),
        "input_size": "None" if size is None else " ".join(map(str, size)),
        "spacing": "None" if size is not None else "native" if plan.is_native else "median",
        "plans": plan.digest(),
        "backbone": backbone,
        "preset": preset,
        "pooling": parts.task.pooling,
        "fold": source.fold,
        "cases": digest_of_sides(source),
        "init": str(init and init.resolve()),
        "seed": str(options.seed),
        "batch_size": str(options.batch_size),
        "learning_rate": str(options.learning_rate),
        "weight_decay": str(options.weight_decay),
        "schedule": options.schedule,
        "augmentation": "none" if options.augmentation is None else "light",
        "dimmed": str(options.is_dimmed),
        "freeze_backbone": str(parts.is_frozen),
        "adapter": describe_adapter(options.adapter),
        "add_task": backbone_of(init) if adds_task and init else "no",
        "epochs": str(options.epochs),
        "max_steps": str(options.max_steps),
        "max_minutes": str(options.max_minutes),
        "deterministic": str(options.deterministic),
        "precision": str(options.precision),
    }
    if init is not None and init.is_dir() and not goes_on:
        earlier = read_model_record(init).provenance
        warn_if_seen(init, earlier, {"fraction": "1.0", "fraction_seed": "0", **request})
        coverage = coverage and coverage.model_copy(update={"earlier_runs": runs_behind(earlier)})
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


def describe_adapter(adapter: AdapterRecord | None) -> str:
    """In a few words."""
    if adapter is None:
        return "none"
    return f"rank {adapter.rank}" + (f", {adapter.num_experts} experts" if adapter.num_experts > 1 else "")


def digest_of_sides(source: Source) -> str:
    """Changes when a study changes sides or its label."""
    sides = [source.train, *([source.held_out] if source.held_out else [])]
    return digest_of(json.dumps([(side.names, side.labels.tolist()) for side in sides]))
