"""The part of a classification's page that shows how well it does on held-out studies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..classification_plan import ClassificationPlan
from ..evaluation.classification_tables import HEADER, PLACES, remarks, result_cells, with_interval
from ..image import format_spacing
from ..page import Html, figure, grid, heading, number, paragraph, table, text
from .board import read_class_scores
from .charts import Line, draw_chart
from .epochs import EpochPoint, read_epochs
from .status import RunStatus

CHARTS = {"auc": "AUC", "accuracy": "ACC", "loss": "Loss"}


def classes_of(folder: Path, status: RunStatus) -> Iterator[Html]:
    """Scores of held-out studies: after each epoch, and of the weights that were kept."""
    if status.classification is None:
        return
    yield heading("Validation of whole studies" if status.plans else "Validation")
    points = read_epochs(folder)
    if not points:
        yield paragraph("No study has been held out and scored yet.", "pale")
        return
    yield grid(epoch_charts(points))
    for name, scores in read_class_scores(folder, since=status.started.timestamp()).items():
        yield heading(f"{name}, weights that were kept", 3)
        yield table(HEADER, [result_cells(result) for result in scores.results])
        yield paragraph(
            f"AUC {with_interval(scores.auc, scores.auc_interval)}, "
            f"ACC {with_interval(scores.accuracy, scores.accuracy_interval)}, {scores.num_studies} studies"
        )
        for line in remarks(scores):
            yield paragraph(line, "pale")


def epoch_charts(points: list[EpochPoint]) -> Iterator[Html]:
    """AUC, ACC and loss of held-out studies by step."""
    for colour, (name, words) in enumerate(CHARTS.items()):
        found = [(point.step, value) for point in points if (value := getattr(point, name)) is not None]
        if found:
            steps, values = (np.array(column) for column in zip(*found, strict=True))
            limits = {"lowest": 0.0} if name == "loss" else {"lowest": 0.0, "highest": 1.0}
            line = Line(steps=steps, values=values, colour=colour, is_smoothed=False)
            latest = f"{text(words)}</b> of held-out studies, latest {number(values[-1], PLACES)}"
            yield figure([draw_chart(f"validation {name}", [line], **limits)], Html(f"<b>{latest}"))


def class_plan_facts(plan: ClassificationPlan) -> dict[str, str]:
    """What was decided for a dataset that is classified."""
    rules = (
        f"{name} ({rule.kind} {rule.low:g} … {rule.high:g})"
        for name, rule in zip(plan.channel_names, plan.intensity, strict=True)
    )
    target, size = plan.target_spacing_mm, plan.input_size_voxels
    facts = {
        "channels": ", ".join(rules),
        "kind": plan.classes.kind,
        "classes" if plan.classes.is_exclusive else "findings": ", ".join(plan.classes.names),
        "degree of anisotropy": str(plan.degree_of_anisotropy),
    }
    if size is not None:
        facts["images interpolated to"] = "×".join(map(str, size)) + " voxels (depth, height, width)"
    else:
        own = "native: each image keeps its own"
        facts["spacing"] = own if isinstance(target, str) else f"{format_spacing(target)} mm"
    if plan.brightness is not None:
        facts["intensities multiplied by"] = f"{plan.brightness:g} (by chance while training)"
    return facts
