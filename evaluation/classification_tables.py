"""Scores of a classification as files and text: scores.json, scores.csv, and a table for the terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ..files import write_text
from ..page import number
from ..record import write_record
from .classification import ClassificationScores, ClassResult, Interval
from .tables import align

SCORES_JSON, SCORES_CSV = "scores.json", "scores.csv"
MEAN = "mean"
PLACES = 3
HEADER = ("class", "AUC", "95 % interval", "sensitivity", "specificity", "cases", "others", "unknown")
COLUMNS = (
    "class",
    *("auc", "auc_low", "auc_high", "accuracy", "accuracy_low", "accuracy_high", "sensitivity", "specificity"),
    *("num_positive", "num_negative", "num_unknown"),
)


def write_classification_scores(folder: Path, scores: ClassificationScores) -> list[Path]:
    """Write scores.json and scores.csv; their paths.

    Raises:
        OutputError: if one cannot be written.
    """
    files = [folder / SCORES_JSON, folder / SCORES_CSV]
    write_record(files[0], scores)
    write_text(files[1], csv_text(scores))
    return files


def csv_text(scores: ClassificationScores) -> str:
    """A row a class or finding, and one of means; a cell is empty where a value is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for it in scores.results:
        writer.writerow(
            [
                *(it.name, it.auc, *(it.auc_interval or ("", "")), it.accuracy, "", "", it.sensitivity, it.specificity),
                *(it.num_positive, it.num_negative, it.num_unknown),
            ]
        )
    means = (scores.auc, *(scores.auc_interval or ("", "")), scores.accuracy, *(scores.accuracy_interval or ("", "")))
    writer.writerow([MEAN, *means, "", "", "", "", ""])
    return text.getvalue()


def table_text(scores: ClassificationScores) -> str:
    """What each class or finding scores, then AUC and ACC, and what is not defined."""
    lines = [
        *align([list(HEADER), *(result_cells(result) for result in scores.results)]),
        f"AUC {with_interval(scores.auc, scores.auc_interval)}: {scores.definitions['AUC']}",
        f"ACC {with_interval(scores.accuracy, scores.accuracy_interval)}: {scores.definitions['ACC']}",
        f"{scores.num_studies} studies of {scores.num_patients} patients"
        if scores.num_patients < scores.num_studies
        else f"{scores.num_studies} studies",
        *remarks(scores),
    ]
    return "\n".join(lines) + "\n"


def result_cells(result: ClassResult) -> list[str]:
    """A row of HEADER."""
    values = (number(result.sensitivity, PLACES), number(result.specificity, PLACES))
    counts = map(str, (result.num_positive, result.num_negative, result.num_unknown))
    return [result.name, number(result.auc, PLACES), interval_text(result.auc_interval), *values, *counts]


def with_interval(value: float | None, interval: Interval | None) -> str:
    """A value and how sure it is."""
    if value is None:
        return "not defined"
    return f"{number(value, PLACES)} ({interval_text(interval)})" if interval else number(value, PLACES)


def interval_text(interval: Interval | None) -> str:
    """Its ends, or a dash."""
    return " to ".join(number(end, PLACES) for end in interval) if interval else number(None)


def remarks(scores: ClassificationScores) -> list[str]:
    """What is not defined and therefore in no mean, and what is left out."""
    lines = [f"AUC of {it.name!r}: not defined, {it.why_no_auc}" for it in scores.without_auc]
    if lines and scores.auc is not None:
        counted = len(scores.results) - len(lines)
        lines.append(f"AUC is the mean over the other {counted} of {len(scores.results)}")
    num_unknown = sum(result.num_unknown for result in scores.results)
    if num_unknown:
        values = len(scores.results) * scores.num_studies
        lines.append(f"Labels that are not known and left out: {num_unknown} of {values} (studies x classes)")
    if scores.auc_interval is None and scores.interval:
        lines.append(f"Intervals: {scores.interval}")
    return lines
