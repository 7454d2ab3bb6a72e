"""There and back: what preprocessing did to a grid is undone, wherever and however it was stored."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.case import Case
from spadunet.image import Image, LabelMap
from spadunet.labels import LabelSet, Region
from spadunet.plan import IntensityRule, Plan
from spadunet.preprocessing.preprocess import preprocess
from spadunet.preprocessing.probabilities import HALF
from spadunet.preprocessing.restore import Restorer, restore_logits
from spadunet.spacing import MAX_DA

LABELS = LabelSet(names=("background", "liver", "tumour"), ids=(0, 63, 7))
REGIONS = LABELS.model_copy(
    update={
        "regions": (Region(name="organ", ids=(63, 7), painted_id=63), Region(name="tumour", ids=(7,), painted_id=7))
    }
)
ANGLE = np.deg2rad(25)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
AXIAL = np.eye(3)[[2, 1, 0]]  # the first array axis goes up, the second back, the third left
STORAGES = {
    "axial": AXIAL,
    "flipped": AXIAL * [-1, 1, -1],
    "sagittal": np.eye(3)[:, [0, 2, 1]] * [1, -1, 1],
    "coronal": np.eye(3)[:, [1, 2, 0]] * [1, -1, 1],
    "oblique": TURN @ TURN[[2, 0, 1]][:, [2, 0, 1]] @ AXIAL,
}


def plan_of(target_spacing_mm) -> Plan:
    """A plan with one CT window."""
    return Plan(
        dataset_name="X",
        channel_names=("CT",),
        intensity=(IntensityRule(kind="window", low=0, high=4),),
        target_spacing_mm=target_spacing_mm,
        degree_of_anisotropy=0,
        patch_sizes_voxels=dict.fromkeys(range(MAX_DA + 1), (8, 8, 8)),
        labels=LABELS,
        memory_gb=1,
        fingerprint_digest="0",
    )


def ball(directions: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[Image, LabelMap]:
    """A body of 17 mm radius with a liver of 13 mm and in it a tumour of 7 mm, in a box of 42 mm of air."""
    shape = tuple(round(42 / side) for side in spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing_mm)
    affine[:3, 3] = (-31.7, 12.25, 400.5)
    position_mm = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T  # (A0, A1, A2, 3), from the first voxel
    centre_mm = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    distance_mm = np.linalg.norm(position_mm - centre_mm, axis=-1)
    labels = np.select([distance_mm < 7, distance_mm < 13], [7, 63], 0).astype(np.int16)
    image = np.where(distance_mm < 17, np.maximum(4 - distance_mm / 10, 1), 0).astype(np.float32)
    return Image(array=image[None], affine=affine), LabelMap(array=labels, affine=affine)


def restore(case: Case) -> LabelMap:
    """The label map of a case whose classes were predicted without doubt."""
    assert case.classes is not None
    logits = np.moveaxis(np.eye(3, dtype=np.float32)[case.classes], -1, 0)  # (K, D, H, W)
    return restore_logits(logits, case.geometry, LABELS)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks."""
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("target_spacing_mm", ["native", (1.5, 1.5, 1.5)])
def test_a_label_map_comes_back_exactly_where_nothing_was_resampled(name: str, target_spacing_mm):
    image, label_map = ball(STORAGES[name], (1.5, 1.5, 1.5))
    case = preprocess("a", image, label_map, plan_of(target_spacing_mm))
    assert case.geometry.cropped_shape != case.geometry.oriented_shape
    restored = restore(case)
    np.testing.assert_array_equal(restored.array, label_map.array)
    np.testing.assert_array_equal(restored.affine, label_map.affine)


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize(
    ("spacing_mm", "target_spacing_mm", "da"),
    [
        ((1.4, 1, 1.2), (1, 1.3, 0.8), 0),
        ((4, 1, 1), (4, 1.5, 0.75), 1),
        ((1, 1, 4), (4, 1.5, 0.75), 1),  # thick along another storage axis
    ],
)
def test_a_ball_survives_resampling_and_the_grid_is_the_stored_one(name: str, spacing_mm, target_spacing_mm, da: int):
    image, label_map = ball(STORAGES[name], spacing_mm)
    case = preprocess("a", image, label_map, plan_of(target_spacing_mm))
    assert case.geometry.da == (2 if da else 0)
    restored = restore(case)
    np.testing.assert_array_equal(restored.affine, label_map.affine)
    assert restored.shape == label_map.shape
    for id_ in (63, 7):
        assert dice(restored.array == id_, label_map.array == id_) > 0.95


