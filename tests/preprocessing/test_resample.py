"""Resampling by hand, and against the libraries that nnU-Net resamples with."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.transform import resize

from spadunet.image import read_image, read_label_map
from spadunet.preprocessing import resample
from spadunet.preprocessing.resample import (
    CUBIC,
    LINEAR,
    NEAREST,
    axis_operator,
    blocks_of,
    combine_slices,
    resample_array,
    resample_classes,
    resample_image,
    resample_in_plane,
    shape_at,
    spline_orders,
)
from spadunet.spacing import Shape

DATA = Path(__file__).parent.parent.parent / "spadunet/demo/data"
HIPPOCAMPUS = DATA / "Dataset004_Hippocampus/imagesTr/hippocampus_011_0000.nii.gz"
LABELS = DATA / "Dataset004_Hippocampus/labelsTr/hippocampus_011.nii.gz"
SUNNYBROOK = DATA / "Dataset101_SunnybrookLV/imagesTr/SC-N-02_ph00_0000.nii.gz"
ALL_LINEAR, ALL_CUBIC = (LINEAR,) * 3, (CUBIC,) * 3


def row(*values: int) -> np.ndarray:
    """A label array of one row."""
    return np.array(values, np.uint8).reshape(1, 1, -1)


# --- one axis


def test_linear_interpolation_by_hand():
    # The centres of the four new voxels lie at -0.25, 0.25, 0.75 and 1.25 old ones.
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_allclose(axis_operator(2, 4, LINEAR), expected, atol=1e-7)
    np.testing.assert_allclose(axis_operator(4, 2, LINEAR), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], atol=1e-7)


def test_nearest_neighbour_repeats_and_drops_slices():
    np.testing.assert_array_equal(axis_operator(2, 6, NEAREST), np.repeat(np.eye(2), 3, axis=0))
    np.testing.assert_array_equal(axis_operator(6, 2, NEAREST), np.eye(6)[[1, 4]])


@pytest.mark.parametrize("order", [NEAREST, LINEAR, CUBIC])
def test_the_operator_of_the_same_size_is_the_identity(order: int):
    np.testing.assert_allclose(axis_operator(7, 7, order), np.eye(7), atol=1e-7)


@pytest.mark.parametrize("order", [NEAREST, LINEAR, CUBIC])
@pytest.mark.parametrize(("size", "new_size"), [(1, 1), (1, 5), (5, 1), (2, 3), (7, 4), (48, 61)])
def test_weights_sum_to_one_so_that_a_constant_stays(order: int, size: int, new_size: int):
    operator = axis_operator(size, new_size, order)
    assert (operator.shape, operator.dtype) == ((new_size, size), np.float32)
    np.testing.assert_allclose(operator.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("order", [NEAREST, LINEAR, CUBIC])
def test_the_operator_is_symmetric_from_left_and_right(order: int):
    operator = axis_operator(9, 7, order)
    np.testing.assert_allclose(operator, operator[::-1, ::-1], atol=1e-6)


@pytest.mark.parametrize("order", [NEAREST, LINEAR, CUBIC])
@pytest.mark.parametrize(("size", "new_size"), [(200, 333), (333, 200), (150, 150), (1, 70), (70, 1)])
def test_blocks_are_the_whole_operator_though_most_of_it_is_left_out(order: int, size: int, new_size: int):
    operator = axis_operator(size, new_size, order)
    whole = np.zeros_like(operator)
    blocks = blocks_of(size, new_size, order)
    for block in blocks:
        whole[block.rows, block.columns] = block.weights
    np.testing.assert_array_equal(whole, operator)
    exact = ndimage.zoom(np.eye(size), (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(operator, exact, atol=2e-7)
    if min(size, new_size) >= 150:
        assert sum(block.weights.size for block in blocks) < operator.size / 1.5


# --- volumes


def test_a_real_volume_is_resampled_as_by_scikit_image_and_scipy():
    image = read_image([HIPPOCAMPUS]).array
    shape = (40, 41, 45)  # finer, coarser, finer
    tolerance = 1e-3 * np.ptp(image)
    ours = resample_image(image, shape, ALL_CUBIC)[0]
    nnunet = resize(image[0].astype(float), shape, order=3, mode="edge", anti_aliasing=False, clip=True)
    inside = (slice(2, -2),) * 3
    np.testing.assert_allclose(ours[inside], nnunet[inside], rtol=0, atol=tolerance)
    zoom = [new / old for new, old in zip(shape, image.shape[1:], strict=True)]
    scipy = ndimage.zoom(image[0].astype(float), zoom, order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(ours, scipy.clip(image.min(), image.max()), rtol=0, atol=tolerance)


@pytest.mark.parametrize("shape", [(40, 41, 45), (20, 60, 36), (31, 50, 36), (31, 50, 20), (62, 50, 36)])
@pytest.mark.parametrize("order", [NEAREST, CUBIC])
def test_slabs_are_those_of_the_whole_volume(monkeypatch, shape: Shape, order: int):
    image = read_image([HIPPOCAMPUS]).array
    labels = read_label_map(LABELS).array
    orders = (order, CUBIC, CUBIC)
    whole = resample_image(image, shape, orders)
    classes = resample_classes(labels, shape, (min(order, LINEAR), LINEAR, LINEAR))
    monkeypatch.setattr(resample, "SLAB_VOXELS", 3 * shape[1] * shape[2])
    assert len(list(resample.slabs_of(shape))) > 5
    np.testing.assert_allclose(resample_image(image, shape, orders), whole, rtol=0, atol=1e-6 * np.ptp(image))
    np.testing.assert_array_equal(resample_classes(labels, shape, (min(order, LINEAR), LINEAR, LINEAR)), classes)


def test_intensities_are_prepared_slab_by_slab(monkeypatch):
    image = read_image([HIPPOCAMPUS]).array
    seen = []

    def halve(part: np.ndarray) -> np.ndarray:
        seen.append(part.size)
        return part / 2

    monkeypatch.setattr(resample, "SLAB_VOXELS", 4 * 41 * 45)
    prepared = resample_image(image, (40, 41, 45), ALL_CUBIC, prepare=[halve], dtype=np.float16)
    assert prepared.dtype == np.float16
    assert max(seen) < image.size
    expected = resample_image(image / 2, (40, 41, 45), ALL_CUBIC)
    np.testing.assert_allclose(prepared, expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))


def test_a_volume_is_never_held_in_float(monkeypatch):
    image = np.zeros((1, 400, 160, 160), np.int16)
    image[:, ::7] = 100
    shape = (410, 170, 170)  # 47 MB in float32
    resample_image(image[:, :2], (2, 170, 170), ALL_CUBIC)  # the operators are kept
    axis_operator(400, 410, CUBIC)
    monkeypatch.setattr(resample, "SLAB_VOXELS", 1 << 19)
    tracemalloc.start()
    try:
        result = resample_image(image, shape, ALL_CUBIC, dtype=np.float16)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - result.nbytes < 8 * 4 * resample.SLAB_VOXELS < 4 * result.size / 2


def test_a_gpu_gets_the_same_products():
    torch = pytest.importorskip("torch")
    slab = np.random.default_rng(0).random((5, 30, 40), np.float32)
    for axis, size in ((1, 47), (2, 33)):
        blocks = blocks_of(slab.shape[axis], size, CUBIC)
        ours = resample_in_plane(slab, axis, blocks)
        theirs = resample_in_plane(torch.from_numpy(slab), axis, blocks)
        np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-6)
    for order in (NEAREST, CUBIC):
        weights = axis_operator(5, 8, order)
        theirs = combine_slices(torch.from_numpy(slab), weights, order)
        np.testing.assert_allclose(theirs.numpy(), combine_slices(slab, weights, order), atol=1e-6)


@pytest.mark.gpu
def test_a_gpu_resamples_as_the_processor():
    image = read_image([HIPPOCAMPUS]).array
    ours = resample_image(image, (40, 41, 45), ALL_CUBIC)
    np.testing.assert_allclose(
        resample_image(image, (40, 41, 45), ALL_CUBIC, device="cuda"), ours, rtol=0, atol=1e-5 * np.ptp(image)
    )


def test_thick_slices_are_resampled_in_plane_one_by_one():
    image = read_image([SUNNYBROOK]).array[:, :4, 100:150, 100:150]
    ours = resample_image(image, (8, 40, 60), spline_orders((8, 1.25, 1.25), (4, 1.5625, 1.04), CUBIC))[0]
    for index, number in enumerate([0, 0, 1, 1, 2, 2, 3, 3]):
        nnunet = resize(image[0, number].astype(float), (40, 60), order=3, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(ours[index, 2:-2, 2:-2], nnunet[2:-2, 2:-2], rtol=0, atol=0.255)


@pytest.mark.parametrize(
    ("spacing_mm", "new_spacing_mm", "order"),
    [((1, 1, 1), (1, 1, 1), CUBIC), ((1.9, 1, 1), (1.5, 1, 1), CUBIC), ((8, 1, 1), (1, 1, 1), NEAREST)]
    + [((1, 1, 1), (2, 1, 1), NEAREST), ((1, 1, 4), (1, 1, 1), CUBIC)],
)
def test_depth_is_nearest_where_slices_are_thick_before_or_after(spacing_mm, new_spacing_mm, order: int):
    assert spline_orders(spacing_mm, new_spacing_mm, CUBIC) == (order, CUBIC, CUBIC)


def test_the_order_of_the_axes_does_not_count():
    array = np.random.default_rng(0).random((5, 7, 9), np.float32)
    shape = (8, 5, 9)
    turned = resample_array(array.transpose(2, 0, 1), (9, 8, 5), ALL_CUBIC)
    np.testing.assert_allclose(turned.transpose(1, 2, 0), resample_array(array, shape, ALL_CUBIC), atol=1e-5)
    flipped = resample_array(array[:, ::-1], shape, ALL_CUBIC)
    np.testing.assert_allclose(flipped[:, ::-1], resample_array(array, shape, ALL_CUBIC), atol=1e-5)


def test_each_channel_stays_in_its_range_though_splines_overshoot():
    step = np.zeros((2, 8, 8, 8), np.float32)
    step[0, :, :, 4:] = 1
    step[1, :, :, 4:] = -5
    assert resample_array(step[0], (8, 8, 13), ALL_CUBIC).max() > 1.01
    image = resample_image(step, (8, 8, 13), ALL_CUBIC)
    assert [channel.min() for channel in image] == [0, -5]
    assert [channel.max() for channel in image] == [1, 0]


def test_an_axis_of_one_voxel_is_repeated():
    image = np.array([[[[1, 3]]]], np.float32)
    expected = np.broadcast_to([1, 1.5, 2.5, 3], (1, 2, 3, 4))
    np.testing.assert_allclose(resample_image(image, (2, 3, 4), (CUBIC, CUBIC, LINEAR)), expected)


def test_nothing_is_changed_at_the_same_shape():
    image = np.array([[[[0.1, 1e6]]]], np.float32)
    classes = row(0, 5)
    assert resample_image(image, (1, 1, 2), ALL_CUBIC).tolist() == image.tolist()
    assert resample_classes(classes, (1, 1, 2), ALL_LINEAR).tolist() == classes.tolist()
    assert resample_image(image.astype(np.int16), (1, 1, 2), ALL_CUBIC).dtype == np.float32


# --- labels


def test_classes_are_interpolated_one_by_one():
    # No class 1 between 0 and 2, as rounding an interpolated label map would give.
    assert resample_classes(row(0, 2), (1, 1, 4), ALL_LINEAR).ravel().tolist() == [0, 0, 2, 2]
    assert resample_classes(row(3, 1, 2), (1, 1, 6), ALL_LINEAR).ravel().tolist() == [3, 3, 1, 1, 2, 2]


@pytest.mark.parametrize("shape", [(40, 41, 45), (20, 60, 36), (31, 99, 17)])
@pytest.mark.parametrize("depth_order", [NEAREST, LINEAR])
def test_boxes_give_what_whole_volumes_give(shape: Shape, depth_order: int):
    classes = read_label_map(LABELS).array.astype(np.uint8)
    classes[classes == 2] = 7  # a gap in the numbers
    classes[3:5, 4:9, 4:9] = 250
    orders = (depth_order, LINEAR, LINEAR)
    shares = np.stack([resample_array(classes == number, shape, orders) for number in (0, 1, 7, 250)])
    expected = np.array([0, 1, 7, 250])[shares.argmax(axis=0)]
    is_clear = np.diff(np.sort(shares, axis=0)[-2:], axis=0)[0] > 1e-5
    ours = resample_classes(classes, shape, orders)
    np.testing.assert_array_equal(ours[is_clear], expected[is_clear])
    assert is_clear.mean() > 0.99


def test_the_earlier_class_wins_a_draw():
    assert resample_classes(row(0, 1), (1, 1, 1), ALL_LINEAR).ravel().tolist() == [0]
    assert resample_classes(row(2, 1), (1, 1, 1), ALL_LINEAR).ravel().tolist() == [1]


def test_slices_of_labels_are_repeated_where_thick():
    classes = np.array([1, 0, 2], np.uint8).reshape(3, 1, 1)
    orders = spline_orders((6, 1, 1), (3, 1, 1), LINEAR)
    assert resample_classes(classes, (6, 1, 1), orders).ravel().tolist() == [1, 1, 0, 0, 2, 2]


def test_labels_keep_their_type_and_an_empty_map_stays_empty():
    classes = np.zeros((3, 3, 3), np.uint16)
    resampled = resample_classes(classes, (5, 2, 1), ALL_LINEAR)
    assert (resampled.dtype, resampled.shape, resampled.any()) == (np.uint16, (5, 2, 1), False)


# --- shape


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "new_spacing_mm", "expected"),
    [
        ((10, 256, 256), (8, 1.25, 1.25), (8, 1, 1), (10, 320, 320)),
        ((10, 256, 256), (8, 1.25, 1.25), (4, 2.5, 2.5), (20, 128, 128)),
        ((3, 3, 3), (1, 1, 1), (100, 2, 1), (1, 2, 3)),
        ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    ],
)
def test_the_extent_stays_and_no_axis_vanishes(shape, spacing_mm, new_spacing_mm, expected):
    assert shape_at(shape, spacing_mm, new_spacing_mm) == expected
