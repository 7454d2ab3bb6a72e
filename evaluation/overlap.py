"""How much of two masks coincides."""

from __future__ import annotations

import numpy as np


def dice(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """Dice coefficient 2 |P and R| / (|P| + |R|): 1 for equal masks, 0 for disjoint ones (Dice 1945).

    None where both masks are empty: nothing was there to find, and nothing was found. One empty mask scores 0.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
    """
    check_masks(prediction, reference)
    num_voxels = np.count_nonzero(prediction) + np.count_nonzero(reference)
    if num_voxels == 0:
        return None
    return float(2 * np.count_nonzero(prediction & reference) / num_voxels)


def check_masks(prediction: np.ndarray, reference: np.ndarray) -> None:
    """Raise ValueError unless both are bool masks (D, H, W) of one shape."""
    for name, mask in (("prediction", prediction), ("reference", reference)):
        if mask.dtype != bool or mask.ndim != 3:
            raise ValueError(f"{name} must be a bool mask of 3 axes, not {mask.dtype} of shape {mask.shape}")
    if prediction.shape != reference.shape:
        raise ValueError(f"masks differ in shape: prediction {prediction.shape}, reference {reference.shape}")
