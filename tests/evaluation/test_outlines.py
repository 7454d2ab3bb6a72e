"""Outlines say exactly which pixels a mask has."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from spadunet.evaluation.outlines import LETTERS, STEPS, outline_slice, trace
from spadunet.labels import LabelSet, Region


def refill(outlines: str, shape: tuple[int, int]) -> np.ndarray:
    """The mask whose outlines these are: pixel centres that an odd number of them surround."""
    rows, columns = np.indices(shape)
    centres = np.stack([2 * columns.ravel() + 1, 2 * rows.ravel() + 1], axis=1)
    inside = np.zeros(len(centres), bool)
    for outline in outlines.split():
        x, y, letters = outline.split(",")
        codes = [LETTERS.tobytes().decode().index(letter) for letter in letters]
        steps = np.array([STEPS[part] for code in codes for part in divmod(code, 8)])
        points = np.concatenate([[[0, 0]], np.cumsum(steps, axis=0)]) + (int(x), int(y))
        assert np.abs(points[-1] - points[0]).max() <= 2  # it comes back to where it began
        inside ^= Polygon(points).contains_points(centres)
    return inside.reshape(shape)


def ring() -> np.ndarray:
    mask = np.zeros((9, 12), bool)
    mask[1:8, 2:11] = True
    mask[3:6, 4:8] = False
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        np.eye(5, dtype=bool)[[2]][:, 1:],  # one pixel of one row
        np.ones((1, 1), bool),
        np.ones((4, 7), bool),  # touches every edge
        ring(),
        np.eye(6, dtype=bool),  # corners touch
        np.random.default_rng(0).random((40, 33)) < 0.5,
    ],
    ids=["pixel", "all of it", "whole picture", "ring", "diagonal", "noise"],
)
def test_a_mask_can_be_filled_again_from_its_outlines(mask: np.ndarray):
    np.testing.assert_array_equal(refill(trace(mask), mask.shape), mask)


def test_an_empty_mask_has_no_outline():
    assert trace(np.zeros((4, 5), bool)) == ""


def test_a_region_is_outlined_as_one_and_only_what_is_there_is_outlined():
    labels = LabelSet(
        names=("background", "core", "rim", "other"),
        ids=(0, 1, 2, 5),
        regions=(
            Region(name="whole", ids=(1, 2), painted_id=2),
            Region(name="core", ids=(1,), painted_id=1),
            Region(name="other", ids=(5,), painted_id=5),
        ),
    )
    ids = np.zeros((8, 8), np.uint8)
    ids[1:7, 1:7] = 2
    ids[3:5, 3:5] = 1
    found = dict(outline_slice(ids, dict(enumerate(labels.structures))))
    assert list(found) == [0, 1]
    np.testing.assert_array_equal(refill(found[0], ids.shape), ids > 0)
    np.testing.assert_array_equal(refill(found[1], ids.shape), ids == 1)
