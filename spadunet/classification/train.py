"""A classification from studies to a model folder with its validation scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from ..evaluation.classification import ClassificationScores, mean_auc
from ..model import save_model
from ..network.adapters import describe_share
from ..network.classify import encoder_of
from ..record import write_record
from ..training.adding import add_trained
from ..training.board import VALIDATION_FOLDER
from ..training.follow import followed
from ..training.init import INIT_COVERAGE_JSON
from ..training.ranks import Ranks
from ..training.steps import run_steps
from .batches import Labelled, StudyBatch, StudyStream, load_batches
from .epochs import Epochs
from .learner import ClassificationLearner
from .prepared import PreparedClassification
from .result import as_model, provenance_of, score
from .sources import Source

log = logging.getLogger("spadunet")


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
        share = describe_share(parts.adapter, encoder_of(parts.backbone))
        log.info("adapter of the encoder (%s): %s", run.request["adapter"], share)
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
