"""How well predictions agree with references: what `spadunet_evaluate` leaves behind."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .metrics import DEFAULT_METRICS, metric_of
from .missing import DEFAULT_MISSING, Extent, Missing, Outcome, counted
from .record import PositiveShape, PositiveSpacing, Record

Count = Annotated[int, Field(ge=0)]

VERSION = 2
OLD_METRICS = ("dice", "assd_mm", "hd_mm")
"""Of format version 1, whose means left out undefined distances."""


class ClassScore(Record):
    """One class of one case.

    A value is None where its metric does not define it, as a distance where a mask is empty; what stands for it in
    the means is the policy's business (`missing`).
    """

    values: dict[str, float | None]
    """By the metric's full name; empty if the reference does not tell of the class."""
    num_prediction_voxels: Count | None
    """None, as the other counts, if the reference does not tell of the class."""
    num_reference_voxels: Count | None
    num_common_voxels: Count | None = None
    """In both masks. None, too, in files of format version 1."""

    @field_validator("values")
    @classmethod
    def check_values(cls, values: dict[str, float | None]) -> dict[str, float | None]:
        """Known metrics only, overlaps up to 1, points up to 100, and nothing below 0 but signed differences."""
        for name, value in values.items():
            metric = metric_of(name)
            if metric.is_higher_better and value is not None and not 0 <= value <= metric.best:
                raise ValueError(f"{name} lies between 0 and {metric.best:g}, not at {value}")
            if metric.kind != "signed difference" and value is not None and value < 0:
                raise ValueError(f"{name} is not below 0, as {value} is")
        return values

    @property
    def dice(self) -> float | None:
        """None, as the others, if it is not defined or was not asked for."""
        return self.values.get("dice")

    @property
    def assd_mm(self) -> float | None:
        """Average symmetric surface distance."""
        return self.values.get("assd_mm")

    @property
    def hd_mm(self) -> float | None:
        """Hausdorff distance."""
        return self.values.get("hd_mm")

    @property
    def outcome(self) -> Outcome:
        """Which of prediction and reference have the class."""
        if self.num_reference_voxels is None:
            return "not annotated"
        if self.num_reference_voxels:
            return "valid" if self.num_prediction_voxels else "missed"
        return "false alarm" if self.num_prediction_voxels else "absent"

    def counted(self, metric: str, policy: Missing, extent: Extent | None) -> float | None:
        """What the value of a metric counts in a mean; None if it is left out.

        Args:
            extent: of the case's image, the same for all of its classes.
        """
        return counted(
            metric_of(metric),
            self.values.get(metric),
            outcome=self.outcome,
            policy=policy,
            extent=extent,
            num_reference_voxels=self.num_reference_voxels or 0,
        )

    @property
    def is_annotated(self) -> bool:
        """The reference tells where the class is, or that it is nowhere."""
        return self.outcome != "not annotated"

    @property
    def is_missed(self) -> bool:
        """The reference has the class, the prediction has none of it."""
        return self.outcome == "missed"

    @property
    def is_false_alarm(self) -> bool:
        """The prediction has the class, the reference has none of it."""
        return self.outcome == "false alarm"


NOT_ANNOTATED = ClassScore(values={}, num_prediction_voxels=None, num_reference_voxels=None)
"""Of a class that a case's reference does not tell of."""


class CaseScore(Record):
    """All foreground classes of one case, by class name."""

    case: str
    classes: dict[str, ClassScore]
    shape_voxels: PositiveShape | None = None
    """Of the image. None, as the others, if not known: in files of format version 1."""
    spacing_mm: PositiveSpacing | None = None
    num_ignored_voxels: Count = 0
    """That the reference ignores, and no count holds."""

    @property
    def extent(self) -> Extent | None:
        """How large the image is."""
        if self.shape_voxels is None or self.spacing_mm is None:
            return None
        num_voxels = math.prod(self.shape_voxels) - self.num_ignored_voxels
        return Extent(shape_voxels=self.shape_voxels, spacing_mm=self.spacing_mm, num_voxels=num_voxels)

    def counted(self, name: str, metric: str, policy: Missing) -> float | None:
        """What the value of a class counts in a mean; None if it is left out."""
        return self.classes[name].counted(metric, policy, self.extent)


class ClassSummary(Record):
    """Means of a class by metric, how many values each counts, and how the cases came out.

    The cases whose reference tells of the class are valid (both masks have it), missed, false alarms, or have it in
    neither.
    """

    means: dict[str, float | None]
    num_counted: dict[str, Count]
    num_cases: Count
    num_valid: Count
    num_missed: Count
    num_false_alarms: Count

    @property
    def dice(self) -> float | None:
        """Mean; None, as the others, if no case counts or it was not asked for."""
        return self.means.get("dice")

    @property
    def assd_mm(self) -> float | None:
        """Mean."""
        return self.means.get("assd_mm")

    @property
    def hd_mm(self) -> float | None:
        """Mean."""
        return self.means.get("hd_mm")


