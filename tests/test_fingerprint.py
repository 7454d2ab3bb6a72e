"""Medians over cases, worked out by hand."""

from __future__ import annotations

import pytest

from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.spacing import MAX_DA, Shape, Spacing

INTENSITY = IntensityFacts(percentile_00_5=-160.5, percentile_50=1 / 3, percentile_99_5=240, mean=40, std=20)


def fingerprint_of(*cases: tuple[Spacing, Shape]) -> Fingerprint:
    """A fingerprint of cases a, b, c, … with these spacings and shapes."""
    facts = [
        CaseFacts(name=name, spacing_mm=spacing, shape=shape)
        for name, (spacing, shape) in zip("abcdef", cases, strict=False)
    ]
    return Fingerprint(dataset_name="X", source_digest="0", cases=tuple(facts), intensities=(INTENSITY,))


def test_the_median_spacing_is_taken_axis_by_axis():
    cases = [((8, 1.5, 1), (9, 9, 9)), ((5, 1, 1.25), (9, 9, 9)), ((6, 1.25, 1.5), (9, 9, 9))]
    assert fingerprint_of(*cases).median_spacing_mm() == (6, 1.25, 1.25)
    assert fingerprint_of(*cases[:2]).median_spacing_mm() == (6.5, 1.25, 1.125)


def test_the_order_of_the_cases_does_not_count():
    cases = [((8, 1.5, 1), (9, 9, 9)), ((5, 1, 1.25), (9, 9, 9)), ((6, 1.25, 1.5), (9, 9, 9))]
    assert fingerprint_of(*cases).median_spacing_mm() == fingerprint_of(*cases[::-1]).median_spacing_mm()


def test_a_single_slice_has_a_pixel_size_but_no_depth_spacing():
    found = fingerprint_of(((1, 2, 2), (1, 9, 9)), ((1, 2, 2), (1, 9, 9)), ((8, 1, 1), (9, 9, 9)))
    assert found.median_spacing_mm() == (8, 2, 2)
    assert [case.name for case in found.volumes()] == ["c"]
    assert not found.is_planar()
    assert found.da_of((8, 2, 2)) == 2


def test_single_slices_alone_are_planar_and_of_the_largest_degree():
    found = fingerprint_of(((1, 2, 2), (1, 9, 9)), ((3, 2, 2), (1, 9, 9)))
    assert found.is_planar()
    assert found.median_spacing_mm() == (2, 2, 2)
    assert found.da_of((2, 2, 2)) == MAX_DA
    assert found.volumes() == found.cases


@pytest.mark.parametrize(("shape", "da"), [((10, 256, 256), 2), ((1, 256, 256), MAX_DA)])
def test_each_case_has_its_own_degree(shape: Shape, da: int):
    assert CaseFacts(name="SC-N-02_ph00", spacing_mm=(8, 1.25, 1.25), shape=shape).da == da


def test_json_gives_the_same_fingerprint_back():
    found = fingerprint_of(((8, 1.5, 1 / 3), (9, 9, 9)))
    assert Fingerprint.from_json(found.to_json()) == found
