"""A training run's input, every part of it found sound before anything is written: cases, network, request."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..channels import are_colours
from ..dataset import Dataset
from ..errors import InputError, listed
from ..network.adapters import Adapter
from ..network.build import build_backbone, build_task
from ..plan import Plan
from ..preprocessing.store import StoredCase, open_case
from ..sides import PATIENT_AXES
from ..task import AdapterRecord
from .adding import backbone_of, require_whole
from .asked import (
    annotated_text,
    class_weights_text,
    digest_of_cases,
    digests_of_held_out,
    runs_behind,
    warn_if_seen,
)
from .init import Coverage, InitKind, start_from
from .loop import JointNetwork, RunOptions
from .patches import TrainingTask
from .ranks import Ranks
from .shared_input import take_channel_map
from .splits import choose_cases, choose_fraction
from .steps import MAX_NAMES
from .variety import VarietyOptions

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class TrainingDataset:
    """A raw dataset, its plan, where its preprocessed cases lie, and how much it and its classes count."""

    dataset: Dataset
    plan: Plan
    folder: Path
    weight: float | None = None
    """How often it is drawn beside others; None for the square root of the number of its training cases."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """Of classes or regions; instead of those in dataset.json."""

    def output_weights(self) -> tuple[float, ...] | None:
        """How much each output counts in the loss; None where all count alike."""
        weights = self.dataset.class_weights | self.class_weights
        found = tuple(weights.get(name, 1.0) for name in self.plan.labels.output_names)
        return found if len(set(found)) > 1 else None


Sides = tuple[list[str], list[str]]
"""Names of the cases that train, and of those that are held out."""


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run whose every input was found sound, before anything of an earlier run is touched."""

    datasets: tuple[TrainingDataset, ...]
    tasks: tuple[TrainingTask, ...]
    """One for each dataset, with its training cases."""
    held_out: tuple[tuple[str, ...], ...]
    """Names of the validation cases of each dataset."""
    watched: tuple[tuple[StoredCase, ...], ...]
    """Those of them that are stored: validated on while the run learns."""
    network: JointNetwork
    backbone: str
    preset: str
    options: RunOptions
    coverage: Coverage | None
    """What the weights to start from gave; None without such, and where a run goes on."""
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint and in the model's provenance."""
    ranks: Ranks
    """The processes that share every batch."""
    adds_to: Path | None = None
    """Model that the tasks are added to."""


