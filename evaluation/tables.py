"""Scores as files and text: for a spreadsheet, for the terminal, and for programs that read nnU-Net's summary.json."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from ..files import write_text
from ..labels import LabelSet
from ..record import write_record
from ..scores import METRICS, ClassScore, ClassSummary, Scores

COUNTS = ("num_prediction_voxels", "num_reference_voxels")
NNUNET_NAMES = {
    "dice": "Dice",
    "assd_mm": "ASSD_mm",
    "hd_mm": "HD_mm",
    "num_prediction_voxels": "n_pred",
    "num_reference_voxels": "n_ref",
}
"""nnU-Net v2's keys (its evaluate_predictions.py), and in their manner for what it does not compute."""


def write_scores(folder: Path, scores: Scores, labels: LabelSet) -> list[Path]:
    """Write scores.json, summary.json and scores.csv; their paths."""
    files = [folder / "scores.json", folder / "summary.json", folder / "scores.csv"]
    write_record(files[0], scores)
    write_text(files[1], summary_json(scores, labels))
    write_text(files[2], csv_text(scores))
    return files


def csv_text(scores: Scores) -> str:
    """One row a case and class; a cell is empty where a value is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "class", *METRICS, *COUNTS])
    for case in scores.cases:
        for name, score in case.classes.items():
            writer.writerow([case.case, name, *(getattr(score, field) for field in METRICS + COUNTS)])
    return text.getvalue()


def table_text(scores: Scores) -> str:
    """Means by class, a row of means over classes, and what the means leave out."""
    header = ["class", "Dice", "ASSD mm", "HD mm", "cases", "missed", "false alarms"]
    rows = [header]
    summary = scores.summary()
    for name, row in summary.items():
        counts = (row.num_cases, row.num_missed, row.num_false_alarms)
        rows.append([name, *format_means(row.dice, row.assd_mm, row.hd_mm), *map(str, counts)])
    missed = sum(row.num_missed for row in summary.values())
    false_alarms = sum(row.num_false_alarms for row in summary.values())
    means = format_means(*(scores.mean(metric) for metric in METRICS))
    rows.append(["mean", *means, str(len(scores.cases)), str(missed), str(false_alarms)])
    return "\n".join([*align(rows), *remarks(scores)]) + "\n"


def format_means(dice: float | None, assd_mm: float | None, hd_mm: float | None) -> list[str]:
    """Dice to four places, millimetres to two; a dash where not defined."""
    values = ((dice, 4), (assd_mm, 2), (hd_mm, 2))
    return ["-" if value is None else f"{value:.{places}f}" for value, places in values]


def align(rows: list[list[str]]) -> list[str]:
    """Lines with names to the left and numbers to the right, below each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]))
    return lines


def remarks(scores: Scores) -> list[str]:
    """Lines that say how many values the means leave out; none where they leave out nothing."""
    summary = scores.summary().values()
    num_values = sum(row.num_cases for row in summary)
    without_dice = num_values - sum(row.num_dice for row in summary)
    without_distances = num_values - sum(row.num_distances for row in summary)
    lines = []
    if without_distances:
        lines.append(
            f"Of {num_values} values (cases x classes), the means of ASSD and HD leave out {without_distances} "
            f"with an empty prediction or reference, those of Dice {without_dice} with both empty."
        )
    if scores.not_predicted:
        lines.append(f"References without a prediction, not counted: {len(scores.not_predicted)}")
    if scores.failed:
        lines.append(f"Cases that could not be scored, not counted: {', '.join(scores.failed)}")
    return lines


def summary_json(scores: Scores, labels: LabelSet) -> str:
    """Means under nnU-Net's keys, classes by their id, regions by their tuple of ids; null where not defined."""
    ids = {it.name: str(it.ids if len(it.ids) > 1 else it.ids[0]) for it in labels.structures}
    summary = {
        "foreground_mean": {NNUNET_NAMES[metric]: scores.mean(metric) for metric in METRICS},
        "labels": {key: name for name, key in ids.items()},
        "mean": {ids[name]: summary_entry(row) for name, row in scores.summary().items()},
        "metric_per_case": [
            {"case": case.case, "metrics": {ids[name]: case_entry(score) for name, score in case.classes.items()}}
            for case in scores.cases
        ],
        "not_predicted": list(scores.not_predicted),
        "failed": list(scores.failed),
    }
    return json.dumps(summary, indent=1) + "\n"


def summary_entry(row: ClassSummary) -> dict[str, float | None]:
    """Means of one class, and the counts that qualify them."""
    means = {NNUNET_NAMES[metric]: getattr(row, metric) for metric in METRICS}
    return means | {field: getattr(row, field) for field in ClassSummary.model_fields if field not in METRICS}


def case_entry(score: ClassScore) -> dict[str, float | None]:
    """One class of one case."""
    return {key: getattr(score, field) for field, key in NNUNET_NAMES.items()}
