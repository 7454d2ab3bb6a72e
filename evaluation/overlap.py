"""How much of two masks coincides.

All follows from three counts of voxels, so that the masks are looked through once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class VoxelCounts(NamedTuple):
    """Numbers of voxels in the prediction P, the reference R, and both."""

    prediction: int
    reference: int
    common: int


def count_overlap(prediction: np.ndarray, reference: np.ndarray) -> VoxelCounts:
    """Count what the metrics need.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
    """
    check_masks(prediction, reference)
    return VoxelCounts(
        prediction=int(np.count_nonzero(prediction)),
        reference=int(np.count_nonzero(reference)),
        common=int(np.count_nonzero(prediction & reference)),
    )


def dice(counts: VoxelCounts) -> float | None:
    """Dice coefficient 2 |P and R| / (|P| + |R|): 1 for equal masks, 0 for disjoint ones (Dice 1945).

    None where both masks are empty: nothing was there to find, and nothing was found. One empty mask scores 0.
    """
    return ratio(2 * counts.common, counts.prediction + counts.reference)


def iou(counts: VoxelCounts) -> float | None:
    """Intersection over union |P and R| / |P or R| (Jaccard 1912); defined as Dice is."""
    return ratio(counts.common, counts.prediction + counts.reference - counts.common)


def sensitivity(counts: VoxelCounts) -> float | None:
    """Share of the reference that was found, |P and R| / |R|, also called recall; None without a reference."""
    return ratio(counts.common, counts.reference)


def precision(counts: VoxelCounts) -> float | None:
    """Share of the prediction that is right, |P and R| / |P|; None without a prediction."""
    return ratio(counts.common, counts.prediction)


def ratio(part: int, whole: int) -> float | None:
    """Part of a whole; None of nothing."""
    return part / whole if whole else None


def check_masks(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Raise ValueError unless both are bool masks (D, H, W) of one shape."""
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != bool or mask.ndim != 3:
            raise ValueError(f"{name} must be a bool mask of 3 axes, not {mask.dtype} of shape {mask.shape}")
    if prediction.shape != reference.shape:
        raise ValueError(f"masks differ in shape: prediction {prediction.shape}, reference {reference.shape}")
