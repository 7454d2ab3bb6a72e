"""How well predictions agree with references: what `spadunet_evaluate` leaves behind."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from .record import FormatVersion, Record

METRICS = ("dice", "assd_mm", "hd_mm")
DEFINITIONS = {
    "dice": "2 |P and R| / (|P| + |R|), P and R the voxels of prediction and reference; "
    "0 if one of them is empty, not defined if both are",
    "border": "voxels with a face neighbour outside the mask (mask minus its erosion by the face neighbours); "
    "outside the image counts as outside the mask, as in MedPy and MONAI (CHAOS's own script counts it as inside); "
    "in an image of one slice, neighbours in that slice only",
    "assd_mm": "mean over the border voxels of both masks of the distance in mm to the nearest border voxel of the "
    "other mask; both directions pooled, as MONAI and MedPy since 0.5 (MedPy up to 0.4 took the mean of the two "
    "directed means); not defined if a mask is empty",
    "hd_mm": "largest of those distances (100th percentile), as MONAI and MedPy; not defined if a mask is empty",
    "mean": "of a class over the cases where the value is defined, then over the classes that have a mean; "
    "missed and false alarms count the cases where just the prediction or just the reference is empty; "
    "a class that was not annotated in a case counts for nothing there",
}
"""What the numbers mean, written beside them: tools that use the same names differ by tens of per cent."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Millimetres = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class ClassScore(Record):
    """One class of one case. None where a value is not defined because a mask is empty.

    Dice is 0 if just one mask is empty and undefined if both are; distances are undefined if either is.
    """

    dice: Fraction | None
    assd_mm: Millimetres | None
    hd_mm: Millimetres | None
    num_prediction_voxels: Count | None
    """None, as all else, if the reference does not tell of the class."""
    num_reference_voxels: Count | None

    @property
    def is_annotated(self) -> bool:
        """The reference tells where the class is, or that it is nowhere."""
        return self.num_reference_voxels is not None

    @property
    def is_missed(self) -> bool:
        """The reference has the class, the prediction has none of it."""
        return bool(self.num_reference_voxels) and self.num_prediction_voxels == 0

    @property
    def is_false_alarm(self) -> bool:
        """The prediction has the class, the reference has none of it."""
        return bool(self.num_prediction_voxels) and self.num_reference_voxels == 0


NOT_ANNOTATED = ClassScore(dice=None, assd_mm=None, hd_mm=None, num_prediction_voxels=None, num_reference_voxels=None)
"""Of a class that a case's reference does not tell of."""


class CaseScore(Record):
    """All foreground classes of one case, by class name."""

    case: str
    classes: dict[str, ClassScore]


class ClassSummary(Record):
    """Means over the cases in which a value is defined, and how many those are (num_dice, num_distances)."""

    dice: Fraction | None
    assd_mm: Millimetres | None
    hd_mm: Millimetres | None
    num_cases: Count
    num_dice: Count
    num_distances: Count
    num_missed: Count
    num_false_alarms: Count


class Scores(Record):
    """Scores of all cases, with means by class and over classes.

    `not_predicted` names the cases that have a reference and no prediction, `failed` those whose files cannot be
    scored: no mean counts them.
    """

    format_version: FormatVersion = 1
    definitions: dict[str, str] = Field(default_factory=lambda: dict(DEFINITIONS))
    cases: tuple[CaseScore, ...]
    not_predicted: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    @model_validator(mode="after")
    def check(self) -> Scores:
        """Each case once, all with the same classes."""
        names = [case.case for case in self.cases]
        if len(set(names)) < len(names):
            raise ValueError(f"each case may appear once, not {names}")
        for case in self.cases:
            if list(case.classes) != list(self.cases[0].classes):
                raise ValueError(
                    f"case {case.case} has the classes {list(case.classes)}, "
                    f"but {names[0]} has {list(self.cases[0].classes)}"
                )
        return self

    def summary(self) -> dict[str, ClassSummary]:
        """Means by class name, over the cases in which the value is defined."""
        names = list(self.cases[0].classes) if self.cases else []
        return {name: summarise([case.classes[name] for case in self.cases]) for name in names}

    def mean(self, metric: str) -> float | None:
        """Mean over classes of the per-class means of one of METRICS; None if no class has one."""
        values = [getattr(row, metric) for row in self.summary().values()]
        return mean_of(values)


def summarise(scores: list[ClassScore]) -> ClassSummary:
    """Means of one class over the cases whose reference tells of it, and the counts beside them."""
    scores = [score for score in scores if score.is_annotated]
    return ClassSummary(
        dice=mean_of([score.dice for score in scores]),
        assd_mm=mean_of([score.assd_mm for score in scores]),
        hd_mm=mean_of([score.hd_mm for score in scores]),
        num_cases=len(scores),
        num_dice=sum(score.dice is not None for score in scores),
        num_distances=sum(score.hd_mm is not None for score in scores),
        num_missed=sum(score.is_missed for score in scores),
        num_false_alarms=sum(score.is_false_alarm for score in scores),
    )


def mean_of(values: list[float | None]) -> float | None:
    """Mean of the values that are defined; None if none is."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None