def prepare_run(
    datasets: Sequence[TrainingDataset],
    options: RunOptions,
    *,
    backbone: str,
    preset: str,
    fold: str,
    fraction: float = 1.0,
    fraction_seed: int = 0,
    batch_size: int | None = None,
    init: Path | None = None,
    scratch_twin: bool = False,
    adds_task: bool = False,
    batch_multiple: int = 1,
    goes_on: bool = False,
    ranks: Ranks | None = None,
    dry_run: bool = False,
    variety: VarietyOptions | None = None,
    share_input: str | None = None,
    splits: Sequence[Sides] | None = None,
    findings: Mapping[str, str] | None = None,
) -> PreparedRun:
    """Open the cases of a fold and build the network. Writes nothing but splits_final.json where there is none.

    Datasets are drawn in proportion to their weight: unless it is given, the square root of their number of cases, so
    that large ones come more often and small ones are not forgotten.

    Args:
        fold: number of a fold of splits_final.json, or "all".
        fraction: of the fold's training patients that the run learns from, chosen by `fraction_seed`.
        batch_size: patches a step, of all processes together; None for as many as each plan leaves room for, up to
            a multiple of `batch_multiple`.
        init: a model folder whose backbone, and heads for classes of the same names, the run starts from.
        scratch_twin: the same run without loading `init`, for comparison.
        adds_task: the tasks will be added to `init`, whose backbone must be frozen.
        batch_multiple: number of processes that the run was begun with.
        goes_on: the weights will come from a checkpoint; `init` need not exist any more.
        dry_run: does not even write splits_final.json.
        variety: what patches meet; each plan decides where nothing is said.
        share_input: task of `init` whose channel map the tasks take over and keep; their plans are `as_shared` has
            them.
        splits: of each dataset, where it is not the fold of splits_final.json.
        findings: what is asked for of a classification that joins the run; part of the request.

    Raises:
        InputError: if the fold, a case or the model to start from is missing or does not fit, or a backbone that is to
            be frozen would have fresh weights, if processes cannot share a batch, or if there is nothing to validate on
            where `options.patience` asks for it.
    """
    variety = variety or VarietyOptions()
    ranks = ranks or Ranks(device=options.device)
    may_write = ranks.is_first and not dry_run
    if splits is None:
        splits = [choose_cases(member.dataset, member.folder, fold, dry_run=not may_write) for member in datasets]
    if fraction < 1:
        splits = [
            (choose_fraction(member.dataset, names, fraction, fraction_seed), val)
            for member, (names, val) in zip(datasets, splits, strict=True)
        ]
    tasks = tuple(
        TrainingTask(
            name=member.dataset.name,
            plan=member.plan,
            cases=tuple(open_planned_case(member, name) for name in names),
            batch_size=batch_size,
            batch_multiple=batch_multiple,
            weight=math.sqrt(len(names)) if member.weight is None else member.weight,
            class_weights=member.output_weights(),
            variety=variety.for_plan(member.plan, is_colour=member.dataset.is_colour),
        )
        for member, (names, _) in zip(datasets, splits, strict=True)
    )
    check_shares(tasks, ranks)
    watched = tuple(stored_cases(member, names) for member, (_, names) in zip(datasets, splits, strict=True))
    if options.patience is not None and not any(watched):
        raise InputError(
            f"--patience {options.patience}: -f {fold} holds out no preprocessed case to validate on; give a fold that "
            "does, or leave --patience out"
        )
    torch.manual_seed(options.seed)
    network = build_joint(datasets, backbone, preset, options.adapter)
    coverage = None
    if init is not None and not goes_on:
        plans = {member.dataset.name: member.plan for member in datasets}
        kind = InitKind(backbone=backbone, preset=preset)
        coverage = start_from(
            network, plans, init, kind=kind, scratch_twin=scratch_twin, keeps_sizes=options.freezes_backbone
        )
        if options.freezes_backbone and not scratch_twin:
            require_whole(coverage)
        if share_input is not None:
            told = take_channel_map(network.tasks, init, share_input)
            behind = dict.fromkeys((*coverage.earlier_runs, *runs_behind(told)))
            coverage = coverage.model_copy(update={"earlier_runs": tuple(behind)})
    request = {
        "datasets": " ".join(member.dataset.name for member in datasets),
        "plans": " ".join(member.plan.digest() for member in datasets),
        "backbone": backbone,
        "preset": preset,
        "fold": fold,
        "fraction": str(fraction),
        "fraction_seed": str(fraction_seed if fraction < 1 else 0),
        "cases": digest_of_cases(splits),
        "held_out": digests_of_held_out(splits),
        "init": str(init and init.resolve()),
        "scratch_twin": str(scratch_twin),
        "seed": str(options.seed),
        "batch_size": "auto" if batch_size is None else str(batch_size),
        "batch_multiple": str(batch_multiple),
        "learning_rate": str(options.learning_rate),
        "weight_decay": str(options.weight_decay),
        "dataset_weights": " ".join("auto" if member.weight is None else f"{member.weight:g}" for member in datasets),
        "class_weights": class_weights_text(tasks),
        "labelled_classes": annotated_text(tasks),
        "freeze_backbone": str(options.freezes_backbone),
        "add_task": backbone_of(init) if adds_task and init else "no",
        "max_steps": str(options.max_steps),
        "max_minutes": str(options.max_minutes),
        "patience": str(options.patience),
        "validate_every": str(None if options.patience is None else options.validate_every),
        "deterministic": str(options.deterministic),
        "adapter": "none" if options.adapter is None else str(options.adapter),
        "share_input": share_input or "no",
        "precision": str(options.precision),
        "variety": str(variety),
        "recipe": str(options.recipe),
    }
    if options.recipe is not None:  # prediction follows it
        axes = ("all",) if options.mirror == PATIENT_AXES else options.mirror or ("none",)
        request["validation_mirror"] = " ".join(axes)
    request |= findings or {}
    if init is not None and coverage is not None:
        warn_if_seen(init, coverage.earlier_runs, request)
    return PreparedRun(
        datasets=tuple(datasets),
        tasks=tasks,
        held_out=tuple(tuple(names) for _, names in splits),
        watched=watched,
        network=network,
        backbone=backbone,
        preset=preset,
        options=options,
        coverage=coverage,
        request=request,
        adds_to=init if adds_task else None,
        ranks=ranks,
    )


