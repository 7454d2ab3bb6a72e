"""clDice of tubes whose centrelines can be drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spadunet.evaluation.centreline import cldice, skeleton_of


def tube(length: int, width: int = 1, shape: tuple[int, int, int] = (9, 9, 20)) -> np.ndarray:
    """A straight tube along the last axis, its centreline at (4, 4)."""
    mask = np.zeros(shape, bool)
    side = slice(4 - width // 2, 4 + width // 2 + 1)
    mask[side, side, 2 : 2 + length] = True
    return mask


def test_a_line_half_as_long_is_precise_and_half_sensitive():
    whole, half = tube(12), tube(6)
    assert cldice(half, whole) == pytest.approx(2 * 1 * 0.5 / 1.5)  # topology precision 1, sensitivity 6 / 12
    assert cldice(whole, half) == cldice(half, whole)


def test_a_tube_of_another_width_with_the_same_centreline_scores_one():
    assert cldice(tube(12, 3), tube(12)) == 1
    assert cldice(tube(12), tube(12, 3)) == 1


def test_tubes_beside_each_other_score_zero():
    assert cldice(tube(12), np.roll(tube(12), 3, axis=0)) == 0


@pytest.mark.parametrize("empty", ["prediction", "reference", "both"])
def test_an_empty_mask_has_no_centreline(empty: str):
    nothing = np.zeros((9, 9, 20), bool)
    prediction = tube(5) if empty == "reference" else nothing
    reference = tube(5) if empty == "prediction" else nothing
    assert cldice(prediction, reference) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 2), (4, 4, 4), (1, 2, 2), (2, 1, 2), (1, 1, 5), (3, 3, 3)])
def test_every_block_has_a_skeleton_within_it(shape: tuple[int, int, int]):
    """scikit-image thins a square of 2 x 2 pixels to nothing."""
    block = np.zeros(tuple(size + 4 for size in shape), bool)
    block[2:-2, 2:-2, 2:-2] = True
    for mask in (block, np.ones(shape, bool)):
        skeleton = skeleton_of(mask)
        assert skeleton.any()
        assert not (skeleton & ~mask).any()
        assert cldice(mask, mask) == 1


def test_a_mask_at_the_arrays_end_has_the_skeleton_that_it_has_elsewhere():
    rng = np.random.default_rng(0)
    mask = gaussian_filter(rng.normal(size=(12, 13, 14)), 1.5) > 0
    assert np.array_equal(skeleton_of(mask), skeleton_of(np.pad(mask, 3))[3:-3, 3:-3, 3:-3])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_slice_is_thinned_in_its_plane(axis: int):
    from skimage.morphology import skeletonize

    rng = np.random.default_rng(1)
    plane = gaussian_filter(rng.normal(size=(30, 40)), 2) > 0
    expected = skeletonize(np.pad(plane, 1))[1:-1, 1:-1]
    assert np.array_equal(skeleton_of(np.expand_dims(plane, axis)), np.expand_dims(expected, axis))
    assert 0 < expected.sum() < plane.sum() / 3
