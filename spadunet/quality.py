"""How far an answer can be trusted without a reference, and what that was worth on held-out cases."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from .record import FormatVersion, Record

Share = Annotated[float, Field(ge=0, le=1)]
FEATURES = ("soft_dice", "entropy_in", "entropy_around", "share_around", "too_small", "too_large")
"""What expected Dice is fitted on, in this order."""
MAX_Z = 6.0
"""A volume further from those of training tells no more."""
NEARLY_ALWAYS = 0.95
"""Of training references: a class that so many have is missed where a prediction has none of it."""
MEAN = "mean"
"""As a class in quality.csv: the row of the whole case."""


class ClassQuality(Record):
    """What is known of one class of one case."""

    volume_ml: float = Field(ge=0)
    """Of the label map as it is written."""
    soft_dice: float
    """Dice of mask and probabilities."""
    entropy_in: float | None
    """Mean in the mask, bits; None without a mask."""
    entropy_around: float | None
    """Mean where the class's probability is between 0.05 and 0.95, bits; None where it nowhere is."""
    share_around: float
    """Of the mask and what lies around it, how much lies around it."""
    agreement: float | None = None
    """Dice of each model, or of each mirror image, with their mean; None where there is one alone."""

    @property
    def is_empty(self) -> bool:
        """Nothing of the class was found."""
        return self.volume_ml == 0


class Volumes(Record):
    """Of a class in the training references."""

    num_cases: int = Field(ge=1)
    """That tell of the class."""
    share_present: Share
    """Of these, how many have it."""
    mean_log_ml: float | None
    """Mean of the natural logarithm of ml, where it is there; None if it never is."""
    std_log_ml: float | None = Field(gt=0)
    """Its standard deviation."""

    @property
    def is_expected(self) -> bool:
        """Nearly every training reference has it."""
        return self.share_present >= NEARLY_ALWAYS

    def z(self, ml: float) -> float | None:
        """How many standard deviations a volume lies from the mean; None of an empty class."""
        if not ml or self.mean_log_ml is None or self.std_log_ml is None:
            return None
        return (math.log(ml) - self.mean_log_ml) / self.std_log_ml


class DiceFit(Record):
    """Dice by FEATURES: a weighted sum of these, which rises and falls with Dice, then a rising curve."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    """Of the features less their means, by their scales."""
    scores: tuple[float, ...] = Field(min_length=1)
    """Corners of the curve, rising; beyond the ends it is level."""
    dice: tuple[Share, ...] = Field(min_length=1)
    """At the corners, never falling."""

    @model_validator(mode="after")
    def check(self) -> DiceFit:
        """As many numbers as features and corners; a curve that never falls."""
        if not len(self.means) == len(self.scales) == len(self.weights) == len(FEATURES):
            raise ValueError(f"means, scales and weights must be {len(FEATURES)} numbers each: {', '.join(FEATURES)}")
        if min(self.scales) <= 0:
            raise ValueError("scales must be above zero")
        if len(self.scores) != len(self.dice):
            raise ValueError(f"{len(self.scores)} scores but {len(self.dice)} values of Dice")
        if any(np.diff(self.scores) <= 0) or any(np.diff(self.dice) < 0):
            raise ValueError("scores must rise, and Dice must not fall")
        return self

    def expected(self, features: np.ndarray) -> np.ndarray:
        """Dice (N,) by features (N, len(FEATURES)), float64."""
        return np.interp((features - self.means) / self.scales @ np.array(self.weights), self.scores, self.dice)


class ClassCalibration(Record):
    """Of one class."""

    volumes: Volumes
    fit: DiceFit
    num_points: int = Field(ge=0)
    """Predictions of the class that the fit was made of; of all classes together where these were too few."""
    is_own: bool
    """Of this class alone."""


class Trials(Record):
    """What a calibration was fitted on, and how well it does on cases that it was not fitted on, each left out once."""

    num_cases: int = Field(ge=1)
    """Held out by training."""
    num_copies: int = Field(ge=0)
    """Spoilt ones of each case."""
    seed: int
    kinds: tuple[str, ...]
    """How copies were spoilt."""
    num_points: int = Field(ge=1)
    """Classes in predictions."""
    mean_dice: Share
    error: float = Field(ge=0)
    """Mean of |expected - true Dice| over classes in predictions."""
    case_error: float = Field(ge=0)
    """The same of the means of whole predictions."""
    spearman: float | None = Field(ge=-1, le=1)
    """Of expected and true mean Dice of whole predictions; None where one is constant."""
    unseen_spearman: dict[str, float | None] = {}
    """The same of copies of each kind, as far as the other kinds teach it."""


class Calibration(Record):
    """quality.json: expected Dice and usual volumes of a task."""

    format_version: FormatVersion = 1
    classes: dict[str, ClassCalibration] = Field(min_length=1)
    trials: Trials


class QualityRow(Record):
    """A row of quality.csv: one class of one case, or the mean of a case."""

    case: str
    name: str
    """Of the class or region, or MEAN."""
    volume_ml: float | None
    volume_z: float | None = None
    confidence: float | None
    entropy_in: float | None
    entropy_around: float | None
    share_around: float | None
    agreement: float | None
    is_empty: bool
    expected_dice: float | None = None
    review: bool = False
    """The label map lies in review/."""


def features_of(quality: ClassQuality, volumes: Volumes) -> list[float]:
    """FEATURES of a class that is not empty."""
    z = volumes.z(quality.volume_ml) or 0.0
    known = [quality.soft_dice, quality.entropy_in or 0.0, quality.entropy_around or 0.0, quality.share_around]
    return [*known, min(max(-z, 0.0), MAX_Z), min(max(z, 0.0), MAX_Z)]


def expected_dice(quality: ClassQuality, calibration: ClassCalibration) -> float | None:
    """Of an empty class 0 where nearly all training references have it, else None: it may be right."""
    if quality.is_empty:
        return 0.0 if calibration.volumes.is_expected else None
    return float(calibration.fit.expected(np.array([features_of(quality, calibration.volumes)]))[0])


def rows_of(case: str, qualities: dict[str, ClassQuality], calibration: Calibration | None) -> list[QualityRow]:
    """Rows of a case: one a class, and their mean."""
    rows = []
    for name, it in qualities.items():
        known = calibration.classes.get(name) if calibration else None
        rows.append(
            QualityRow(
                case=case,
                name=name,
                volume_ml=it.volume_ml,
                volume_z=known.volumes.z(it.volume_ml) if known else None,
                confidence=it.soft_dice,
                entropy_in=it.entropy_in,
                entropy_around=it.entropy_around,
                share_around=it.share_around,
                agreement=it.agreement,
                is_empty=it.is_empty,
                expected_dice=expected_dice(it, known) if known else None,
            )
        )
    return [*rows, mean_row(case, rows)]


def mean_row(case: str, rows: list[QualityRow]) -> QualityRow:
    """Means of what is known of the classes; empty where one of them is."""
    return QualityRow(
        case=case,
        name=MEAN,
        volume_ml=None,
        confidence=mean_of(row.confidence for row in rows),
        entropy_in=mean_of(row.entropy_in for row in rows),
        entropy_around=mean_of(row.entropy_around for row in rows),
        share_around=mean_of(row.share_around for row in rows),
        agreement=mean_of(row.agreement for row in rows),
        is_empty=any(row.is_empty for row in rows),
        expected_dice=mean_of(row.expected_dice for row in rows),
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
