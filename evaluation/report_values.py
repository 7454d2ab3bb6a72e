"""What the report reads of scores, whichever metrics they hold: values, means, and which case is worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..metrics import metric_of
from ..scores import CaseScore, ClassScore, ClassSummary, Scores, mean_of
from .overlap import VoxelCounts, dice

Better = Literal["higher", "lower"] | None
BETTER: dict[bool | None, Better] = {True: "higher", False: "lower", None: None}


@dataclass(frozen=True, kw_only=True)
class MetricColumn:
    """How a metric is shown."""

    name: str
    title: str
    places: int
    better: Better
    """None of a size, of which neither is better."""


def columns_of(scores: Scores) -> list[MetricColumn]:
    """The metrics of these scores, in their order."""
    return list(map(column_of, scores.metrics))


def column_of(name: str) -> MetricColumn:
    """How the metric of a name is shown."""
    metric = metric_of(name)
    return MetricColumn(name=name, title=metric.title, places=metric.places, better=BETTER[metric.is_higher_better])


def ranking_columns(scores: Scores) -> list[MetricColumn]:
    """The metrics that tell the worse of two cases; of sizes alone none does, and Dice is taken."""
    return [column for column in columns_of(scores) if column.better] or [column_of("dice")]


def value_of(score: ClassScore, metric: str) -> float | None:
    """A metric of one class of one case; None where it is not defined. Dice that was not scored is of the counts."""
    if metric == "dice" and metric not in score.values:
        prediction, reference, common = score.num_prediction_voxels, score.num_reference_voxels, score.num_common_voxels
        if prediction is None or reference is None or common is None:
            return None
        return dice(VoxelCounts(prediction, reference, common))
    return score.values.get(metric)


def format_value(value: float | None, column: MetricColumn) -> str:
    """A value as tables have it; a dash where it is not defined."""
    return "–" if value is None else f"{value:.{column.places}f}"


def mean_of_class(row: ClassSummary, metric: str) -> float | None:
    """A metric's mean over the cases."""
    return row.means[metric]


def num_valid(row: ClassSummary) -> int:
    """Cases in which prediction and reference both have the class."""
    return row.num_valid


def classes_of(scores: Scores) -> list[str]:
    """Names of what was scored."""
    return list(scores.cases[0].classes) if scores.cases else []


def case_mean(case: CaseScore, metric: str) -> float | None:
    """A metric's mean over the classes of a case where it is defined."""
    return mean_of([value_of(score, metric) for score in case.classes.values()])


def badness(scores: Sequence[ClassScore], column: MetricColumn) -> tuple[float, float]:
    """The larger, the worse: first by how many classes are missed or false alarms without a value, then by the mean.

    A class that is in neither prediction nor reference is no error: a case with nothing else is the best.
    """
    values = [value_of(score, column.name) for score in scores]
    num_wrong = sum(
        value is None and (score.is_missed or score.is_false_alarm) for score, value in zip(scores, values, strict=True)
    )
    mean = mean_of(values)
    if mean is None:
        return num_wrong, -math.inf
    return num_wrong, -mean if column.better == "higher" else mean


def worst_first(scores: Scores, column: MetricColumn, name: str | None = None) -> list[int]:
    """Numbers of the cases by a metric, of one class or over all; equal ones by name."""

    def key(number: int) -> tuple[float, float, str]:
        case = scores.cases[number]
        wrong, mean = badness(list(case.classes.values()) if name is None else [case.classes[name]], column)
        return -wrong, -mean, case.case

    return sorted(range(len(scores.cases)), key=key)


def choose_cases(scores: Scores, most: int) -> list[int]:
    """Numbers of the cases to be shown: the worst over all classes, and the worst of each class and metric in turn.

    Half of them by the first, so that the page shows the worst of whatever it is sorted by.
    """
    columns = ranking_columns(scores)
    overall = [worst_first(scores, column) for column in columns[:1]]
    single = [worst_first(scores, column, name) for column in columns for name in classes_of(scores)]
    chosen = list(dict.fromkeys(overall[0][: math.ceil(most / 2)]))
    for rank in range(len(scores.cases)):
        for order in (*single, *overall):
            if len(chosen) < most and order[rank] not in chosen:
                chosen.append(order[rank])
    return chosen
