"""A classification from studies to a model folder with its validation scores."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import __version__
from ..class_predictions import PREDICTIONS_CSV, write_predictions
from ..errors import InputError
from ..evaluation.classification import ClassificationScores, mean_auc, score_classification
from ..evaluation.classification_intervals import with_intervals
from ..evaluation.classification_tables import table_text, write_classification_scores
from ..model import Model, read_model_record, save_model
from ..network.adapters import describe_share
from ..network.classify import Pooling
from ..record import digest_of, read_record, write_record
from ..study_classes import CLASSES_JSON
from ..task import AdapterRecord, Classifier
from ..training.adding import add_trained, backbone_of
from ..training.asked import EARLIER, runs_behind, warn_if_seen
from ..training.board import VALIDATION_FOLDER
from ..training.follow import followed
from ..training.init import INIT_COVERAGE_JSON, Coverage, InitKind
from ..training.ranks import Ranks
from ..training.steps import run_steps
from .batches import Labelled, StudyBatch, StudyStream, load_batches, num_steps
from .epochs import NEVER, Epochs
from .learner import ClassificationLearner
from .options import ClassificationOptions
from .parts import Parts, build_fresh, join_parts
from .sources import Source
from .start import start_classification

BEST_AUC, BEST_LOSS, BEST_EPOCH = "validation_auc", "validation_loss", "best_epoch"
"""What a model tells of the weights that it has."""

log = logging.getLogger("spadunet")


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
    plan = source.plan
    torch.manual_seed(options.seed)
    try:
        fresh, task = build_fresh(backbone, preset, plan, pooling)
    except ValueError as error:
        raise InputError(f"--pooling: {error}") from error
    coverage = None
    if init is not None and not goes_on:
        is_frozen = options.freezes_backbone or options.adapter is not None
        kind = InitKind(backbone=backbone, preset=preset)
        coverage = start_classification(fresh, task, plan, init, kind=kind, is_frozen=is_frozen, adds_task=adds_task)
    parts = join_parts(fresh, task, options.adapter, is_frozen=options.freezes_backbone)
    request = {
        "task": "classification",
        "datasets": source.name,
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
        "max_steps": str(options.max_steps),
        "max_minutes": str(options.max_minutes),
        "deterministic": str(options.deterministic),
        "precision": str(options.precision),
        "recipe": str(options.recipe),
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


def train_classification(
    run: PreparedClassification, folder: Path, *, model_folder: Path | None = None, is_locked: bool | None = None
) -> ClassificationScores | None:
    """Train, write the model, and validate it, while the folder's page shows how the run stands.

    Args:
        folder: of the run; a checkpoint in it is gone on from.
        model_folder: where the model goes, if not there too.
        is_locked: as `followed` takes it.

    Returns:
        Scores of the held-out studies; None where there are none.
    """
    with followed(
        folder,
        "classification",
        run.options,
        request=run.request,
        classification=run.source.plan,
        is_locked=is_locked,
    ) as shown:
        return train_and_score(run, folder, model_folder or folder, shown.refresh)


def train_and_score(
    run: PreparedClassification, folder: Path, model_folder: Path, refresh: Callable[[], None]
) -> ClassificationScores | None:
    """As `train_classification`; `refresh` is called with every checkpoint."""
    tell_start(run, folder)
    source, options, parts = run.source, run.options, run.parts
    parts.network.to(options.device)
    learner = ClassificationLearner(parts, source.plan, options, keeps_best=source.held_out is not None)
    epochs = Epochs(learner, source.held_out, folder, run.num_steps)
    stream = StudyStream(
        source.train.open(),
        source.train.labels,
        batch_size=options.batch_size,
        seed=options.seed,
        recipe=options.augmentation,
        is_dimmed=options.is_dimmed,
    )

    def batches(step: int) -> Iterator[StudyBatch]:
        epochs.begin(step)
        return load_batches(stream, step, options.max_steps, options.num_workers)

    progress = run_steps(
        learner,
        batches,
        folder,
        options,
        run=run.request,
        schedule=options.rate,
        facts=lambda batch: {"epoch": batch.epoch},
        title="Training",
        company=Ranks(device=options.device),
        after_step=epochs.after_step,
        find_cause=learner.find_cause,
        keep=lambda step: refresh(),
        names_of=lambda batch: batch.names,
    )
    epochs.finish(progress.step)
    provenance = provenance_of(run, folder, progress.step, learner.numbers)
    model = as_model(run, provenance)
    if run.adds_to is None:
        save_model(model_folder, model)
    else:
        add_trained(run.adds_to, model_folder, model, backbone_sha256=run.request["add_task"])
    log.info("model after %d steps: %s", progress.step, model_folder)
    if source.held_out is None:
        return None
    return score(epochs, source.held_out, folder / VALIDATION_FOLDER / source.name)


def tell_start(run: PreparedClassification, folder: Path) -> None:
    """What the run begins with, for the log."""
    source, parts = run.source, run.parts
    held_out = source.held_out
    log.info(
        "%s: %d studies to learn from, %d to validate on; %d steps an epoch",
        source.name,
        len(source.train.names),
        0 if held_out is None else len(held_out.names),
        run.num_steps,
    )
    if run.coverage is not None:
        write_record(folder / INIT_COVERAGE_JSON, run.coverage)
        log.info("weights from %s:\n%s", run.coverage.source, "\n".join(run.coverage.lines()))
    if parts.adapter is not None:
        log.info("adapter (%s): %s", run.request["adapter"], describe_share(parts.adapter, parts.backbone))
    if held_out is not None and not is_auc_defined(held_out, source):
        log.warning(
            "%s: the validation studies have one label only, so that their AUC is not defined; the epoch with the "
            "lowest validation loss is kept",
            source.name,
        )


def is_auc_defined(held_out: Labelled, source: Source) -> bool:
    """Whether some class or finding is both there and not there."""
    classes = source.plan.classes
    chance = torch.full((len(held_out.names), classes.num_outputs), 1 / classes.num_outputs).numpy()
    return mean_auc(classes, held_out.labels, chance) is not None


def provenance_of(
    run: PreparedClassification, folder: Path, num_done: int, numbers: dict[str, float]
) -> dict[str, str]:
    """What the model tells of itself."""
    told = run.request | {"steps": str(num_done), "spadunet": __version__}
    told["training_cases"] = str(len(run.source.train.names))
    if numbers["best_step"] != NEVER:
        told[BEST_EPOCH] = f"{numbers['best_step'] / run.num_steps:.6g}"
        told[BEST_AUC] = "undefined" if numbers["best_auc"] == NEVER else repr(numbers["best_auc"])
        told[BEST_LOSS] = repr(numbers["best_loss"])
    if (folder / INIT_COVERAGE_JSON).is_file():
        coverage = read_record(folder / INIT_COVERAGE_JSON, Coverage, remedy="start anew with --restart")
        told["init_coverage"] = coverage.lines()[-1]
        if coverage.earlier_runs:
            told[EARLIER] = "; ".join(coverage.earlier_runs)
    return told


def as_model(run: PreparedClassification, provenance: dict[str, str]) -> Model:
    """The trained weights with what they need."""
    parts = run.parts
    classifier = Classifier(
        plan=run.source.plan, pooling=parts.task.pooling, state=parts.task_state(), adapter=run.options.adapter
    )
    return Model(
        backbone=run.backbone,
        preset=run.preset,
        backbone_state=parts.backbone.state_dict(),
        tasks={},
        provenance=provenance,
        classifiers={run.source.name: classifier},
    )


def score(epochs: Epochs, held_out: Labelled, folder: Path) -> ClassificationScores:
    """Write predictions and scores of the held-out studies with the weights that are kept, and tell them."""
    found = epochs.judge()
    plan = epochs.learner.plan
    write_predictions(folder / PREDICTIONS_CSV, plan.classes, held_out.names, found.probabilities)
    write_record(folder / CLASSES_JSON, plan.classes)
    plain = score_classification(
        plan.classes, held_out.labels, found.probabilities, num_patients=len(set(held_out.patients))
    )
    scores = with_intervals(plain, held_out.labels, found.probabilities, held_out.patients)
    write_classification_scores(folder, scores)
    log.info("validation: %s\n%s", folder, table_text(scores).rstrip())
    return scores
