"""How well the centrelines of tubes, such as vessels, are met."""

from __future__ import annotations

import numpy as np

from .overlap import check_masks


def cldice(prediction: np.ndarray, reference: np.ndarray) -> float | None:
    """Centreline Dice: harmonic mean of topology precision and topology sensitivity (Shit et al., CVPR 2021, eq. 1-3).

    Topology precision is the share of the prediction's skeleton that lies in the reference, topology sensitivity the
    share of the reference's skeleton that lies in the prediction. Skeletons are counted in voxels, whatever the
    spacing, as there; they are those of Zhang and Suen (1984) in a plane and of Lee et al. (1994) in space.

    None if a mask is empty. In an image of one slice along any axis the skeleton is that of its plane.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return None
    topology_precision = share_inside(prediction, reference)
    topology_sensitivity = share_inside(reference, prediction)
    total = topology_precision + topology_sensitivity
    return 2 * topology_precision * topology_sensitivity / total if total else 0.0


def share_inside(mask: np.ndarray, other: np.ndarray) -> float:
    """Share of a mask's skeleton that lies in another; bool masks (D, H, W), the first not empty."""
    skeleton = skeleton_of(mask)
    return float(np.count_nonzero(skeleton & other) / np.count_nonzero(skeleton))


def skeleton_of(mask: np.ndarray) -> np.ndarray:
    """Thin lines of one voxel's width within a bool mask (D, H, W); bool of the same shape.

    Thinning can leave nothing of a small even block (2 x 2 pixels); then the mask itself stands for its skeleton.
    """
    from skimage.morphology import skeletonize

    planes = [axis for axis, size in enumerate(mask.shape) if size == 1]
    inside = np.pad(mask.squeeze(planes[0]) if len(planes) == 1 else mask, 1)  # at the array's end it thins otherwise
    lines = skeletonize(inside)[(slice(1, -1),) * inside.ndim].reshape(mask.shape)
    return lines if lines.any() else mask
