"""Whether stated probabilities come true."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.evaluation.reliability import calibration_error, reliability

SIDES = ClassSet(kind="binary", names=("left", "right"))
ORGANS = ClassSet(kind="multi-class", names=("liver", "spleen", "kidney"))
FINDINGS = ClassSet(kind="multi-label", names=("effusion", "mass"))


def summary(classes: ClassSet, labels: list[list[int]], probabilities: list[list[float]]) -> list[tuple]:
    bins = reliability(classes, np.array(labels), np.array(probabilities))
    return [(it.number, pytest.approx(it.mean_probability), it.share_true) for it in bins]


def test_of_two_classes_the_second_is_stated():
    found = summary(SIDES, [[1], [0], [1], [UNKNOWN]], [[0.26, 0.74], [0.22, 0.78], [0, 1], [1, 0]])
    assert found == [(2, 0.76, 0.5), (1, 1, 1)]


def test_of_more_classes_the_likeliest_is_stated():
    assert summary(ORGANS, [[1], [0]], [[0.2, 0.7, 0.1], [0.1, 0.15, 0.75]]) == [(2, 0.725, 0.5)]


def test_findings_are_stated_one_by_one():
    assert summary(FINDINGS, [[1, UNKNOWN], [0, 1]], [[0.9, 0.4], [0.02, 0.04]]) == [(2, 0.03, 0.5), (1, 0.9, 1)]


def test_error_is_the_mean_distance_by_statements():
    probabilities = np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]])
    bins = reliability(SIDES, np.array([[0], [0], [1], [1]]), probabilities)
    assert calibration_error(bins) == pytest.approx(0.75 * (1 / 3 - 0.1) + 0.25 * 0.2)
    assert calibration_error([]) is None
