"""Overlaps of masks whose voxels can be counted by hand, then equality with MedPy and MONAI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import spadunet
from spadunet.evaluation.overlap import VoxelCounts, count_overlap, dice, iou, precision, sensitivity
from spadunet.evaluation.volume import ravd_percent, rvd_percent, volume_ml
from spadunet.image import read_label_map

DEMO_LABELS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/labelsTs"
METRICS = (dice, iou, sensitivity, precision, ravd_percent)


def mask_of(*positions: tuple[int, int, int], shape: tuple[int, int, int] = (2, 3, 4)) -> np.ndarray:
    """A bool mask that is true at these positions."""
    mask = np.zeros(shape, bool)
    for position in positions:
        mask[position] = True
    return mask


def test_voxels_are_counted_in_each_mask_and_in_both():
    counts = count_overlap(mask_of((0, 0, 0), (0, 0, 1)), mask_of((0, 0, 1), (0, 0, 2), (1, 2, 3)))
    assert counts == VoxelCounts(prediction=2, reference=3, common=1)


def test_one_voxel_of_two_within_three():
    counts = VoxelCounts(prediction=2, reference=3, common=1)
    assert dice(counts) == 2 / 5
    assert iou(counts) == 1 / 4
    assert sensitivity(counts) == 1 / 3
    assert precision(counts) == 1 / 2
    assert ravd_percent(counts) == pytest.approx(100 / 3)


def test_equal_masks_and_disjoint_ones():
    equal, disjoint = VoxelCounts(4, 4, 4), VoxelCounts(4, 4, 0)
    assert [metric(equal) for metric in METRICS] == [1, 1, 1, 1, 0]
    assert [metric(disjoint) for metric in METRICS] == [0, 0, 0, 0, 0]


def test_one_empty_mask_scores_zero_where_there_is_something_to_divide_by_and_two_are_not_defined():
    assert [metric(VoxelCounts(0, 4, 0)) for metric in METRICS] == [0, 0, 0, None, 100]
    assert [metric(VoxelCounts(4, 0, 0)) for metric in METRICS] == [0, 0, None, 0, None]
    assert [metric(VoxelCounts(0, 0, 0)) for metric in METRICS] == [None] * 5


def test_volumes_are_in_millilitres_and_differences_without_sign():
    assert volume_ml(2000, (5.0, 0.5, 0.4)) == 2.0  # of 1 mm3 each
    assert volume_ml(0, (5.0, 0.5, 0.4)) == 0
    assert (rvd_percent(VoxelCounts(6, 4, 3)), rvd_percent(VoxelCounts(2, 4, 2))) == (50, -50)
    assert (rvd_percent(VoxelCounts(0, 4, 0)), rvd_percent(VoxelCounts(4, 0, 0))) == (-100, None)
    assert ravd_percent(VoxelCounts(6, 4, 3)) == ravd_percent(VoxelCounts(2, 4, 2)) == 50


def test_swapping_and_flipping_change_nothing():
    rng = np.random.default_rng(0)
    prediction, reference = rng.random((2, 5, 6, 7)) < 0.4
    there, back = count_overlap(prediction, reference), count_overlap(reference, prediction)
    assert (dice(there), iou(there), sensitivity(there)) == (dice(back), iou(back), precision(back))
    assert count_overlap(prediction[::-1, :, ::-1], reference[::-1, :, ::-1]) == there


# --- MedPy and MONAI


def pairs_of_masks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sparse, even, dense, thin, one in the other, equal, disjoint, of one voxel, empty; in space and in a plane."""
    rng = np.random.default_rng(1)
    for shape in ((9, 8, 7), (1, 20, 30)):
        for share in (0.01, 0.3, 0.9):
            prediction, reference = rng.random((2, *shape)) < share
            yield prediction, reference
        yield prediction & reference, reference
        yield reference, reference
        yield ~reference, reference
        yield np.zeros_like(reference), reference
        yield prediction, np.zeros_like(prediction)
        yield np.zeros_like(prediction), np.zeros_like(prediction)
        yield mask_of((0, 1, 1), shape=shape), mask_of((0, 1, 1), shape=shape)
        yield mask_of((0, 1, 1), shape=shape), reference
        line = np.zeros(shape, bool)
        line[0, :, 3] = True
        yield line, np.roll(line, 1, axis=1) & reference