def test_scores_go_to_their_place_and_background_around_by_hand():
    # Stored from foot to head reversed; only the two voxels in the middle of five hold anything.
    array = np.zeros((1, 4, 1, 5), np.float32)
    array[0, 1:3, 0, 2] = 4
    affine = np.eye(4)[[2, 1, 0, 3]] @ np.diag([-3.0, 1, 1, 1])
    case = preprocess("a", Image(array=array, affine=affine), None, plan_of("native"))
    assert case.geometry.shape == (1, 2, 1)  # one row of five columns: the axis of one voxel is depth
    logits = np.array([[0, 5], [1, 0], [2, 0]], np.float32).reshape(3, 1, 2, 1)
    restored = restore_logits(logits, case.geometry, LABELS)
    expected = np.zeros((4, 1, 5), np.uint8)
    expected[2, 0, 2] = 7  # the first voxel going up is the last in storage; class 2 has the id 7
    np.testing.assert_array_equal(restored.array, expected)


def test_a_single_voxel_and_an_empty_map_come_back():
    for shape in ((1, 1, 1), (1, 4, 5), (3, 4, 5)):
        image = Image(array=np.zeros((1, *shape), np.float32), affine=np.diag([2.0, 3.0, 1.0, 1.0]))
        label_map = LabelMap(array=np.zeros(shape, np.uint8), affine=image.affine)
        case = preprocess("a", image, label_map, plan_of((1, 1, 1)))
        restored = restore(case)
        np.testing.assert_array_equal(restored.array, label_map.array)


@pytest.mark.parametrize("target_spacing_mm", ["native", (1.3, 1.3, 1.3)])
def test_regions_come_back_as_the_ids_they_are_painted_with(target_spacing_mm):
    image, label_map = ball(STORAGES["oblique"], (1.5, 1.5, 1.5))
    case = preprocess("a", image, label_map, plan_of(target_spacing_mm))
    assert case.classes is not None
    logits = np.stack([case.classes > 0, case.classes == LABELS.names.index("tumour")]) * 2.0 - 1  # (R, D, H, W)
    restored = restore_logits(logits, case.geometry, REGIONS)
    assert set(np.unique(restored.array).tolist()) == {0, 63, 7}
    for ids in ((63, 7), (7,)):
        assert dice(np.isin(restored.array, ids), np.isin(label_map.array, ids)) > 0.95


def probabilities_of(labels: LabelSet, storage: str, target_spacing_mm, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a ball, of noise as logits that come three planes at a time; and its label map's ids."""
    image, _ = ball(STORAGES[storage], (1.5, 1.5, 1.5))
    geometry = preprocess("a", image, None, plan_of(target_spacing_mm)).geometry
    logits = np.random.default_rng(0).normal(0, 1, (labels.num_outputs, *geometry.shape)).astype(np.float32)
    restorer = Restorer(geometry, labels, axis, keeps_probabilities=True)
    for first in range(0, geometry.shape[axis], 3):
        restorer.add(logits[(slice(None),) * (1 + axis) + (slice(first, first + 3),)])
    plain = Restorer(geometry, labels, axis)
    plain.add(logits)
    found = restorer.label_map().array
    assert np.array_equal(found, plain.label_map().array)
    assert plain.probabilities is None
    assert restorer.probabilities is not None
    assert restorer.probabilities.shape == (labels.num_outputs, *image.shape)
    assert geometry.cropped_shape != geometry.oriented_shape
    assert (restorer.probabilities[0, 0] == (0 if labels.regions else 1)).all()  # air beyond the body
    assert (restorer.probabilities[1:, 0] == 0).all()
    return restorer.probabilities, found


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("target_spacing_mm", "axis"), [("native", 0), ((2.0, 1.2, 1.7), 0), ((1.2, 1.7, 1.2), 2)])
def test_the_largest_probability_is_that_of_the_label_map_on_the_stored_grid(storage: str, target_spacing_mm, axis):
    found, ids = probabilities_of(LABELS, storage, target_spacing_mm, axis)
    np.testing.assert_array_equal(LABELS.to_ids(found.argmax(axis=0)), ids)
    np.testing.assert_allclose(found.astype(np.float64).sum(axis=0), 1, atol=5e-4)


@pytest.mark.parametrize("target_spacing_mm", ["native", (2.0, 1.2, 1.7)])
def test_regions_above_one_half_are_those_that_are_painted(target_spacing_mm):
    found, ids = probabilities_of(REGIONS, "oblique", target_spacing_mm, 1)
    np.testing.assert_array_equal(np.where(found[1] > HALF, 7, np.where(found[0] > HALF, 63, 0)), ids)
