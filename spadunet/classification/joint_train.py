"""A segmentation with findings beside it, from cases and studies to one model folder with both validations."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..model import load_model, save_model
from ..network.classify import Pooling
from ..task import Classifier
from ..training.asked import warn_if_seen
from ..training.board import VALIDATION_FOLDER
from ..training.follow import followed
from ..training.prepare import PreparedRun
from ..training.train import as_model, provenance_of, tell_start, validate_all
from .findings import BothSides
from .joint import JointRun, train_both
from .options import ClassificationOptions
from .parts import build_fresh_task
from .prepared import digest_of_studies
from .result import score
from .sources import Source
from .start import with_task
from .train import is_auc_defined

log = logging.getLogger("spadunet")


def request_of_findings(
    sides: BothSides,
    *,
    name: str,
    dataset: str,
    batch_size: int,
    weights: Sequence[float] | None,
    pooling: Pooling,
) -> dict[str, str]:
    """What is asked for beside a segmentation, for the request of `prepare_run`; the plan of the studies comes later.

    Args:
        name: of the task that classifies.
        dataset: whose label maps are learned.
        batch_size: studies a step.
        weights: how often a step is of patches, and of studies; None for the square roots of how many cases and
            studies train.
    """
    weights = weights or (math.sqrt(len(sides.cases[0])), math.sqrt(len(sides.train)))
    return {
        "datasets": f"{dataset} {name}",
        "findings": name,
        "findings_cases": digest_of_studies(sides.train, sides.held_out),
        "findings_batch": str(batch_size),
        "findings_share": repr(weights[1] / sum(weights)),
        "pooling": pooling,
    }


def join_findings(
    run: PreparedRun, source: Source, *, pooling: Pooling | None = None, init: Path | None = None
) -> JointRun:
    """Put a task that classifies beside a prepared segmentation. Reads no image and writes nothing.

    Args:
        run: with `request_of_findings` in its request.
        pooling: None for the backbone's own.
        init: model whose task for the same classes it starts from; None for none, or where a run goes on.

    Raises:
        InputError: if the pooling is not for the backbone, or weights do not fit.
    """
    options, plan = run.options, source.plan
    torch.manual_seed(options.seed)
    task = build_fresh_task(run.backbone, run.preset, plan, pooling)
    coverage = run.coverage
    if init is not None and coverage is not None:
        tasks = {} if init.is_file() or coverage.is_scratch_twin else load_model(init).all_tasks
        known = coverage.earlier_runs
        coverage = with_task(coverage, task, plan, tasks, init)
        warn_if_seen(init, [it for it in coverage.earlier_runs if it not in known], run.request)
    request = run.request | {"findings_plan": plan.digest()}
    return JointRun(
        segmentation=replace(run, coverage=coverage, request=request),
        source=source,
        task=task,
        options=ClassificationOptions(
            max_steps=options.max_steps,
            max_minutes=options.max_minutes,
            seed=options.seed,
            device=options.device,
            precision=options.precision,
            num_workers=options.num_workers,
            checkpoint_minutes=options.checkpoint_minutes,
            batch_size=int(request["findings_batch"]),
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
        ),
        share=float(request["findings_share"]),
        request=request,
    )


def train_with_findings(
    run: JointRun, folder: Path, *, model_folder: Path | None = None, is_locked: bool | None = None
) -> list[str]:
    """Train, write the model with both tasks, and validate both, while the folder's page shows how the run stands.

    Args:
        folder: of the run; a checkpoint in it is gone on from.
        model_folder: where the model goes, if not there too.
        is_locked: as `followed` takes it.

    Returns:
        A line for each held-out case that could not be validated.
    """
    plans = [member.plan for member in run.segmentation.datasets]
    with followed(
        folder,
        "train",
        run.segmentation.options,
        request=run.request,
        plans=plans,
        classification=run.source.plan,
        is_locked=is_locked,
    ) as shown:
        shown.problems = train_and_validate(run, folder, model_folder or folder, shown.refresh)
    return shown.problems


def train_and_validate(run: JointRun, folder: Path, model_folder: Path, refresh: Callable[[], None]) -> list[str]:
    """As `train_with_findings`; `refresh` is called with every checkpoint."""
    member, source = run.segmentation, run.source
    tell_start(member, folder)
    log.info(
        "%s: %d studies to learn from, %d to validate on; %.0f %% of the steps are of %d studies",
        source.name,
        len(source.train.names),
        0 if source.held_out is None else len(source.held_out.names),
        100 * run.share,
        run.options.batch_size,
    )
    if source.held_out is not None and not is_auc_defined(source.held_out, source):
        log.warning("%s: the validation studies have one label only, so that their AUC is not defined", source.name)
    progress, epochs = train_both(run, folder, refresh=refresh)
    provenance = provenance_of(member, folder, progress.step)
    provenance["training_cases"] += f" {len(source.train.names)}"
    model = as_model(
        member.network, member.datasets, backbone=member.backbone, preset=member.preset, provenance=provenance
    )
    classifier = Classifier(plan=source.plan, pooling=run.task.pooling, state=run.task.state_dict())
    model = replace(model, classifiers={source.name: classifier})
    save_model(model_folder, model)
    log.info("model after %d steps: %s", progress.step, model_folder)
    if source.held_out is not None:
        score(epochs, source.held_out, folder / VALIDATION_FOLDER / source.name)
    return validate_all(member, model, folder)
