"""Whether probabilities mean what they say: of studies told with 80 %, are 80 % right?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..class_predictions import decide
from ..classes import UNKNOWN, ClassSet
from .classification import target_labels, target_probabilities

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Statements whose probability lies between two tenths."""

    number: int
    mean_probability: float
    share_true: float


def reliability(classes: ClassSet, labels: np.ndarray, probabilities: np.ndarray) -> list[Bin]:
    """Bins of equal width that hold any statement, from 0 to 1.

    The statement is that a study has a finding, or is of the second of two classes, or of its likeliest class where
    there are more (Guo et al. 2017).

    Args:
        labels: int (N, L), `UNKNOWN` is left out.
        probabilities: (N, K).
    """
    if classes.is_exclusive and classes.kind != "binary":
        stated = probabilities.max(axis=1, keepdims=True)  # (N, 1)
        is_true = np.where(labels == UNKNOWN, UNKNOWN, decide(classes, probabilities) == labels)
    else:
        stated, is_true = target_probabilities(classes, probabilities), target_labels(classes, labels)
    is_known = is_true != UNKNOWN
    stated, is_true = stated[is_known], is_true[is_known]
    places = np.minimum((stated * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [places == place for place in range(NUM_BINS)]
    return [
        Bin(number=int(it.sum()), mean_probability=float(stated[it].mean()), share_true=float(is_true[it].mean()))
        for it in chosen
        if it.any()
    ]


def calibration_error(bins: list[Bin]) -> float | None:
    """Expected calibration error: mean distance between the two numbers of a bin, by its statements; None of none."""
    total = sum(it.number for it in bins)
    if not total:
        return None
    return sum(it.number * abs(it.mean_probability - it.share_true) for it in bins) / total
