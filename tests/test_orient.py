"""Which axis is depth, and that nothing depends on how an image is stored."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from spadunet.image import Image, read_image
from spadunet.orient import (
    choose_axes,
    choose_upright_axes,
    ends_of_axes,
    nearest_patient_axes,
    orient,
    tells_orientation,
    unorient,
)
from spadunet.preprocessing.preprocess import orient_and_crop

DATA = Path(__file__).parent.parent / "spadunet/demo/data"
HIPPOCAMPUS = DATA / "Dataset004_Hippocampus/imagesTr/hippocampus_011_0000.nii.gz"
SUNNYBROOK = DATA / "Dataset101_SunnybrookLV/imagesTr/SC-N-02_ph00_0000.nii.gz"
AXIAL = np.eye(3)[[2, 1, 0]]  # the first array axis goes up, the second back, the third left
SAGITTAL = np.eye(3)  # left, back, up
CORONAL = np.eye(3)[[1, 0, 2]]  # the first array axis goes back, the second left, the third up
STORAGES = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def affine_of(directions: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Affine of array axes that go along the columns of `directions`."""
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing_mm)
    return affine


def store(image: Image, order: tuple[int, ...], flips: tuple[bool, ...]) -> Image:
    """The same voxels at the same places in the patient, stored with other axes."""
    array = image.array.transpose(0, *(1 + axis for axis in order))
    affine = image.affine[:, [*order, 3]].copy()
    for axis in (axis for axis in range(3) if flips[axis]):
        array = np.flip(array, 1 + axis)
        affine[:3, 3] += affine[:3, axis] * (array.shape[1 + axis] - 1)
        affine[:3, axis] *= -1
    return Image(array=array, affine=affine)


# --- which axis


@pytest.mark.parametrize(
    ("directions", "spacing_mm", "axes"),
    [
        (AXIAL, (5, 0.7, 0.7), (0, 1, 2)),
        (AXIAL, (0.8, 0.98, 0.98), (0, 1, 2)),  # a CT: not cut sagittally, though left–right is the coarsest
        (SAGITTAL, (0.98, 0.98, 0.8), (2, 1, 0)),
        (SAGITTAL, (0.7, 0.7, 5), (2, 1, 0)),  # axial slices stored last
        (SAGITTAL, (4, 1, 1), (0, 2, 1)),  # sagittal slices: up is height, back is width
        (CORONAL, (4, 1, 1), (0, 2, 1)),  # coronal slices: up is height, left is width
        (AXIAL, (1, 1, 1), (0, 1, 2)),
        (AXIAL, (1, 1, 1.99), (0, 1, 2)),  # below one degree of anisotropy
        (AXIAL, (1, 1, 2), (2, 0, 1)),  # from there on the coarsest
        (AXIAL, (1, 1, 1.9999), (2, 0, 1)),  # 2 in a float32 header
        (AXIAL, (4, 4, 1), (0, 1, 2)),  # of two equally coarse axes the one that goes up
    ],
)
def test_depth_is_the_coarsest_axis_if_slices_are_thick_and_else_goes_up(directions, spacing_mm, axes):
    assert choose_axes((20, 20, 20), affine_of(directions, spacing_mm)) == (axes, (False, False, False))


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (1, 8, 1), (8, 1, 1)])
def test_the_axis_of_a_single_slice_is_depth_whatever_its_thickness(spacing_mm: tuple[float, ...]):
    for axis in range(3):
        shape = tuple(1 if other == axis else 20 for other in range(3))
        assert choose_axes(shape, affine_of(AXIAL, spacing_mm))[0][0] == axis


def test_a_line_and_a_voxel_are_oriented_too():
    for shape in ((1, 1, 20), (20, 1, 1), (1, 1, 1)):
        axes, _ = choose_axes(shape, affine_of(AXIAL, (1, 1, 1)))
        assert axes == (0, 1, 2)


def test_oblique_axes_follow_the_patient_axis_that_is_nearest():
    angle = np.deg2rad(40)
    tilted = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    assert nearest_patient_axes(affine_of(tilted, (1, 1, 1))) == (0, 1, 2)
    assert choose_axes((9, 9, 9), affine_of(tilted @ AXIAL, (1, 1, 1))) == ((0, 1, 2), (False, False, False))
    # Turned by 50 instead of 40 degrees, the other way round is nearer.
    further = tilted[:, [0, 2, 1]]
    assert nearest_patient_axes(affine_of(further, (1, 1, 1))) == (0, 2, 1)