class Scores(Record):
    """Scores of all cases, with means by class and over classes, and what they mean.

    `not_predicted` names the cases that have a reference and no prediction: they are among `cases`, as if nothing
    had been found in them. `failed` names those whose files cannot be scored: no mean counts them.
    """

    format_version: Literal[2] = 2
    metrics: tuple[str, ...] = DEFAULT_METRICS
    definition: str = "default"
    """Name of the tool whose surface metrics these are."""
    missing: Missing = DEFAULT_MISSING
    definitions: dict[str, str] = Field(default_factory=dict)
    """What each metric means, one sentence each, and the policy and the means."""
    cases: tuple[CaseScore, ...]
    not_predicted: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def read_version_1(cls, document: Any, info: ValidationInfo) -> Any:
        """Turn what an older spadunet wrote into what is written now."""
        if info.mode == "json" and isinstance(document, dict) and document.get("format_version") == 1:
            with contextlib.suppress(KeyError, TypeError, AttributeError):  # the checks name what is wrong
                return upgraded(document)
        return document

    @field_validator("metrics")
    @classmethod
    def check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        """Known ones, each once."""
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"each metric may be named once, not {list(metrics)}")
        for name in metrics:
            metric_of(name)
        return metrics

    @model_validator(mode="after")
    def check(self) -> Scores:
        """Each case once, all with the same classes and metrics, and their sizes where the policy needs them."""
        names = [case.case for case in self.cases]
        if len(set(names)) < len(names):
            raise ValueError(f"each case may appear once, not {names}")
        for case in self.cases:
            extent = case.extent
            if list(case.classes) != list(self.cases[0].classes):
                raise ValueError(
                    f"case {case.case} has the classes {list(case.classes)}, "
                    f"but {names[0]} has {list(self.cases[0].classes)}"
                )
            for name, score in case.classes.items():
                if score.is_annotated and set(score.values) != set(self.metrics):
                    raise ValueError(
                        f"case {case.case}, {name}: has values of {list(score.values)}, "
                        f"but the metrics are {list(self.metrics)}"
                    )
                if extent is None:
                    for metric in self.metrics:
                        score.counted(metric, self.missing, None)
        return self

    @property
    def unit(self) -> str:
        """Of lengths: mm, voxels, both, or none."""
        units = {metric_of(name).length_unit for name in self.metrics} - {""}
        return " and ".join(sorted(units))

    @property
    def classes(self) -> list[str]:
        """Names of the foreground classes; none without cases."""
        return list(self.cases[0].classes) if self.cases else []

    def counted(self, name: str, metric: str) -> dict[str, float]:
        """By case, what a class counts in the mean of a metric; without the cases that are left out."""
        found = {case.case: case.counted(name, metric, self.missing) for case in self.cases}
        return {case: value for case, value in found.items() if value is not None}

    def summary(self) -> dict[str, ClassSummary]:
        """Means by class name, and the counts beside them; each call looks at every value."""
        extents = [case.extent for case in self.cases]
        return {name: self.summarise(name, extents) for name in self.classes}

    def summarise(self, name: str, extents: list[Extent | None]) -> ClassSummary:
        """Means of one class over the cases whose reference tells of it; `extents` are those of the cases."""
        scores = [case.classes[name] for case in self.cases]
        outcomes = [score.outcome for score in scores]
        values = {
            metric: [
                value
                for score, extent in zip(scores, extents, strict=True)
                if (value := score.counted(metric, self.missing, extent)) is not None
            ]
            for metric in self.metrics
        }
        return ClassSummary(
            means={metric: mean_of(found) for metric, found in values.items()},
            num_counted={metric: len(found) for metric, found in values.items()},
            num_cases=len(outcomes) - outcomes.count("not annotated"),
            num_valid=outcomes.count("valid"),
            num_missed=outcomes.count("missed"),
            num_false_alarms=outcomes.count("false alarm"),
        )

    def mean(self, metric: str) -> float | None:
        """Mean over classes of the per-class means of a metric; None if no class has one.

        Who has the summary takes `mean_over_classes` of it, which need not look at all values again.
        """
        return mean_of([mean_of(self.counted(name, metric).values()) for name in self.classes])


def upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of format version 1 as one of version 2.

    Raises:
        KeyError, TypeError, AttributeError: if it is damaged.
    """
    cases = []
    for case in document["cases"]:
        classes = {
            name: {
                "values": {metric: score[metric] for metric in OLD_METRICS if metric in score}
                if score.get("num_reference_voxels") is not None
                else {},
                **{field: value for field, value in score.items() if field not in OLD_METRICS},
            }
            for name, score in case["classes"].items()
        }
        cases.append({**case, "classes": classes})
    return {**document, "format_version": VERSION, "metrics": OLD_METRICS, "missing": "zero", "cases": cases}


def mean_over_classes(summary: Mapping[str, ClassSummary], metric: str) -> float | None:
    """As `Scores.mean`, of its summary."""
    return mean_of(row.means[metric] for row in summary.values())


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are defined; None if none is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
