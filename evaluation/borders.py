"""Where the surface of a mask runs: its border voxels, or surface elements with an area.

An image of one slice is a plane: its border voxels are those with an outside neighbour in that plane, its surface
elements pieces of contour. (In 3D each of its voxels would touch the outside above and below, the border would be the
whole mask, and the mean distance much too small.)
"""

from __future__ import annotations

import numpy as np

from ..spacing import Spacing
from .element_areas import CORNERS, element_areas

Box = tuple[slice, ...]
"""One slice an axis."""


def border(mask: np.ndarray, *, image_edge_is_border: bool = True) -> np.ndarray:
    """Voxels of a mask that have a face neighbour outside it: the mask minus its erosion by the face neighbours.

    An axis of one voxel has no neighbours, unless all have one.

    Args:
        mask: bool (D, H, W).
        image_edge_is_border: beyond the array is outside the mask.

    Returns:
        Bool (D, H, W).
    """
    inner = mask.copy()
    for axis in [axis for axis, size in enumerate(mask.shape) if size > 1] or range(3):
        here, there = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        here[1:] &= there[:-1]
        here[:-1] &= there[1:]
        if image_edge_is_border:
            here[[0, -1]] = False
    return mask & ~inner


def surface_elements(mask: np.ndarray, spacing_mm: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Where the surface passes between voxel centres, and how much of it.

    Args:
        mask: bool (D, H, W).
        spacing_mm: voxel size along the mask's axes.

    Returns:
        The cubes of eight voxel centres that are neither all inside nor all outside, bool (D+1, H+1, W+1), beyond the
        array being outside; and the area in mm² in each of these, float64 (number of elements,). An axis of one
        voxel stays so, and the areas are lengths in mm.
    """
    flat = mask.shape.index(1) if 1 in mask.shape else None
    padded = np.pad(mask, [(0, 0) if axis == flat else (1, 1) for axis in range(3)])
    if flat is not None:
        padded = np.repeat(padded, 2, axis=flat)
    codes = np.zeros([size - 1 for size in padded.shape], np.uint8)
    for bit, corner in enumerate(CORNERS):
        window = tuple(slice(start, start + size) for start, size in zip(corner, codes.shape, strict=True))
        codes |= padded[window].view(np.uint8) << np.uint8(bit)
    elements = (codes != 0) & (codes != 255)
    d, h, w = (1.0 if axis == flat else float(step) for axis, step in enumerate(spacing_mm))
    return elements, element_areas((d, h, w))[codes[elements]]


def box_around(mask: np.ndarray) -> Box:
    """Bounding box of a bool mask that is not empty, widened by `widen`."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return widen(tuple(box))


def widen(box: Box) -> Box:
    """Slices of a box one voxel wider on each side; numpy cuts them at the array's end.

    Cropped to such a box, an array keeps an axis of one voxel only where it had one, so that `border` still tells a
    plane from a thin organ.
    """
    return tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
