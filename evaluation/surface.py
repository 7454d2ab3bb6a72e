"""How far apart the borders of two masks lie.

Letters: P, R numbers of border voxels of prediction and reference.

A mask's border is its voxels that have a face neighbour outside; beyond the array counts as outside. That is the
mask minus its erosion, as in MedPy and MONAI. An image of one slice is a plane: its border voxels are those with an
outside neighbour in that plane. (In 3D each of its voxels would touch the outside above and below, the border would
be the whole mask, and the mean distance much too small.)

Each border voxel finds the nearest of the other border by a KD-tree over millimetres: as exact as a distance
transform, at the cost of the borders instead of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

from ..spacing import Shape, Spacing
from .overlap import check_masks

Box = tuple[slice, ...]
"""One slice an axis."""


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distance in mm from each border voxel of one mask to the nearest border voxel of the other, float64.

    `to_reference_mm` (P,) starts at the prediction's border, `to_prediction_mm` (R,) at the reference's. Both are
    empty if either mask is.
    """

    to_reference_mm: np.ndarray
    to_prediction_mm: np.ndarray


def surface_distances_mm(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing) -> SurfaceDistances:
    """Distances between the borders of two masks, in both directions.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).
        spacing_mm: voxel size along the masks' axes.

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
    """
    check_masks(prediction, reference)
    if not prediction.any() or not reference.any():
        return SurfaceDistances(to_reference_mm=np.zeros(0), to_prediction_mm=np.zeros(0))
    box = box_around(prediction | reference)
    prediction_mm = border_points_mm(prediction[box], spacing_mm)  # (P, 3)
    reference_mm = border_points_mm(reference[box], spacing_mm)  # (R, 3)
    return SurfaceDistances(
        to_reference_mm=KDTree(reference_mm).query(prediction_mm)[0],
        to_prediction_mm=KDTree(prediction_mm).query(reference_mm)[0],
    )


def assd_mm(distances: SurfaceDistances) -> float | None:
    """Average symmetric surface distance: the mean over the border voxels of both masks; None if either is empty.

    Pooled, as in Heimann et al. 2009, MONAI, and MedPy since 0.5. The mean of the two directed means (MedPy up to
    0.4, https://github.com/loli/medpy/issues/108) gives a voxel of the smaller border more weight.
    """
    pooled = np.concatenate([distances.to_reference_mm, distances.to_prediction_mm])
    return float(pooled.mean()) if pooled.size else None


def hd_mm(distances: SurfaceDistances) -> float | None:
    """Hausdorff distance: the largest distance in either direction; None if either mask is empty."""
    if not distances.to_reference_mm.size:
        return None
    return float(max(distances.to_reference_mm.max(), distances.to_prediction_mm.max()))


def box_around(mask: np.ndarray) -> Box:
    """Bounding box of a bool mask that is not empty, widened by `widen`."""
    return widen(find_objects(mask.view(np.uint8))[0])


def widen(box: Box) -> Box:
    """Slices of a box one voxel wider on each side; numpy cuts them at the array's end.

    Cropped to such a box, an array keeps an axis of one voxel only where it had one, so that `border` still tells a
    plane from a thin organ.
    """
    return tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)


def border(mask: np.ndarray) -> np.ndarray:
    """Border voxels of a bool mask (D, H, W), bool of the same shape; an axis of one voxel has no neighbours."""
    return mask & ~binary_erosion(mask, structure=face_neighbours(mask.shape))


def face_neighbours(shape: Shape) -> np.ndarray:
    """A voxel and its face neighbours, bool (3, 3, 3), along the axes that have more than one voxel.

    For an array of a single voxel along all axes, so that this voxel has a border.
    """
    axes = [axis for axis, size in enumerate(shape) if size > 1] or [0, 1, 2]
    neighbours = np.zeros((3, 3, 3), bool)
    for axis in axes:
        index: list[int | slice] = [1, 1, 1]
        index[axis] = slice(None)
        neighbours[tuple(index)] = True
    return neighbours


def border_points_mm(mask: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Positions of the border voxels along the mask's axes, float64 (number of border voxels, 3)."""
    return np.argwhere(border(mask)) * np.asarray(spacing_mm)
