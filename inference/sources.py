"""The model folders that predict together, checked before any work, and the engine that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..labels import LabelSet
from ..model import Model, load_model
from ..models import choose_task
from ..plan import Plan
from ..postprocessing import Postprocessing, Rule
from ..quality import Calibration
from ..sides import PatientAxis
from .budget import find_budget
from .ensemble import Member, check_members
from .postprocess import applicable
from .predict import Engine, SpacingChoice, build_networks, plan_at
from .subset import labels_of


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is needed of a model's folder: one task's network and how it is used."""

    folder: Path
    task: str
    plan: Plan
    network: nn.Module
    provenance: dict[str, str]
    """Of the run that trained the task."""
    postprocessing: Postprocessing | None
    calibration: Calibration | None


def open_sources(folders: Sequence[Path], dataset: str | None, spacing: SpacingChoice) -> list[Source]:
    """Read models and check that they can be averaged; their networks are on the processor.

    Args:
        folders: at least one.
        dataset: name of the task; None where each model has one only.

    Raises:
        InputError: if a model is missing or damaged, has no such task, or does not fit the first one.
    """
    sources = [open_source(folder, dataset) for folder in folders]
    check_members([plan_at(it.plan, spacing) for it in sources], [str(it.folder) for it in sources])
    return sources


def open_source(folder: Path, dataset: str | None) -> Source:
    """As `open_sources`, of one model."""
    return open_tasks(folder, [choose_task(folder, dataset)])[0]


def open_tasks(folder: Path, names: Sequence[str], model: Model | None = None) -> list[Source]:
    """Several tasks of a model, whose networks have one backbone in memory.

    Args:
        model: that of the folder, where it is read already.

    Raises:
        InputError: if the model is missing or damaged.
    """
    model = model or load_model(folder)
    networks = build_networks(model, names)
    return [
        Source(
            folder=folder,
            task=name,
            plan=model.tasks[name].plan,
            network=networks[name],
            provenance=model.tasks[name].provenance or model.provenance,
            postprocessing=model.tasks[name].postprocessing,
            calibration=model.tasks[name].calibration,
        )
        for name in names
    ]


def choose_structures(labels: LabelSet, names: Sequence[str]) -> tuple[str, ...]:
    """The chosen ones in the labels' order; none if all are.

    Raises:
        InputError: if one is not among the labels.
    """
    chosen = {structure.name for structure in labels_of(labels, names).structures} if names else set()
    known = [structure.name for structure in labels.structures]
    return () if len(chosen) == len(known) else tuple(name for name in known if name in chosen)


def rules_of(sources: Sequence[Source], chosen: Sequence[str]) -> tuple[tuple[Rule, ...], list[str]]:
    """The post-processing that the models state, as far as it concerns what is predicted; lines for the log.

    Models that state different rules have none in common: theirs were chosen by other cases.
    """
    found = [it.postprocessing.rules if it.postprocessing else () for it in sources]
    if not any(found):
        return (), []
    if len(set(found)) > 1:
        names = " ".join(str(it.folder) for it in sources)
        return (), [f"no post-processing: the models state different rules; spadunet_postprocess --choose -m {names}"]
    rules = applicable(found[0], labels_of(sources[0].plan.labels, chosen), is_subset=bool(chosen))
    left_out = [rule for rule in found[0] if rule not in rules]
    notes = [f"post-processing: {'; '.join(map(str, rules)) or 'none'}"]
    notes += [f"left out with --roi-subset: {rule}" for rule in left_out]
    return rules, notes


def calibration_of(sources: Sequence[Source]) -> tuple[Calibration | None, str]:
    """What the models know of the Dice to expect, and a line for the log.

    Models that know different things have nothing in common: theirs was learned from other cases.
    """
    first = sources[0].calibration
    names = " ".join(str(it.folder) for it in sources)
    if all(it.calibration is None for it in sources):
        return None, f"no expected Dice in quality.csv: spadunet_quality --fit -m {names} learns it"
    if first is None or any(it.calibration != first for it in sources):
        return None, f"no expected Dice: the models learned it apart; spadunet_quality --fit -m {names}"
    trials = first.trials
    return first, f"expected Dice: learned from {trials.num_cases} held-out cases, error {trials.error:.3f} a class"


def build_engine(
    sources: Sequence[Source],
    *,
    device: torch.device,
    precision: torch.dtype,
    overlap: float,
    spacing: SpacingChoice,
    mirror: tuple[PatientAxis, ...],
    chosen: tuple[str, ...],
    rules: tuple[Rule, ...],
    memory_gb: float | None,
    folder: Path | None,
    is_judged: bool = False,
    keeps_probabilities: bool = False,
) -> Engine:
    """An engine of all models' networks on a device.

    Args:
        memory_gb: that images and logits may take; None for a share of what is free.
        folder: for what does not fit into memory; None for the system's temporary folder.
        is_judged: tell how sure the networks are, too.
        keeps_probabilities: give these on the image's own grid, too.
    """
    first, *others = [Member(network=it.network.to(device), plan=it.plan) for it in sources]
    return Engine(
        network=sources[0].network,
        plan=first.plan,
        others=tuple(others),
        device=device,
        precision=precision,
        overlap=overlap,
        spacing=spacing,
        mirror=mirror,
        chosen=chosen,
        rules=rules,
        budget=find_budget(memory_gb, device, folder),
        is_judged=is_judged,
        keeps_probabilities=keeps_probabilities,
    )


def tell_sources(sources: Sequence[Source], device: torch.device) -> list[str]:
    """Lines for the log: each model and its task."""
    lines = [f"model {it.folder}, task {it.task}, on {device}" for it in sources]
    return lines if len(lines) == 1 else [*lines, f"the mean of {len(lines)} models counts"]
