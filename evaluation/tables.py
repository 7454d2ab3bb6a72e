"""Scores as files and text: for a spreadsheet, for the terminal, and for programs that read nnU-Net's summary.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_text
from ..labels import LabelSet
from ..metrics import metric_of
from ..record import write_record
from ..scores import ClassSummary, Scores, mean_over_classes
from .pairs import Pair
from .summary_json import summary_json

COUNTS = ("num_prediction_voxels", "num_reference_voxels")
STATED = ("outcome", "definition", "missing")
LEDGER = ("cases", "valid", "missed", "false alarms")


def write_scores(folder: Path, scores: Scores, labels: LabelSet, *, pairs: Sequence[Pair] = ()) -> list[Path]:
    """Write scores.json, summary.json and scores.csv; their paths.

    Args:
        pairs: that were scored, so that summary.json names their files.
    """
    files = [folder / "scores.json", folder / "summary.json", folder / "scores.csv"]
    write_record(files[0], scores)
    write_text(files[1], summary_json(scores, labels, files_of(pairs)))
    write_text(files[2], csv_text(scores))
    return files


def files_of(pairs: Sequence[Pair]) -> dict[str, dict[str, str | None]]:
    """The two files of each case, with whole paths, under nnU-Net's keys."""
    return {
        pair.name: {
            "reference_file": str(pair.reference.absolute()),
            "prediction_file": str(pair.prediction.absolute()) if pair.prediction else None,
        }
        for pair in pairs
    }


def csv_text(scores: Scores) -> str:
    """One row a case and class; a cell is empty where a value is not defined.

    Each row says whose definition and which policy its values follow; comments above a table would make readers drop
    what follows a # in a name.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "class", *scores.metrics, *COUNTS, *STATED])
    for case in scores.cases:
        for name, score in case.classes.items():
            values = [score.values.get(metric) for metric in scores.metrics]
            counts = [getattr(score, field) for field in COUNTS]
            writer.writerow([case.case, name, *values, *counts, score.outcome, scores.definition, scores.missing])
    return text.getvalue()


def meaning(scores: Scores) -> list[str]:
    """A line for each sentence of definition, after their name and the policy for missing classes."""
    if not scores.definitions:
        return []
    first = f"surface metrics as defined by: {scores.definition}; missing classes: {scores.missing}"
    return [first, *(f"{name}: {sentence}" for name, sentence in scores.definitions.items())]


def table_text(scores: Scores) -> str:
    """Means by class, a row of means over classes, how many cases they count, and what they mean."""
    summary = scores.summary()
    rows = [["class", *titles(scores), *LEDGER]]
    rows += [[name, *class_means(scores, row), *ledger(row)] for name, row in summary.items()]
    totals = [sum(numbers) for numbers in zip(*(map(int, ledger(row)[1:]) for row in summary.values()), strict=True)]
    rows.append(["mean", *means(scores, summary), str(len(scores.cases)), *map(str, totals or [0, 0, 0])])
    return "\n".join([*align(rows), *remarks(scores, summary), *meaning(scores)]) + "\n"


def titles(scores: Scores) -> list[str]:
    """Headers of the metrics."""
    return [metric_of(name).title for name in scores.metrics]


def class_means(scores: Scores, row: ClassSummary) -> list[str]:
    """A cell a metric."""
    return [format_value(name, row.means[name]) for name in scores.metrics]


def ledger(row: ClassSummary) -> list[str]:
    """How the cases of a class came out, in the order of LEDGER."""
    return list(map(str, (row.num_cases, row.num_valid, row.num_missed, row.num_false_alarms)))


def means(scores: Scores, summary: Mapping[str, ClassSummary]) -> list[str]:
    """Over classes, a cell a metric."""
    return [format_value(name, mean_over_classes(summary, name)) for name in scores.metrics]


def format_value(metric: str, value: float | None) -> str:
    """Overlaps to four places, all else to two; a dash where not defined."""
    return "-" if value is None else f"{value:.{metric_of(metric).places}f}"


def align(rows: list[list[str]]) -> list[str]:
    """Lines with names to the left and numbers to the right, below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
    return lines


def remarks(scores: Scores, summary: Mapping[str, ClassSummary]) -> list[str]:
    """Lines that say what the means leave out or count specially; none where there is nothing to say."""
    num_values = sum(row.num_cases for row in summary.values())
    left_out: dict[int, list[str]] = {}
    for name in scores.metrics:
        number = num_values - sum(row.num_counted[name] for row in summary.values())
        left_out.setdefault(number, []).append(metric_of(name).title)
    told = [f"{number} in {', '.join(names)}" for number, names in left_out.items() if number]
    lines = []
    if told:
        lines.append(f"Of {num_values} values (cases x classes), the means leave out: {'; '.join(told)}")
    if scores.not_predicted:
        lines.append(f"References without a prediction, counted as missed: {len(scores.not_predicted)}")
    if scores.failed:
        lines.append(f"Cases that could not be scored, not counted: {', '.join(scores.failed)}")
    return lines
