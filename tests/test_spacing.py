"""The paper's one rule: floor(log2(slice spacing / pixel spacing)), 0 … 6."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spadunet.spacing import MAX_DA, degree_of_anisotropy


@pytest.mark.parametrize(
    ("ratio", "da"),
    [(0.5, 0), (1, 0), (1.99, 0), (2, 1), (3.99, 1), (4, 2), (8, 3), (16, 4), (32, 5), (64, 6), (1000, 6)],
)
def test_each_doubling_of_the_slice_spacing_is_one_degree(ratio: float, da: int):
    assert degree_of_anisotropy((ratio, 1.0, 1.0)) == da


@pytest.mark.parametrize("scale", [1e-3, 0.3, 0.7, 1.0, 25.4])
def test_only_the_ratio_counts_whatever_the_unit(scale: float):
    assert degree_of_anisotropy((6.4 * scale, 0.8 * scale, 0.8 * scale)) == 3


def test_a_ratio_of_four_that_a_float32_header_makes_3_9999_is_four():
    assert degree_of_anisotropy((float(np.float32(3.9999)), 1.0, 1.0)) == 2
    assert degree_of_anisotropy((3.999, 1.0, 1.0)) == 1


def test_the_finer_side_of_the_plane_counts():
    assert degree_of_anisotropy((4.0, 2.0, 1.0)) == degree_of_anisotropy((4.0, 1.0, 2.0)) == 2


def test_a_single_slice_has_the_largest_degree_whatever_its_thickness():
    assert [degree_of_anisotropy((depth, 1.0, 1.0), num_slices=1) for depth in (0.1, 1, 64)] == [MAX_DA] * 3
    assert degree_of_anisotropy((1.0, 1.0, 1.0), num_slices=2) == 0


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_spacing_that_cannot_be_is_refused_even_of_a_single_slice(wrong: float, axis: int):
    spacing_mm = [1.0, 1.0, 1.0]
    spacing_mm[axis] = wrong
    with pytest.raises(ValueError, match=r"^spacing_mm must be positive and finite, not \("):
        degree_of_anisotropy(tuple(spacing_mm), num_slices=1)
