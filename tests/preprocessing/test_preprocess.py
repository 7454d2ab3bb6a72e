"""Image and plan to case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spadunet.case import Case
from spadunet.image import Image, LabelMap, read_image, read_label_map
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.preprocessing.preprocess import orient_and_crop, preprocess, target_spacing
from spadunet.spacing import MAX_DA

DATA = Path(__file__).parent.parent.parent / "spadunet/demo/data"
LABELS = LabelSet(names=("background", "liver"), ids=(0, 63))
AXIAL = np.eye(4)[[2, 1, 0, 3]]  # the first array axis goes up, the second back, the third left


def plan_of(target_spacing_mm="native", labels: LabelSet = LABELS, num_channels: int = 1) -> Plan:
    """A plan for images from 0 to 4, where 2 becomes zero."""
    return Plan(
        dataset_name="X",
        channel_names=tuple(f"T{index}" for index in range(num_channels)),
        intensity=(IntensityRule(kind="window", low=0, high=4),) * num_channels,
        target_spacing_mm=target_spacing_mm,
        degree_of_anisotropy=0,
        patch_sizes_voxels=dict.fromkeys(range(MAX_DA + 1), (8, 8, 8)),
        labels=labels,
        memory_gb=1,
        fingerprint_digest="0",
    )


def make(array: np.ndarray, affine: np.ndarray = AXIAL, labels: np.ndarray | None = None, plan=None) -> Case:
    """Preprocess an image in memory."""
    image = Image(array=np.asarray(array, np.float32), affine=affine)
    label_map = None if labels is None else LabelMap(array=labels, affine=affine)
    return preprocess("a", image, label_map, plan or plan_of())


def test_an_image_is_turned_cropped_and_normalised_by_hand():
    # Stored left-right, front-back, up-down, with 5 mm slices that run from head to foot.
    affine = np.diag([1.0, 1.0, -5.0, 1.0])
    array = np.zeros((1, 2, 3, 4))
    array[0, 1, 0, 2], array[0, 1, 2, 1] = 4, 2
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[1, 2, 1] = 63
    case = make(array, affine, labels)
    # Depth runs upwards: stored slice 2 first, slice 1 second; of left–right only the second column holds anything.
    np.testing.assert_array_equal(case.image, [[[[1], [-1], [-1]], [[-1], [-1], [0]]]])
    np.testing.assert_array_equal(case.classes, [[[0], [0], [0]], [[0], [0], [1]]])
    geometry = case.geometry
    assert (geometry.axes, geometry.flips) == ((2, 1, 0), (True, False, False))
    assert geometry.crop == ((1, 3), (0, 3), (1, 2))
    assert (geometry.stored_shape, geometry.shape, geometry.spacing_mm) == ((2, 3, 4), (2, 3, 1), (5, 1, 1))
    assert geometry.da == 2


def test_a_target_spacing_changes_shape_and_spacing_alike():
    case = make(np.ones((1, 4, 6, 6)), np.diag([1.0, 1, 1, 1]) @ AXIAL, np.full((4, 6, 6), 63), plan_of((2, 1, 3)))
    assert (case.geometry.shape, case.geometry.spacing_mm) == ((2, 6, 2), (2, 1, 3))
    np.testing.assert_allclose(case.image, -0.5, atol=1e-6)
    assert case.classes is not None
    assert (case.classes == 1).all()


def test_native_keeps_spacing_and_voxels():
    array = np.random.default_rng(0).integers(1, 5, (1, 4, 5, 6))
    case = make(array)
    np.testing.assert_array_equal(case.image, array / 2 - 1)
    assert case.geometry.shape == (4, 5, 6)


def test_a_single_slice_keeps_its_thickness():
    assert target_spacing(plan_of((2, 1, 1)), (7, 0.5, 0.5), num_slices=1) == (7, 1, 1)
    assert target_spacing(plan_of((2, 1, 1)), (7, 0.5, 0.5), num_slices=2) == (2, 1, 1)
    case = make(np.ones((1, 1, 6, 6)), np.diag([0.5, 0.5, 7.0, 1]) @ AXIAL, plan=plan_of((2, 1, 1)))
    assert (case.geometry.shape, case.geometry.spacing_mm, case.geometry.da) == ((1, 3, 3), (7, 1, 1), MAX_DA)


def test_an_image_of_zeros_is_kept_whole_and_dark():
    case = make(np.zeros((1, 2, 3, 4)), labels=np.zeros((2, 3, 4), np.uint8))
    assert (case.image == -1).all()
    assert case.geometry.shape == (2, 3, 4)
    assert case.classes is not None
    assert not case.classes.any()


def test_without_labels_there_are_no_classes():
    assert make(np.ones((1, 2, 3, 4))).classes is None


def test_the_box_holds_every_channel():
    array = np.zeros((2, 3, 3, 3))
    array[0, 0, 1, 1] = array[1, 2, 1, 1] = 1
    assert orient_and_crop(Image(array=array, affine=AXIAL)).box == ((0, 3), (1, 2), (1, 2))


@pytest.mark.parametrize("spacing_mm", ["native", (1.0, 0.7, 1.3)])
def test_a_missing_channel_stays_zero_and_takes_no_part_in_the_box(spacing_mm):
    array = np.zeros((3, 4, 6, 6), np.float32)
    array[1, :, 2:5, 1:] = np.random.default_rng(0).uniform(1, 4, (4, 3, 5))
    image = Image(array=array, affine=AXIAL, missing_channels=(0, 2))
    case = preprocess("a", image, None, plan_of(spacing_mm, num_channels=3))
    assert case.missing_channels == (0, 2)
    assert case.geometry.crop == ((0, 4), (2, 5), (1, 6))
    assert not case.image[[0, 2]].any()
    alone = preprocess("a", Image(array=array[1:2], affine=AXIAL), None, plan_of(spacing_mm))
    np.testing.assert_array_equal(case.image[1:2], alone.image)


def test_ignored_voxels_become_the_class_after_the_last():
    labels = LabelSet(names=LABELS.names, ids=LABELS.ids, ignore_id=9)
    case = make(np.ones((1, 1, 1, 3)), labels=np.array([[[0, 9, 63]]]), plan=plan_of(labels=labels))
    assert case.classes is not None
    assert case.classes.ravel().tolist() == [0, 2, 1]


def test_labels_that_the_plan_does_not_know_are_refused():
    with pytest.raises(ValueError, match=r"^label values \[5\] are not among \[0, 63\]$"):
        make(np.ones((1, 1, 1, 2)), labels=np.array([[[0, 5]]]))


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("Dataset004_Hippocampus/{}/hippocampus_011", (31, 50, 36)),
        ("Dataset101_SunnybrookLV/{}/SC-N-02_ph00", (9, 256, 256)),
    ],
)
def test_real_images_become_cases_with_their_labels_in_place(path: str, shape: tuple[int, ...]):
    image = read_image([DATA / f"{path.format('imagesTr')}_0000.nii.gz"])
    label_map = read_label_map(DATA / f"{path.format('labelsTr')}.nii.gz")
    labels = LabelSet(names=("background", "a", "b"), ids=(0, 1, 2))
    rule = IntensityRule(kind="percentiles", low=0.5, high=99.5)
    plan = plan_of(labels=labels).model_copy(update={"intensity": (rule,)})
    case = preprocess("a", image, label_map, plan)
    assert case.image.dtype == np.float32
    assert (case.image.min(), case.image.max()) == (-1, 1)
    assert all(size <= limit for size, limit in zip(case.geometry.shape, shape, strict=True))
    assert case.classes is not None
    assert np.bincount(case.classes.ravel()).tolist()[1:] == np.bincount(label_map.array.ravel()).tolist()[1:]


def test_intensities_do_not_depend_on_whether_a_case_is_resampled():
    grid = np.stack(np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij"))
    is_inside = np.linalg.norm(grid, axis=0) < 9  # a ball of tissue, 900 to 1100, on exact zeros
    tissue = 1000 + 100 * np.sin(grid[0] / 3)
    image = Image(array=np.where(is_inside, tissue, 0)[None].astype(np.float32), affine=AXIAL)
    rule = (IntensityRule(kind="percentiles", low=0.5, high=99.5),)
    plans = [plan_of(spacing).model_copy(update={"intensity": rule}) for spacing in ("native", (0.8, 0.8, 0.8))]
    native, resampled = (preprocess("a", image, None, plan).image[0] for plan in plans)
    middle = [array[tuple(size // 2 for size in array.shape)] for array in (native, resampled)]
    assert middle[1] == pytest.approx(middle[0], abs=0.1)  # +0.5 where the spline's ringing counted as foreground
