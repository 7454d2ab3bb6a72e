"""What is kept of an answer's quality, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_quality import SURE_FIT, calibration_of, volumes_of

from spadunet.errors import InputError
from spadunet.quality import (
    FEATURES,
    MAX_Z,
    Calibration,
    ClassCalibration,
    ClassQuality,
    DiceFit,
    expected_dice,
    features_of,
    rows_of,
)


def quality_of(soft_dice: float = 0.75, volume_ml: float = 1.0) -> ClassQuality:
    return ClassQuality(volume_ml=volume_ml, soft_dice=soft_dice, entropy_in=0.1, entropy_around=0.5, share_around=0.2)


def known(share_present: float = 1.0) -> ClassCalibration:
    return ClassCalibration(volumes=volumes_of(share_present), fit=SURE_FIT, num_points=18, is_own=True)


def test_a_calibration_comes_back_from_json():
    calibration = calibration_of("liver", "spleen")
    assert Calibration.from_json(calibration.to_json()) == calibration
    with pytest.raises(InputError, match="format version 2 is newer than 1"):
        Calibration.from_json(calibration.to_json().replace('"format_version": 1', '"format_version": 2'))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (1.0,)}, "must be 6 numbers each"),
        ({"scales": (0.0,) * len(FEATURES)}, "above zero"),
        ({"dice": (0.1,)}, "2 scores but 1 values"),
        ({"scores": (1.0, 1.0)}, "scores must rise"),
        ({"dice": (1.0, 0.5)}, "Dice must not fall"),
    ],
)
def test_a_fit_that_is_none_is_told(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DiceFit(**{**SURE_FIT.model_dump(), **change})


def test_volumes_are_told_in_standard_deviations_of_their_logarithm():
    volumes = volumes_of()
    assert volumes.z(math.e) == pytest.approx(1)
    assert volumes.z(1 / math.e**2) == pytest.approx(-2)
    assert volumes.z(0) is None
    columns = dict(zip(FEATURES, features_of(quality_of(volume_ml=1e9), volumes), strict=True))
    assert (columns["too_small"], columns["too_large"]) == (0, MAX_Z)
    columns = dict(zip(FEATURES, features_of(quality_of(volume_ml=1 / math.e), volumes), strict=True))
    assert (columns["too_small"], columns["too_large"]) == pytest.approx((1, 0))


def test_expected_dice_follows_the_curve_and_is_level_beyond_it():
    found = [expected_dice(quality_of(share), known()) for share in (0.2, 0.5, 0.75, 1.0)]
    assert found == pytest.approx([0, 0, 0.5, 1])
    assert SURE_FIT.expected(np.ones((3, len(FEATURES)))).tolist() == [1, 1, 1]


def test_an_empty_class_is_worth_nothing_only_where_nearly_all_references_have_it():
    empty = quality_of(volume_ml=0)
    assert expected_dice(empty, known(1.0)) == 0
    assert expected_dice(empty, known(0.5)) is None


def test_rows_hold_each_class_and_the_mean():
    qualities = {"liver": quality_of(0.75), "spleen": quality_of(1.0, volume_ml=0)}
    *rows, mean = rows_of("case_1", qualities, calibration_of("liver", "spleen"))
    assert [row.name for row in rows] == ["liver", "spleen"]
    assert [row.expected_dice for row in rows] == [0.5, 0]
    assert [row.is_empty for row in rows] == [False, True]
    assert [row.volume_z for row in rows] == [0, None]
    assert (mean.name, mean.expected_dice, mean.confidence, mean.is_empty) == ("mean", 0.25, 0.875, True)
    *rows, mean = rows_of("case_1", qualities, None)
    assert [row.expected_dice for row in (*rows, mean)] == [None] * 3
    assert [row.volume_z for row in rows] == [None, None]
