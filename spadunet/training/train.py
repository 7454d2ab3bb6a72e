"""A training run from preprocessed datasets to a model folder with its validation scores."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import __version__
from ..dataset import Dataset
from ..errors import InputError
from ..evaluation.evaluate import evaluate_pair
from ..evaluation.pairs import Pair
from ..evaluation.tables import table_text, write_scores
from ..inference.predict import Engine, build_network, predict_cases
from ..labels import LabelSet
from ..model import Model, Task, save_model
from ..network.build import build_backbone, build_task
from ..plan import Plan
from ..preprocessing.store import StoredCase, open_case
from ..record import digest_of, read_record, write_record
from ..scores import Scores
from .follow import followed
from .init import INIT_COVERAGE_JSON, Coverage, InitKind, start_from
from .loop import JointNetwork, RunOptions, train_network
from .patches import TrainingTask
from .samples import draw_samples
from .splits import choose_cases
from .variety import VarietyOptions

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class TrainingDataset:
    """A raw dataset, its plan, and where its preprocessed cases lie."""

    dataset: Dataset
    plan: Plan
    folder: Path


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """A run whose every input was found sound, before anything of an earlier run is touched."""

    datasets: tuple[TrainingDataset, ...]
    tasks: tuple[TrainingTask, ...]
    """One for each dataset, with its training cases."""
    held_out: tuple[tuple[str, ...], ...]
    """Names of the validation cases of each dataset."""
    network: JointNetwork
    backbone: str
    preset: str
    options: RunOptions
    coverage: Coverage | None
    """What the weights to start from gave; None without such, and where a run goes on."""
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint and in the model's provenance."""


def prepare_run(
    datasets: Sequence[TrainingDataset],
    options: RunOptions,
    *,
    backbone: str,
    preset: str,
    fold: str,
    batch_size: int | None = None,
    init: Path | None = None,
    scratch_twin: bool = False,
    goes_on: bool = False,
    dry_run: bool = False,
    variety: VarietyOptions | None = None,
) -> PreparedRun:
    """Open the cases of a fold and build the network. Writes nothing but splits_final.json where there is none.

    Datasets are drawn in proportion to the square root of their number of cases: large ones more often, small ones
    not forgotten.

    Args:
        fold: number of a fold of splits_final.json, or "all".
        batch_size: patches a step; None for as many as each plan leaves room for.
        init: a model folder whose backbone, and tasks of the same names, the run starts from.
        scratch_twin: the same run without loading `init`, for comparison.
        goes_on: the weights will come from a checkpoint; `init` need not exist any more.
        dry_run: does not even write splits_final.json.
        variety: what patches meet; each plan decides where nothing is said.

    Raises:
        InputError: if the fold, a case or the model to start from is missing or does not fit.
    """
    variety = variety or VarietyOptions()
    splits = [choose_cases(member.dataset, member.folder, fold, dry_run=dry_run) for member in datasets]
    tasks = tuple(
        TrainingTask(
            name=member.dataset.name,
            plan=member.plan,
            cases=tuple(open_planned_case(member, name) for name in names),
            batch_size=batch_size,
            weight=math.sqrt(len(names)),
            variety=variety.for_plan(member.plan),
        )
        for member, (names, _) in zip(datasets, splits, strict=True)
    )
    torch.manual_seed(options.seed)
    network = build_joint(datasets, backbone, preset)
    coverage = None
    if init is not None and not goes_on:
        plans = {member.dataset.name: member.plan for member in datasets}
        kind = InitKind(backbone=backbone, preset=preset)
        coverage = start_from(network, plans, init, kind=kind, scratch_twin=scratch_twin)
    request = {
        "datasets": " ".join(member.dataset.name for member in datasets),
        "plans": " ".join(member.plan.digest() for member in datasets),
        "backbone": backbone,
        "preset": preset,
        "fold": fold,
        "cases": digest_of_cases(splits),
        "init": str(init and init.resolve()),
        "scratch_twin": str(scratch_twin),
        "seed": str(options.seed),
        "batch_size": "auto" if batch_size is None else str(batch_size),
        "learning_rate": str(options.learning_rate),
        "weight_decay": str(options.weight_decay),
        "max_steps": str(options.max_steps),
        "max_minutes": str(options.max_minutes),
        "precision": str(options.precision),
        "variety": str(variety),
        "recipe": str(options.recipe),
    }
    return PreparedRun(
        datasets=tuple(datasets),
        tasks=tasks,
        held_out=tuple(tuple(names) for _, names in splits),
        network=network,
        backbone=backbone,
        preset=preset,
        options=options,
        coverage=coverage,
        request=request,
    )


def digest_of_cases(splits: Sequence[tuple[list[str], list[str]]]) -> str:
    """Changes when a case changes sides between training and validation."""
    return digest_of(json.dumps([(sorted(train), sorted(val)) for train, val in splits]))


