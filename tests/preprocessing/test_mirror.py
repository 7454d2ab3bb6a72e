"""Which axis of the array is left to right follows from the affine."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.image import Image
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.preprocessing.mirror import mirror_axes, tell_unoriented
from spadunet.preprocessing.preprocess import preprocess
from spadunet.sides import PATIENT_AXES

KIDNEYS = LabelSet(names=("background", "left kidney", "right kidney"), ids=(0, 1, 2))
LR, AP, SI = PATIENT_AXES


def geometry_of(shape, affine: np.ndarray):
    """Of a case at its own spacing."""
    plan = Plan(
        dataset_name="A",
        channel_names=("CT",),
        intensity=(IntensityRule(kind="window", low=0, high=1),),
        target_spacing_mm="native",
        degree_of_anisotropy=0,
        patch_sizes_voxels=dict.fromkeys(range(7), (4, 4, 4)),
        labels=KIDNEYS,
        memory_gb=1,
        fingerprint_digest="",
    )
    return preprocess("a", Image(array=np.ones((1, *shape), np.float32), affine=affine), None, plan).geometry


def affine_of(*directions: int, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Storage axes that run along patient axes 1 left, 2 posterior, 3 superior; negative ones the other way."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, direction in enumerate(directions):
        affine[abs(direction) - 1, axis] = np.sign(direction) * spacing[axis]
    affine[:3, 3] = (5, 6, 7)
    return affine


@pytest.mark.parametrize(
    ("directions", "spacing", "expected"),
    [
        ((3, 2, 1), (1, 1, 1), {LR: 2, AP: 1, SI: 0}),
        ((1, 2, 3), (1, 1, 1), {LR: 2, AP: 1, SI: 0}),  # stored the other way round: the same array
        ((-2, 3, -1), (1, 1, 1), {LR: 2, AP: 1, SI: 0}),
        ((1, 3, 2), (5, 1, 1), {LR: 0, SI: 1, AP: 2}),  # thick sagittal slices
        ((2, 3, 1), (5, 1, 1), {AP: 0, SI: 1, LR: 2}),  # thick coronal slices
    ],
)
def test_the_axis_is_that_of_the_patient(directions, spacing, expected):
    geometry = geometry_of((6, 7, 8), affine_of(*directions, spacing=spacing))
    for axis, array_axis in expected.items():
        (found,) = mirror_axes(geometry, KIDNEYS, [axis])
        assert found.array_axis == array_axis
        assert found.labels.classes == ((0, 2, 1) if axis == LR else (0, 1, 2))


def test_axes_that_labels_forbid_and_axes_of_one_voxel_are_left_out():
    geometry = geometry_of((6, 7, 8), affine_of(3, 2, 1))
    one_kidney = LabelSet(names=("background", "left kidney", "posterior wall"), ids=(0, 1, 2))
    assert [axis.array_axis for axis in mirror_axes(geometry, one_kidney, PATIENT_AXES)] == [0]
    assert mirror_axes(geometry, KIDNEYS, []) == ()
    slice_geometry = geometry_of((1, 7, 8), affine_of(3, 2, 1))
    assert [axis.array_axis for axis in mirror_axes(slice_geometry, KIDNEYS, PATIENT_AXES)] == [1, 2]


def test_in_a_picture_the_user_decides():
    picture = geometry_of((1, 7, 8), np.eye(4)[[2, 1, 0, 3]])
    assert [(axis.array_axis, axis.labels.classes) for axis in mirror_axes(picture, KIDNEYS, [LR])] == [(2, (0, 2, 1))]
    for wanted in (AP, SI):
        assert [axis.array_axis for axis in mirror_axes(picture, KIDNEYS, [wanted])] == [1]
    upper = LabelSet(names=("background", "upper lobe"), ids=(0, 1))
    assert mirror_axes(picture, upper, [AP]) == ()  # its height may be superior to inferior
    assert [axis.array_axis for axis in mirror_axes(picture, upper, PATIENT_AXES)] == [2]


def test_a_stack_without_orientation_is_mirrored_only_where_no_name_tells_a_side():
    stack = geometry_of((6, 7, 8), np.eye(4)[[2, 1, 0, 3]] * [2, 1, 1, 1])
    assert mirror_axes(stack, KIDNEYS, PATIENT_AXES) == ()
    assert tell_unoriented([stack, stack], KIDNEYS).startswith("images without orientation, not mirrored")
    cells = LabelSet(names=("background", "nucleus"), ids=(0, 1))
    assert [axis.array_axis for axis in mirror_axes(stack, cells, [LR])] == [2]
    assert [axis.array_axis for axis in mirror_axes(stack, cells, PATIENT_AXES)] == [0, 1, 2]
    assert tell_unoriented([stack], cells) == ""
    assert tell_unoriented([geometry_of((6, 7, 8), affine_of(3, 2, 1))], KIDNEYS) == ""
