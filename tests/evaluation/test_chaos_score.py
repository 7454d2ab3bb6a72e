"""CHAOS's points, against what the challenge's paper prints."""

from __future__ import annotations

import numpy as np
import pytest
from mask_pairs import voxel_at

from spadunet.evaluation.chaos_score import ChaosScore, chaos_score
from spadunet.evaluation.definitions import DEFINITIONS
from spadunet.evaluation.overlap import count_overlap, dice
from spadunet.evaluation.surface import surface_scores


def test_points_of_published_means():
    """A row of Kavur et al. 2021 (liver in CT): DICE 97.79, RAVD 1.32 % → 73.6, ASSD 0.89 mm → 94.06.

    Metrics whose values all lie within the thresholds: there the points of the mean are the mean of the points.
    """
    score = chaos_score(dice=0.9779, ravd_percent=1.32, assd_mm=0.89, mssd_mm=None)
    assert score.dice == pytest.approx(97.79)
    assert score.ravd == pytest.approx(73.6)
    assert score.assd == pytest.approx(94.06, abs=0.01)


def test_mean_of_the_four():
    assert ChaosScore(dice=97.79, ravd=73.6, assd=94.06, mssd=64.38).mean == pytest.approx(82.46, abs=0.005)


def test_perfect_is_a_hundred():
    assert chaos_score(dice=1.0, ravd_percent=0.0, assd_mm=0.0, mssd_mm=0.0).mean == 100


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ({"dice": 0.8}, ("dice", 0)),
        ({"dice": 0.81}, ("dice", 81)),
        ({"ravd_percent": -2.5}, ("ravd", 50)),
        ({"ravd_percent": 5.0}, ("ravd", 0)),
        ({"ravd_percent": 80.0}, ("ravd", 0)),
        ({"assd_mm": 3.0}, ("assd", 80)),
        ({"assd_mm": 15.1}, ("assd", 0)),
        ({"mssd_mm": 15.0}, ("mssd", 75)),
        ({"mssd_mm": 61.0}, ("mssd", 0)),
    ],
)
def test_thresholds(values: dict[str, float], points: tuple[str, float]):
    nothing = {"dice": None, "ravd_percent": None, "assd_mm": None, "mssd_mm": None}
    score = chaos_score(**nothing | values)
    name, expected = points
    assert getattr(score, name) == pytest.approx(expected)
    assert score.mean == pytest.approx(expected / 4)


def test_an_organ_that_is_missed_scores_nothing():
    reference, nothing = voxel_at((1, 1, 1)), np.zeros((4, 5, 6), bool)
    distances = surface_scores(nothing, reference, (1.0, 1.0, 1.0), ["assd_mm", "hd_mm"], DEFINITIONS["chaos"])
    score = chaos_score(
        dice=dice(count_overlap(nothing, reference)),
        ravd_percent=-100.0,
        assd_mm=distances["assd_mm"],
        mssd_mm=distances["hd_mm"],
    )
    assert score.mean == 0
