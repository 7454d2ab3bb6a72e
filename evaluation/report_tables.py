"""The report's tables: means by class, what is missing, and what the numbers mean and come from."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..labels import LabelSet
from ..metrics import LESION_METRICS
from ..page import Html, details, heading, paragraph, table, tiles
from ..scores import Scores, mean_over_classes
from .report_values import MetricColumn, format_value, mean_of_class, num_valid

MAX_LEDGER = 500
"""Lines of the ledger."""
MAX_OPEN = 20
"""Lines of the ledger that are shown without being asked for."""
MAX_TILES = 4
"""Metrics at the head of the page."""
LIBRARIES = ("numpy", "scipy", "SimpleITK")
LIBRARY_OF = {"cldice": "scikit-image", **dict.fromkeys(sorted(LESION_METRICS), "panoptica")}
"""By metric, what else computes it."""


def summary_of(scores: Scores, columns: Sequence[MetricColumn]) -> Iterator[Html]:
    """The few numbers that matter most, and means by class."""
    summary = scores.summary()
    num_missed = sum(row.num_missed for row in summary.values())
    num_false_alarms = sum(row.num_false_alarms for row in summary.values())
    values = {"cases": f"{len(scores.cases):,}", "classes": str(len(summary))}
    values |= {f"mean {it.title}": format_value(mean_over_classes(summary, it.name), it) for it in columns[:MAX_TILES]}
    values |= {"classes missed": str(num_missed), "false alarms": str(num_false_alarms)}
    if scores.not_predicted:
        values["without a prediction"] = str(len(scores.not_predicted))
    if scores.failed:
        values["could not be scored"] = str(len(scores.failed))
    yield tiles(values)
    yield heading("Means by class")
    rows = [
        [
            name,
            *(format_value(mean_of_class(row, column.name), column) for column in columns),
            *map(str, (row.num_cases, num_valid(row), row.num_missed, row.num_false_alarms)),
        ]
        for name, row in summary.items()
    ]
    totals = [len(scores.cases), sum(num_valid(row) for row in summary.values()), num_missed, num_false_alarms]
    means = [format_value(mean_over_classes(summary, column.name), column) for column in columns]
    header = ["class", *(column.title for column in columns), "cases", "valid", "missed", "false alarms"]
    yield table(header, [*rows, ["mean", *means, *map(str, totals)]])
    yield paragraph(
        "Valid: prediction and reference both have the class. Missed: only the reference has it. False alarm: only the "
        "prediction. What these count in a mean is said under Definitions.",
        "pale",
    )


def ledger_of(scores: Scores) -> Iterator[Html]:
    """What is missing: classes that were missed or are false alarms, cases without a prediction, and failed ones."""
    rows = [[case, "all", "no prediction", "", ""] for case in scores.not_predicted]
    rows += [[case, "all", "could not be scored: the log says why", "", ""] for case in scores.failed]
    for case in scores.cases:
        for name, score in case.classes.items():
            what = "missed" if score.is_missed else "false alarm" if score.is_false_alarm else ""
            if what and case.case not in scores.not_predicted:
                counts = (score.num_reference_voxels, score.num_prediction_voxels)
                rows.append([case.case, name, what, *(f"{count or 0:,}" for count in counts)])
    yield heading("What is missing")
    if not rows:
        yield paragraph("Nothing: every case has a prediction, no class is missed, and there is no false alarm.")
        return
    header = ["case", "class", "what", "reference voxels", "predicted voxels"]
    shown = table(header, rows[:MAX_LEDGER])
    words = f"{len(rows)} entries" + (f", the first {MAX_LEDGER} shown" if len(rows) > MAX_LEDGER else "")
    yield shown if len(rows) <= MAX_OPEN else details(words, shown)


def libraries_of(scores: Scores) -> list[str]:
    """What the scores were computed with."""
    return [*LIBRARIES, *dict.fromkeys(LIBRARY_OF[name] for name in scores.metrics if name in LIBRARY_OF)]


def definitions_of(
    scores: Scores, labels: LabelSet, predictions: Path, references: Path, images: Mapping[str, Path] | None
) -> Iterator[Html]:
    """What the numbers mean, and what they were made of and with."""
    yield heading("Definitions")
    yield table([], [[name, words] for name, words in scores.definitions.items()], is_words=True)
    yield heading("Data and versions")
    ids = {it.name: ", ".join(map(str, it.ids)) for it in labels.structures}
    facts = {
        "predictions": str(predictions.resolve()),
        "references": str(references.resolve()),
        "images": str(next(iter(images.values())).resolve().parent) if images else "none: outlines alone",
        "labels": "; ".join(f"{name}: {known}" for name, known in ids.items()),
        "written": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "spadunet": __version__,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in libraries_of(scores)},
    }
    yield table([], [list(fact) for fact in facts.items()], is_words=True)
