"""Cropping to the part of an image that holds anything."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..spacing import Shape

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and past-the-last voxel by (depth, height, width)."""


def nonzero_box(array: np.ndarray) -> Box:
    """Smallest box of (C, D, H, W) outside which every channel is zero; the whole array if all of it is zero."""
    mask = (array != 0).any(axis=0)  # (D, H, W)
    if not mask.any():
        depth, height, width = mask.shape
        return (0, depth), (0, height), (0, width)
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    depth_side, height_side, width_side = ((int(side.start), int(side.stop)) for side in box)
    return depth_side, height_side, width_side


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """(…, D, H, W) to the box, as a view."""
    depth, height, width = (slice(first, last) for first, last in box)
    return array[..., depth, height, width]


def uncrop(array: np.ndarray, box: Box, shape: Shape) -> np.ndarray:
    """Put (…, d, h, w) back at its place in zeros of (…, *shape)."""
    whole = np.zeros((*array.shape[:-3], *shape), dtype=array.dtype)
    crop(whole, box)[...] = array
    return whole
