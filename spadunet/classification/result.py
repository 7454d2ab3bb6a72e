"""What a classification leaves: its model, and the scores of the held-out studies."""

from __future__ import annotations

import logging
from pathlib import Path

from .. import __version__
from ..class_predictions import PREDICTIONS_CSV, write_predictions
from ..evaluation.classification import ClassificationScores, score_classification
from ..evaluation.classification_intervals import with_intervals
from ..evaluation.classification_tables import table_text, write_classification_scores
from ..model import Model
from ..record import read_record, write_record
from ..study_classes import CLASSES_JSON
from ..task import Classifier
from ..training.asked import EARLIER
from ..training.init import INIT_COVERAGE_JSON, Coverage
from .batches import Labelled
from .epochs import NEVER, Epochs
from .prepared import PreparedClassification

BEST_AUC, BEST_LOSS, BEST_EPOCH = "validation_auc", "validation_loss", "best_epoch"
"""What a model tells of the weights that it has."""

log = logging.getLogger("spadunet")


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
