"""Intensities in [-1, 1], worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.plan import IntensityRule
from spadunet.preprocessing.normalise import normalise, scale_of

CT = IntensityRule(kind="window", low=-160, high=240)
MR = IntensityRule(kind="percentiles", low=0, high=100)
MIDDLE = IntensityRule(kind="percentiles", low=25, high=75)


def values(rule: IntensityRule, *intensities: float, dtype: type = np.float32) -> list[float]:
    """A row of voxels brought to [-1, 1]."""
    channel = np.array(intensities, dtype).reshape(1, 1, -1)
    return scale_of(channel, rule)(channel).ravel().tolist()


def test_a_window_is_the_same_for_every_image_and_what_lies_outside_is_clipped():
    assert values(CT, -1000, -160, 40, 140, 240, 3000) == [-1, -1, 0, 0.5, 1, 1]


def test_percentiles_are_those_of_the_voxels_that_are_not_zero():
    assert values(MR, 0, 0, 0, 10, 20, 30) == [-1, -1, -1, -1, 0, 1]
    assert values(MIDDLE, 0, 1, 2, 3, 4, 5) == [-1, -1, -1, 0, 1, 1]


def test_scale_and_offset_of_an_mr_image_do_not_count():
    image = np.random.default_rng(0).random((1, 4, 4, 4), np.float32) + 1
    np.testing.assert_allclose(normalise(image * 500, [MIDDLE]), normalise(image, [MIDDLE]), atol=1e-5)
    np.testing.assert_allclose(normalise(image + 3, [MIDDLE]), normalise(image, [MIDDLE]), atol=1e-5)


def test_each_channel_has_its_rule():
    image = np.stack([np.full((1, 1, 3), 40), np.array([[[10, 20, 30]]])])
    expected = [[[[0, 0, 0]]], [[[-1, 0, 1]]]]
    np.testing.assert_array_equal(normalise(image, [CT, MR]), expected)


@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_channel_is_the_darkest(value: float):
    assert values(MR, value, value) == [-1, -1]


def test_a_mask_of_two_values_keeps_both():
    usual = IntensityRule(kind="percentiles", low=0.5, high=99.5)
    assert values(usual, 0, 1, 1, 0, dtype=np.uint8) == [-1, 1, 1, -1]
    assert values(usual, -2, 0, 0) == [-1, 1, 1]
    assert values(usual, *[7] * 999, 9) == [-1] * 999 + [1]  # all but a few are equal


def test_negative_intensities_are_no_trouble():
    assert values(MR, -30, -20, -10) == [-1, 0, 1]


def test_the_result_is_float32_whatever_comes_in():
    for dtype in (np.uint8, np.int16, np.float32):
        array = np.array([[[[0, 100, 200]]]], dtype)
        assert normalise(array, [CT]).dtype == normalise(array, [MR]).dtype == np.float32


def test_a_rule_for_each_channel_is_needed():
    with pytest.raises(ValueError, match="shorter"):
        normalise(np.zeros((2, 1, 1, 1)), [CT])


def test_a_missing_channel_is_zero_in_the_middle_of_the_range():
    image = np.stack([np.full((1, 1, 3), 40), np.zeros((1, 1, 3)), np.array([[[10, 20, 30]]])])
    expected = [[[[0, 0, 0]]], [[[0, 0, 0]]], [[[-1, 0, 1]]]]
    np.testing.assert_array_equal(normalise(image, [CT, CT, MR], missing=(1,)), expected)
    np.testing.assert_array_equal(normalise(image, [CT, MR, MR], missing=(1,)), expected)
    assert normalise(image, [CT, CT, MR])[1].tolist() == [[[pytest.approx(-0.2)] * 3]]  # air, were it there
