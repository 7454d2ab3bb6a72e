"""Dice of masks whose voxels can be counted by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from spadunet.evaluation.overlap import dice


def mask_of(*positions: tuple[int, int, int], shape: tuple[int, int, int] = (2, 3, 4)) -> np.ndarray:
    """A bool mask that is true at these positions."""
    mask = np.zeros(shape, bool)
    for position in positions:
        mask[position] = True
    return mask


def test_two_voxels_of_which_one_is_shared_score_a_half():
    assert dice(mask_of((0, 0, 0), (0, 0, 1)), mask_of((0, 0, 1), (0, 0, 2))) == 0.5  # 2 · 1 / (2 + 2)


def test_one_voxel_within_three_scores_a_half():
    assert dice(mask_of((0, 0, 1)), mask_of((0, 0, 0), (0, 0, 1), (0, 0, 2))) == 0.5  # 2 · 1 / (1 + 3)


def test_equal_masks_score_one_and_disjoint_ones_zero():
    assert dice(mask_of((1, 2, 3)), mask_of((1, 2, 3))) == 1.0
    assert dice(mask_of((1, 2, 3)), mask_of((0, 0, 0))) == 0.0


def test_one_empty_mask_scores_zero_and_two_are_not_defined():
    assert dice(mask_of(), mask_of((0, 0, 0))) == 0.0
    assert dice(mask_of((0, 0, 0)), mask_of()) == 0.0
    assert dice(mask_of(), mask_of()) is None


def test_swapping_and_flipping_change_nothing():
    rng = np.random.default_rng(0)
    prediction, reference = rng.random((2, 5, 6, 7)) < 0.4
    expected = dice(prediction, reference)
    assert dice(reference, prediction) == expected
    assert dice(prediction[::-1, :, ::-1], reference[::-1, :, ::-1]) == expected


def pairs_of_masks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prediction and reference: sparse, even, dense, one inside the other, and one of them empty."""
    rng = np.random.default_rng(1)
    for share in (0.01, 0.3, 0.9):
        prediction, reference = rng.random((2, 9, 8, 7)) < share
        yield prediction, reference
    yield prediction & reference, reference
    yield np.zeros_like(reference), reference
    yield prediction, np.zeros_like(prediction)


PAIRS = list(pairs_of_masks())


def monai_dice(prediction: np.ndarray, reference: np.ndarray, *, ignore_empty: bool) -> float:
    """Dice by MONAI, which computes in float32; with `ignore_empty` an empty reference gives nan."""
    import torch
    from monai.metrics.meandice import compute_dice

    masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]  # (1, 1, D, H, W)
    return float(compute_dice(*masks, include_background=True, ignore_empty=ignore_empty))


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_dice_equals_medpy(prediction: np.ndarray, reference: np.ndarray):
    binary = pytest.importorskip("medpy.metric.binary")
    assert dice(prediction, reference) == pytest.approx(binary.dc(prediction, reference), abs=1e-12)


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_dice_equals_monai(prediction: np.ndarray, reference: np.ndarray):
    assert dice(prediction, reference) == pytest.approx(monai_dice(prediction, reference, ignore_empty=False), rel=1e-6)


def test_where_both_masks_are_empty_monai_gives_nan_and_we_give_none():
    assert np.isnan(monai_dice(mask_of(), mask_of(), ignore_empty=True))
    assert dice(mask_of(), mask_of()) is None


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
        dice(prediction, reference)