def train(run: PreparedRun, folder: Path) -> list[str]:
    """Train, write the model, and validate it, while the folder's page shows how the run stands.

    Args:
        folder: of the model; a checkpoint in it is gone on from.

    Returns:
        A line for each held-out case that could not be validated.
    """
    plans = [member.plan for member in run.datasets]
    with followed(folder, "train", run.options, request=run.request, plans=plans) as shown:
        shown.problems = train_and_validate(run, folder, shown.refresh)
    return shown.problems


def train_and_validate(run: PreparedRun, folder: Path, refresh: Callable[[], None]) -> list[str]:
    """As `train`; `refresh` is called with every checkpoint and before validation."""
    if run.coverage is not None:
        write_record(folder / INIT_COVERAGE_JSON, run.coverage)
        log.info("weights from %s:\n%s", run.coverage.source, "\n".join(run.coverage.lines()))
    for task in run.tasks:
        log.info("patches of %s: %s", task.name, task.variety.describe(task.plan.labels))
    progress = train_network(run.network, run.tasks, folder, run.options, run=run.request, keep=lambda step: refresh())
    provenance = run.request | {"steps": str(progress.step), "spadunet": __version__}
    if (folder / INIT_COVERAGE_JSON).is_file():
        coverage = read_record(folder / INIT_COVERAGE_JSON, Coverage, remedy="start anew with --restart")
        provenance["init_coverage"] = coverage.lines()[-1]
    model = as_model(run.network, run.datasets, backbone=run.backbone, preset=run.preset, provenance=provenance)
    save_model(folder, model)
    log.info("model after %d steps: %s", progress.step, folder)
    problems: list[str] = []
    for member, names in zip(run.datasets, run.held_out, strict=True):
        if names:
            problems += validate(model, member, names, folder / "validation" / member.dataset.name, run.options)
    return problems


def open_planned_case(member: TrainingDataset, name: str) -> StoredCase:
    """A stored case that was made by the dataset's present plan.

    Raises:
        InputError: if it is not there or another plan made it.
    """
    case = open_case(member.folder / "cases", name)
    if case.header.plan_digest != member.plan.preprocessing_digest():
        raise InputError(
            f"{case.folder / name}.json: made by another plan; run spadunet_preprocess -d {member.dataset.name}"
        )
    return case


def build_joint(datasets: Sequence[TrainingDataset], backbone: str, preset: str) -> JointNetwork:
    """A fresh backbone with a fresh task for each dataset."""
    plans = [member.plan for member in datasets]
    tasks = [build_task(len(plan.channel_names), plan.labels.num_outputs, backbone, preset) for plan in plans]
    return JointNetwork(build_backbone(backbone, preset), tasks)


def as_model(
    network: JointNetwork,
    datasets: Sequence[TrainingDataset],
    *,
    backbone: str,
    preset: str,
    provenance: dict[str, str],
) -> Model:
    """The trained weights with what they need."""
    tasks = {
        member.dataset.name: Task(plan=member.plan, state=task.state_dict())
        for member, task in zip(datasets, network.tasks, strict=True)
    }
    return Model(
        backbone=backbone,
        preset=preset,
        backbone_state=network.backbone.state_dict(),
        tasks=tasks,
        provenance=provenance,
    )


def validate(
    model: Model, member: TrainingDataset, names: Sequence[str], folder: Path, options: RunOptions
) -> list[str]:
    """Predict the held-out cases from their raw images, write label maps and scores; a line for each that failed."""
    name = member.dataset.name
    engine = Engine(
        network=build_network(model, name).to(options.device),
        plan=member.plan,
        device=options.device,
        precision=options.precision,
        overlap=options.overlap,
        mirror=options.mirror,
    )
    wanted = set(names)
    cases = [case for case in member.dataset.cases if case.name in wanted]
    labels: LabelSet = member.plan.labels
    scores, problems = [], []
    for outcome in predict_cases(cases, engine, folder):
        if outcome.result is None:
            log.error("failed: %s", outcome.problem)
            problems.append(str(outcome.problem))
            continue
        assert outcome.item.label_path is not None
        pair = Pair(outcome.item.name, outcome.result, outcome.item.label_path)
        try:
            scores.append(evaluate_pair(pair, labels))
        except InputError as error:
            log.error("failed: %s", error)
            problems.append(str(error))
    names_scored = {score.case for score in scores}
    result = Scores(
        cases=tuple(sorted(scores, key=lambda score: score.case)),
        failed=tuple(sorted(wanted - names_scored)),
    )
    write_scores(folder, result, labels)
    draw_samples(member.dataset.cases, folder, result, labels)
    log.info("validation of %s:\n%s", name, table_text(result).rstrip())
    return problems