def real_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hippocampi against themselves shifted by a voxel."""
    for path in sorted(DEMO_LABELS.glob("*.nii.gz"))[:4]:
        array = read_label_map(path).array
        for label in (1, 2):
            yield array == label, np.roll(array, 1, axis=1) == label


PAIRS = [*pairs_of_masks(), *real_pairs()]


@pytest.mark.parametrize(
    ("metric", "name"), [(dice, "dc"), (iou, "jc"), (sensitivity, "sensitivity"), (precision, "precision")]
)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # MedPy's
def test_overlaps_equal_medpy_where_there_is_something_to_divide_by(
    metric: Callable[[VoxelCounts], float | None], name: str
):
    for prediction, reference in PAIRS:
        own = metric(count_overlap(prediction, reference))
        value = getattr(pytest.importorskip("medpy.metric.binary"), name)(prediction, reference)
        if own is None:
            assert np.isnan(value) or value in (0, 1)  # by version and metric; where both masks are empty, jc is 1
        else:
            assert own == value


def test_ravd_is_medpys_without_sign_and_in_per_cent():
    binary = pytest.importorskip("medpy.metric.binary")
    signs = set()
    for prediction, reference in PAIRS:
        counts = count_overlap(prediction, reference)
        if not counts.reference:
            with pytest.raises(RuntimeError):
                binary.ravd(prediction, reference)
            assert ravd_percent(counts) is rvd_percent(counts) is None
            continue
        signed = binary.ravd(prediction, reference)  # below zero where the prediction is the smaller
        signs.add(float(np.sign(signed)))
        assert ravd_percent(counts) == pytest.approx(100 * abs(signed), rel=1e-15)
        assert rvd_percent(counts) == pytest.approx(100 * signed, rel=1e-15)
    assert signs == {-1.0, 0.0, 1.0}


def monai_dice(prediction: np.ndarray, reference: np.ndarray, *, ignore_empty: bool) -> np.float32:
    """Dice by MONAI, which computes in float32; with `ignore_empty` an empty reference gives nan."""
    import torch
    from monai.metrics.meandice import compute_dice

    masks = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in (prediction, reference)]
    return np.float32(compute_dice(*masks, include_background=True, ignore_empty=ignore_empty).item())


def test_dice_is_monais_to_the_last_digit_of_its_float32():
    for prediction, reference in PAIRS:
        own = dice(count_overlap(prediction, reference))
        expected = monai_dice(prediction, reference, ignore_empty=False)
        assert (np.float32(1) if own is None else np.float32(own)) == expected  # MONAI gives 1 where both are empty


def test_monai_unless_told_leaves_false_alarms_out_as_it_does_classes_that_are_absent():
    voxel, nothing = mask_of((0, 0, 0)), mask_of()
    assert np.isnan(monai_dice(nothing, nothing, ignore_empty=True))
    assert np.isnan(monai_dice(voxel, nothing, ignore_empty=True))
    assert dice(count_overlap(nothing, nothing)) is None
    assert dice(count_overlap(voxel, nothing)) == 0


@pytest.mark.parametrize(
    ("prediction", "reference", "message"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool), "prediction must be a bool mask of 3 axes, not float64"),
        (np.zeros((2, 2, 2), bool), np.zeros((2, 2), bool), r"reference must be .* of shape \(2, 2\)"),
        (np.zeros((2, 2, 2), bool), np.zeros((2, 2, 1), bool), r"prediction \(2, 2, 2\), reference \(2, 2, 1\)"),
    ],
)
def test_wrong_masks_are_named(prediction: np.ndarray, reference: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        count_overlap(prediction, reference)
