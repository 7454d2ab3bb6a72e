"""Boxes around what is not zero."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.preprocessing.crop import crop, nonzero_box, uncrop


def test_the_box_is_the_smallest_around_any_channel():
    array = np.zeros((2, 4, 5, 6))
    array[0, 1, 2, 3] = -1
    array[1, 2, 2, 5] = 7
    assert nonzero_box(array) == ((1, 3), (2, 3), (3, 6))


def test_an_image_of_zeros_is_kept_whole():
    assert nonzero_box(np.zeros((1, 4, 5, 6))) == ((0, 4), (0, 5), (0, 6))


def test_a_single_voxel_of_a_single_slice_is_a_box():
    array = np.zeros((1, 1, 5, 6))
    array[0, 0, 4, 0] = 1
    assert nonzero_box(array) == ((0, 1), (4, 5), (0, 1))


def test_an_image_without_zeros_is_kept_whole():
    assert nonzero_box(np.ones((3, 4, 5, 6))) == ((0, 4), (0, 5), (0, 6))


@pytest.mark.parametrize("lead", [(), (2,)])
def test_cropping_and_putting_back_keep_what_is_in_the_box(lead: tuple[int, ...]):
    array = np.zeros((*lead, 4, 5, 6), np.uint8)
    array[..., 1:3, 2:5, 3:4] = 9
    box = ((1, 3), (2, 5), (3, 4))
    part = crop(array, box)
    assert part.shape == (*lead, 2, 3, 1)
    whole = uncrop(part, box, (4, 5, 6))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, array)