def check_shares(tasks: Sequence[TrainingTask], ranks: Ranks) -> None:
    """Tell how large batches are that several processes share.

    Raises:
        InputError: if they cannot share one evenly.
    """
    for task in tasks:
        sizes = task.batch_sizes()
        text = " or ".join(map(str, sizes))
        if task.batch_size is None and any(size % ranks.world_size for size in sizes):  # others began the run
            raise InputError(
                f"{task.name}: the run was begun with batches of {text} patches, which {ranks.world_size} processes "
                f"cannot share evenly; go on with {numbers_text(math.gcd(*sizes))}, or give --restart"
            )
        for size in sizes:
            ranks.share(size)
        if ranks.world_size > 1:
            log.info("%s: batches of %s patches, shared by %d processes", task.name, text, ranks.world_size)


def numbers_text(number: int) -> str:
    """How many processes may share a number of patches."""
    divisors = [str(divisor) for divisor in range(1, number + 1) if number % divisor == 0]
    return f"{' or '.join(divisors)} process{'es' if len(divisors) > 1 else ''}"


def stored_cases(member: TrainingDataset, names: Sequence[str]) -> tuple[StoredCase, ...]:
    """Those of the cases that the present plan has stored; the others are validated at the end, from their images."""
    found, missing = [], []
    for name in names:
        try:
            found.append(open_planned_case(member, name))
        except InputError:
            missing.append(name)
    if missing:
        log.warning(
            "%s: %d of %d held-out cases are not preprocessed and left out of the curve of validation: %s; "
            "spadunet_preprocess adds them",
            *(member.dataset.name, len(missing), len(names), listed(missing, MAX_NAMES)),
        )
    return tuple(found)


def open_planned_case(member: TrainingDataset, name: str) -> StoredCase:
    """A stored case that was made by the dataset's present plan.

    Raises:
        InputError: if it is not there or another plan made it.
    """
    case = open_case(member.folder / "cases", name)
    if case.header.annotated != member.dataset.annotated.get(name, ()):
        raise InputError(
            f"{case.folder / name}.json: labelled_classes in dataset.json says by now that other classes were "
            f"annotated; run spadunet_preprocess -d {member.dataset.name}"
        )
    if case.header.plan_digest != member.plan.preprocessing_digest():
        raise InputError(
            f"{case.folder / name}.json: made by another plan; run spadunet_preprocess -d {member.dataset.name}"
        )
    return case


def build_joint(
    datasets: Sequence[TrainingDataset], backbone: str, preset: str, adapter: AdapterRecord | None = None
) -> JointNetwork:
    """A fresh backbone with a fresh task for each dataset, and with a fresh adapter for each if one is wanted."""
    plans = [member.plan for member in datasets]
    tasks = [
        build_task(
            len(plan.channel_names),
            plan.labels.num_outputs,
            backbone,
            preset,
            is_colour=are_colours(plan.channel_names),
        )
        for plan in plans
    ]
    shared = build_backbone(backbone, preset)
    if adapter is None:
        return JointNetwork(shared, tasks)
    adapters = [Adapter(shared, rank=adapter.rank, num_experts=adapter.num_experts) for _ in tasks]
    return JointNetwork(shared, tasks, adapters)
