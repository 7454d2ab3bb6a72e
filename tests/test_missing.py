"""What a missing class counts: an image of 3 x 4 x 12 voxels, 2 mm apart."""

from __future__ import annotations

import pytest

from spadunet.metrics import metric_of
from spadunet.missing import Extent, Missing, Outcome, counted

EXTENT = Extent(shape_voxels=(3, 4, 12), spacing_mm=(2.0, 2.0, 2.0), num_voxels=144 - 4)  # 4 are ignored


def count(metric: str, value: float | None, outcome: Outcome, policy: Missing, num_reference_voxels: int = 10):
    """What the value of a class counts in a mean."""
    return counted(
        metric_of(metric),
        value,
        outcome=outcome,
        policy=policy,
        extent=EXTENT,
        num_reference_voxels=num_reference_voxels,
    )


@pytest.mark.parametrize(
    ("metric", "value", "worst", "zero"),
    [
        ("dice", 0.0, 0, 0),
        ("precision", None, 0, 0),
        ("sensitivity", 0.0, 0, 0),
        ("nsd_2mm", None, 0, 0),
        ("cldice", None, 0, 0),
        ("hd_mm", None, 26, None),
        ("assd_voxels", None, 13, None),
        ("ravd_percent", 100.0, 1300, 100),  # 140 voxels instead of 10
        ("volume_ml", 0.0, 0, 0),
        ("rvd_percent", -100.0, -100, -100),
        ("asd_mm", None, 26, None),
        ("reference_volume_ml", 0.08, 0.08, 0.08),
    ],
)
def test_a_missed_class(metric: str, value: float | None, worst: float, zero: float | None):
    assert count(metric, value, "missed", "worst") == worst
    assert count(metric, value, "missed", "zero") == zero
    assert count(metric, value, "missed", "nan") is None


@pytest.mark.parametrize(
    ("metric", "value", "worst", "zero"),
    [
        ("dice", 0.0, 0, 0),
        ("precision", 0.0, 0, 0),
        ("sensitivity", None, None, None),
        ("nsd_2mm", None, 0, 0),
        ("hd_mm", None, 26, None),
        ("assd_voxels", None, 13, None),
        ("ravd_percent", None, None, None),
        ("rvd_percent", None, None, None),
        ("volume_ml", 0.2, 0.2, 0.2),
    ],
)
def test_a_false_alarm(metric: str, value: float | None, worst: float | None, zero: float | None):
    assert count(metric, value, "false alarm", "worst", 0) == worst
    assert count(metric, value, "false alarm", "zero", 0) == zero
    assert count(metric, value, "false alarm", "nan", 0) is None


@pytest.mark.parametrize("policy", ["worst", "zero", "nan"])
def test_other_classes_count_as_they_are(policy: Missing):
    assert count("hd_mm", 3.5, "valid", policy) == 3.5
    assert count("dice", None, "absent", policy, 0) is None
    assert count("volume_ml", 0.0, "absent", policy, 0) == (None if policy == "nan" else 0)
    assert count("dice", None, "not annotated", policy, 0) is None


def test_a_distance_that_is_not_defined_between_two_masks_is_as_bad_as_none():
    assert count("hd_mm", None, "valid", "worst") == 26
    assert count("hd_mm", None, "valid", "zero") is None


def test_a_reference_that_fills_most_of_the_image_is_100_percent_off_at_worst():
    assert count("ravd_percent", 100.0, "missed", "worst", 120) == 100  # the whole image is 17 % too large
