"""Distances to the nearest voxel equal those of all pairs, whichever way they are found."""

from __future__ import annotations

import numpy as np
import pytest
from mask_pairs import ALL_PAIRS, MaskPair
from peak_memory import peak_bytes
from scipy.spatial.distance import cdist

from spadunet.evaluation import nearest
from spadunet.evaluation.nearest import finder, looks, nearest_mm, prefers_tree
from spadunet.spacing import Spacing

SMALL = [pair for pair in ALL_PAIRS if pair.prediction.sum() * pair.reference.sum() < 1e6]


@pytest.mark.parametrize("way", ["looks", "tree", "transform"])
@pytest.mark.parametrize("pair", SMALL, ids=[pair.name for pair in SMALL])
def test_nearest_of_all(pair: MaskPair, way: str, monkeypatch: pytest.MonkeyPatch):
    """Each way alone: with no look but at the voxel itself, all goes through the tree or the transform."""
    if way != "looks":
        monkeypatch.setattr(nearest, "NUM_LOOKS", 0)
        monkeypatch.setattr(nearest, "prefers_tree", lambda *numbers: way == "tree")
    positions_mm = [np.argwhere(mask) * np.asarray(pair.spacing_mm) for mask in (pair.prediction, pair.reference)]
    expected = cdist(*positions_mm).min(axis=1)
    found = nearest_mm(pair.prediction, pair.reference, pair.spacing_mm)
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.slow
def test_blocks_change_nothing_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch):
    """Noise all over the array, the most there can be to find, takes less than a distance transform of the array."""
    rng = np.random.default_rng(0)
    start, goal = rng.random((2, 40, 200, 200)) < 0.5
    goal[:, 20:] = False
    whole = nearest_mm(start, goal, (5.0, 0.7, 0.8))
    monkeypatch.setattr(nearest, "BLOCK", 50_000)
    assert np.array_equal(nearest_mm(start, goal, (5.0, 0.7, 0.8)), whole)
    assert peak_bytes(lambda: nearest_mm(start, goal, (5.0, 0.7, 0.8))) < 45 * start.size


def test_distances_are_those_of_a_distance_transform_to_the_bit():
    """Rounded as its differences of indices, not as differences of positions."""
    start, goal = np.zeros((2, 1, 1, 400), bool)
    start[..., 3::7], goal[..., 0] = True, True
    expected = np.arange(3, 400, 7) * 0.7
    assert nearest_mm(start, goal, (1.0, 1.0, 0.7)).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "spacing_mm", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.8), (0.3, 2.5, 1.1), (1e8, 1.0, 1.0), (1e-3, 1.0, 1e3)]
)
@pytest.mark.parametrize("shape", [(40, 40, 40), (1, 40, 40), (2, 3, 40), (1, 1, 1), (1, 1, 40)])
def test_looks_leave_out_no_nearer_voxel(spacing_mm: Spacing, shape: tuple[int, int, int]):
    offsets, offsets_mm = looks(shape, spacing_mm)
    assert offsets[0].tolist() == [0, 0, 0]
    assert np.array_equal(offsets_mm, np.sort(offsets_mm))
    assert len(offsets) <= 2 * nearest.NUM_LOOKS
    reach = [range(-min(9, size - 1), min(9, size - 1) + 1) for size in shape]
    around = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, 3)
    nearer = around[np.linalg.norm(around * np.asarray(spacing_mm), axis=1) < offsets_mm[-1] * (1 - 1e-9)]
    assert {tuple(it) for it in nearer.tolist()} <= {tuple(it) for it in offsets.tolist()}


def test_the_cheaper_way_is_taken():
    assert prefers_tree(5_000, 80_000, 3_000_000)  # a liver with a good prediction
    assert not prefers_tree(500_000, 500_000, 1_500_000)  # noise
    assert not prefers_tree(100_000, 100_000, 1_000_000)


def test_the_nearest_voxel_of_a_transform_is_as_near_as_that_of_a_tree(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    goal, spacing_mm = rng.random((9, 20, 21)) < 0.01, np.array([5.0, 0.7, 0.8])
    voxels = np.array(np.nonzero(rng.random(goal.shape) < 0.1))
    lengths = []
    for is_tree in (True, False):
        monkeypatch.setattr(nearest, "prefers_tree", lambda *numbers, answer=is_tree: answer)
        found = finder(goal, tuple(spacing_mm), voxels.shape[1])(voxels)
        assert goal[tuple(found)].all()
        lengths.append(nearest.length_mm(found - voxels, tuple(spacing_mm)))
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-12)