def test_each_patient_axis_is_taken_once_even_where_two_array_axes_are_near_it():
    columns = np.array([[0.8, 0.7, 0.1], [0.6, 0.0, 0.7], [0.0, 0.714, 0.7]])
    assert sorted(nearest_patient_axes(affine_of(columns, (1, 1, 1)))) == [0, 1, 2]


# --- turning


def test_an_array_is_turned_and_flipped_by_hand():
    array = np.arange(6).reshape(1, 2, 3)
    turned = orient(array, (2, 0, 1), (False, False, True))
    np.testing.assert_array_equal(turned, [[[3, 0]], [[4, 1]], [[5, 2]]])


@pytest.mark.parametrize(("axes", "flips"), STORAGES)
def test_turning_back_undoes_turning_with_any_axes_in_front(axes, flips):
    array = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(unorient(orient(array, axes, flips), axes, flips), array)
    np.testing.assert_array_equal(unorient(orient(array[0], axes, flips), axes, flips), array[0])


@pytest.mark.parametrize("path", [HIPPOCAMPUS, SUNNYBROOK], ids=["hippocampus", "hearts"])
def test_real_images_are_the_same_however_they_are_stored(path: Path):
    image = read_image([path])
    image = Image(array=image.array[:, :, 40:50:2, 20:34:2], affine=image.affine)
    expected = orient_and_crop(image)
    for order, flips in STORAGES:
        oriented = orient_and_crop(store(image, order, flips))
        np.testing.assert_array_equal(oriented.array, expected.array)
        assert oriented.spacing_mm == expected.spacing_mm


def test_a_thick_oblique_image_is_the_same_however_it_is_stored():
    rng = np.random.default_rng(0)
    angle = np.deg2rad(25)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = affine_of(turn @ turn[[2, 0, 1]][:, [2, 0, 1]] @ AXIAL, (3, 1, 0.9))
    image = Image(array=rng.random((1, 3, 4, 5), np.float32) + 1, affine=affine)
    for order, flips in STORAGES:
        oriented = orient_and_crop(store(image, order, flips))
        np.testing.assert_array_equal(oriented.array, image.array)
        assert oriented.spacing_mm == pytest.approx((3, 1, 0.9))


@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, CORONAL], ids=["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("depth_mm", [1.0, 5.0])
def test_however_it_is_stored_an_upright_image_has_the_head_above(directions, depth_mm: float):
    array = np.zeros((1, 5, 6, 7), np.float32)
    affine = affine_of(directions, (depth_mm, 1.0, 1.0))
    up = nearest_patient_axes(affine).index(2)
    array[0][tuple(-1 if axis == up else slice(None) for axis in range(3))] = 1  # the head
    for order, flips in STORAGES:
        image = store(Image(array=array, affine=affine), order, flips)
        axes, turned = choose_upright_axes(image.shape, image.affine)
        assert axes == choose_axes(image.shape, image.affine)[0]
        upright = orient(image.array[0], axes, turned)
        superior = axes.index(nearest_patient_axes(image.affine).index(2))
        assert np.take(upright, 0, axis=superior).all()
        assert not np.take(upright, -1, axis=superior).any()


def test_sides_of_the_patient_follow_the_file_however_it_is_stored():
    """An axial stack from the feet upwards, rows to the back, columns to the left: and the same one flipped."""
    affine = np.eye(4)[[2, 1, 0, 3]] * np.array([3.0, 1.0, 1.0, 1.0])
    as_stored = ends_of_axes(affine, (0, 1, 2), (False, False, False))
    assert as_stored == (("I", "S"), ("A", "P"), ("R", "L"))
    assert ends_of_axes(affine, (0, 2, 1), (True, False, True)) == (("S", "I"), ("R", "L"), ("P", "A"))
    axes, flips = choose_upright_axes((20, 40, 40), affine)
    assert ends_of_axes(affine, axes, flips) == (("S", "I"), ("A", "P"), ("R", "L"))


def test_oblique_axes_have_a_letter_for_each_direction_that_they_lean_to():
    turn = np.eye(4)
    angle = np.radians(30)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.eye(4)[[2, 1, 0, 3]]
    ends = ends_of_axes(affine, (0, 1, 2), (True, False, False))
    assert ends == (("SA", "IP"), ("AI", "PS"), ("R", "L"))


def test_only_a_file_that_says_more_than_its_spacing_tells_its_orientation():
    as_stored = np.eye(4)[[2, 1, 0, 3]] * np.array([3.0, 1.0, 1.0, 1.0])
    assert not tells_orientation(as_stored)
    moved = as_stored.copy()
    moved[0, 3] = -120.0
    assert tells_orientation(moved)
