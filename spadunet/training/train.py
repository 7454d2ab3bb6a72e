"""A training run from preprocessed datasets to a model folder with its validation scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..model import Model, save_model
from ..network.adapters import describe_share
from ..record import read_record, write_record
from ..task import ADAPTER_PREFIX, AdapterRecord, Task
from .adding import add_trained
from .asked import EARLIER
from .board import VALIDATION_FOLDER
from .follow import followed
from .init import INIT_COVERAGE_JSON, Coverage
from .loop import JointNetwork, train_network
from .prepare import PreparedRun, TrainingDataset
from .validate import validate

log = logging.getLogger("spadunet")


def train(
    run: PreparedRun, folder: Path, *, model_folder: Path | None = None, is_locked: bool | None = None
) -> list[str]:
    """Train, write the model, and validate it, while the folder's page shows how the run stands.

    Args:
        folder: of the run; a checkpoint in it is gone on from.
        model_folder: where the model goes, if not there too.
        is_locked: as `followed` takes it.

    Returns:
        A line for each held-out case that could not be validated.
    """
    plans = [member.plan for member in run.datasets]
    is_first = run.ranks.is_first
    with followed(
        folder, "train", run.options, request=run.request, plans=plans, is_first=is_first, is_locked=is_locked
    ) as shown:
        shown.problems = train_and_validate(run, folder, model_folder or folder, shown.refresh)
    return shown.problems


def train_and_validate(run: PreparedRun, folder: Path, model_folder: Path, refresh: Callable[[], None]) -> list[str]:
    """As `train`; `refresh` is called with every checkpoint and before validation."""
    tell_start(run, folder)
    progress = train_network(
        run.network,
        run.tasks,
        folder,
        run.options,
        run=run.request,
        held_out=run.watched,
        ranks=run.ranks,
        keep=lambda step: refresh(),
    )
    model = as_model(
        run.network,
        run.datasets,
        backbone=run.backbone,
        preset=run.preset,
        provenance=provenance_of(run, folder, progress.step),
        adapter=run.options.adapter,
    )
    if run.ranks.is_first:
        if run.adds_to is None:
            save_model(model_folder, model)
        else:
            add_trained(run.adds_to, model_folder, model, backbone_sha256=run.request["add_task"])
    log.info("model after %d steps: %s", progress.step, model_folder)
    return validate_all(run, model, folder)


def tell_start(run: PreparedRun, folder: Path) -> None:
    """What the run begins with, for the log."""
    if run.coverage is not None and run.ranks.is_first:
        write_record(folder / INIT_COVERAGE_JSON, run.coverage)
        log.info("weights from %s:\n%s", run.coverage.source, "\n".join(run.coverage.lines()))
    for task, adapter in zip(run.tasks, run.network.adapters, strict=False):
        log.info("adapter of %s: %s, %s", task.name, run.options.adapter, describe_share(adapter, run.network.backbone))
    for task in run.tasks:
        log.info("patches of %s: %s", task.name, task.variety.describe(task.plan.labels, task.cases))


def provenance_of(run: PreparedRun, folder: Path, num_done: int) -> dict[str, str]:
    """What the model tells of itself after so many steps."""
    provenance = run.request | {"steps": str(num_done), "spadunet": __version__}
    provenance["training_cases"] = " ".join(str(len(task.cases)) for task in run.tasks)
    if (folder / INIT_COVERAGE_JSON).is_file():
        coverage = read_record(folder / INIT_COVERAGE_JSON, Coverage, remedy="start anew with --restart")
        provenance["init_coverage"] = coverage.lines()[-1]
        if coverage.earlier_runs:
            provenance[EARLIER] = "; ".join(coverage.earlier_runs)
    return provenance


def validate_all(run: PreparedRun, model: Model, folder: Path) -> list[str]:
    """Validate on the held-out cases of each dataset; a line for each that failed."""
    problems: list[str] = []
    for member, names in zip(run.datasets, run.held_out, strict=True):
        if names:
            name = member.dataset.name
            wanted = [case for case in member.dataset.cases if case.name in set(names)]
            problems += validate(
                model, name, wanted, folder / VALIDATION_FOLDER / name, ranks=run.ranks, options=run.options
            )
    return problems


def as_model(
    network: JointNetwork,
    datasets: Sequence[TrainingDataset],
    *,
    backbone: str,
    preset: str,
    provenance: dict[str, str],
    adapter: AdapterRecord | None = None,
) -> Model:
    """The trained weights with what they need."""
    states = [task.state_dict() for task in network.tasks]
    for state, own in zip(states, network.adapters, strict=False):
        state.update({ADAPTER_PREFIX + name: value for name, value in own.state_dict().items()})
    tasks = {
        member.dataset.name: Task(plan=member.plan, state=state, adapter=adapter)
        for member, state in zip(datasets, states, strict=True)
    }
    return Model(
        backbone=backbone,
        preset=preset,
        backbone_state=network.backbone.state_dict(),
        tasks=tasks,
        provenance=provenance,
    )
