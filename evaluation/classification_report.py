"""report.html of a classification: AUC and ACC, ROC curves, what is taken for what, and whether probabilities hold."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import __version__
from ..class_predictions import decide, describe
from ..classes import UNKNOWN
from ..files import write_text
from ..page import Html, figure, grid, heading, number, page, paragraph, table, text, tiles
from .class_references import ClassReferences
from .classification import ClassificationScores, Interval, target_labels, target_probabilities
from .classification_charts import confusion_table, reliability_chart, roc_chart, roc_points
from .classification_tables import HEADER, PLACES, interval_text, remarks, result_cells, with_interval
from .reliability import calibration_error, reliability

REPORT_HTML = "report.html"
MAX_WRONG = 50
"""Wrong answers that are listed."""
LIBRARIES = ("numpy", "scipy")


def write_classification_report(
    path: Path,
    scores: ClassificationScores,
    references: ClassReferences,
    probabilities: np.ndarray,
    *,
    sources: Sequence[tuple[str, Path]],
) -> Path:
    """Write a page that needs no other file; its path.

    Args:
        probabilities: (N, K) of the references' studies.
        sources: files that were read, by what they are.

    Raises:
        OutputError: if it cannot be written.
    """
    parts = [
        *summary_of(scores),
        *curves_of(scores, references, probabilities),
        *confusion_part(scores),
        *reliability_part(references, probabilities),
        *wrong_part(references, probabilities),
        *definitions_of(scores, sources),
    ]
    write_text(path, page(f"Classification of {sources[0][1].resolve().parent.name}", parts))
    return path


def summary_of(scores: ClassificationScores) -> Iterator[Html]:
    """The few numbers that matter most, and a row a class."""
    yield tiles(
        {
            "studies": f"{scores.num_studies:,}",
            "classes" if scores.classes.is_exclusive else "findings": str(scores.classes.num_outputs),
            called("AUC", scores.auc_interval): number(scores.auc, PLACES),
            called("ACC", scores.accuracy_interval): number(scores.accuracy, PLACES),
        }
    )
    yield heading("By class" if scores.classes.is_exclusive else "By finding")
    yield table(HEADER, [result_cells(result) for result in scores.results])
    for line in remarks(scores):
        yield paragraph(line)
    yield paragraph(
        "Cases: studies that are of the class or have the finding; others: those that are not or have not. "
        "Sensitivity: of the cases, those that are told; specificity: of the others, those that are not. A dash: not "
        "defined.",
        "pale",
    )


def called(name: str, interval: Interval | None) -> str:
    """A score's name with how sure it is, where that is known."""
    return f"{name} ({interval_text(interval)})" if interval else name


def curves_of(scores: ClassificationScores, references: ClassReferences, probabilities: np.ndarray) -> Iterator[Html]:
    """A ROC curve a class that has one."""
    yield heading("ROC curves")
    labels = target_labels(references.classes, references.labels)
    columns = target_probabilities(references.classes, probabilities)
    charts = []
    for place, result in enumerate(scores.results):
        if result.auc is not None:
            chart = roc_chart(roc_points(labels[:, place], columns[:, place]), result.name, place)
            words = text(f" AUC {with_interval(result.auc, result.auc_interval)}")
            charts.append(figure([chart], Html(f"<b>{text(result.name)}</b>{words}")))
    yield grid(charts) if charts else paragraph("No class has one.")


def confusion_part(scores: ClassificationScores) -> Iterator[Html]:
    """What is taken for what, of exclusive classes."""
    if scores.confusion is None:
        return
    yield heading("Confusion")
    yield confusion_table(scores.classes.names, scores.confusion)
    yield paragraph("A row a true class, a column a predicted one; shaded by the share of the row.", "pale")


def reliability_part(references: ClassReferences, probabilities: np.ndarray) -> Iterator[Html]:
    """Whether stated probabilities come true."""
    classes = references.classes
    bins = reliability(classes, references.labels, probabilities)
    yield heading("Reliability")
    said = "that a study has a finding, all findings together"
    if classes.is_exclusive:
        said = f"that a study is {classes.names[1]}" if classes.kind == "binary" else "of the likeliest class"
    words = f"Probability {said}, against how often that is true. Expected calibration error "
    words += f"{number(calibration_error(bins), PLACES)}."
    yield grid([figure([reliability_chart(bins)], text(words))])


def wrong_part(references: ClassReferences, probabilities: np.ndarray) -> Iterator[Html]:
    """Studies that are told wrongly, the most certain first."""
    classes, labels = references.classes, references.labels
    decided = decide(classes, probabilities)
    is_wrong = (decided != labels) & (labels != UNKNOWN)  # (N, L)
    if classes.is_exclusive:
        given = np.take_along_axis(probabilities, np.maximum(labels, 0), axis=1)  # to what is right
    else:
        given = np.where(labels == 1, probabilities, 1 - probabilities)
    rows, columns = np.nonzero(is_wrong)
    order = np.argsort(given[rows, columns], kind="stable")
    yield heading("Wrong answers, the most certain first")
    if not len(order):
        yield paragraph("None.")
        return
    shown = []
    for row, column in zip(rows[order[:MAX_WRONG]], columns[order[:MAX_WRONG]], strict=True):
        if classes.is_exclusive:
            told, right = (describe(classes, it[row]) for it in (decided, labels))
        else:
            told, right = (f"{'' if it[row, column] else 'no '}{classes.names[column]}" for it in (decided, labels))
        shown.append([references.studies[row], told, right, number(float(given[row, column]), PLACES)])
    yield table(["study", "predicted", "true", "probability of what is true"], shown)
    if len(order) > MAX_WRONG:
        yield paragraph(f"{len(order):,} in all, the first {MAX_WRONG} shown.", "pale")


def definitions_of(scores: ClassificationScores, sources: Sequence[tuple[str, Path]]) -> Iterator[Html]:
    """What the numbers mean, and what they were made of and with."""
    yield heading("Definitions")
    meanings = {**scores.definitions, "intervals": scores.interval} if scores.interval else scores.definitions
    yield table([], [list(fact) for fact in meanings.items()], is_words=True)
    yield heading("Data and versions")
    facts = {
        **{name: str(path.resolve()) for name, path in sources},
        "kind": scores.classes.kind,
        "classes": ", ".join(scores.classes.names),
        "written": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "spadunet": __version__,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }
    yield table([], [list(fact) for fact in facts.items()], is_words=True)
