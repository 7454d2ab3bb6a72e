"""Cropping to the part of an image that holds anything."""

from __future__ import annotations

import numpy as np

from ..image import shape_of
from ..spacing import Shape

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First and past-the-last voxel by (depth, height, width)."""


def nonzero_box(array: np.ndarray) -> Box:
    """Smallest box of (C, D, H, W) outside which every channel is zero; the whole array if all of it is zero."""
    if not array.any():
        return whole_box(shape_of(array))
    sides = []
    for axis in (1, 2, 3):  # plane by plane from both ends: most images are not zero at their first
        first = next(index for index in range(array.shape[axis]) if array.take(index, axis).any())
        last = next(index for index in reversed(range(array.shape[axis])) if array.take(index, axis).any())
        array = array[(slice(None),) * axis + (slice(first, last + 1),)]
        sides.append((first, last + 1))
    return sides[0], sides[1], sides[2]


def whole_box(shape: Shape) -> Box:
    """The box that crops nothing of (D, H, W)."""
    depth, height, width = shape
    return (0, depth), (0, height), (0, width)


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """(…, D, H, W) to the box, as a view."""
    depth, height, width = (slice(first, last) for first, last in box)
    return array[..., depth, height, width]


def uncrop(array: np.ndarray, box: Box, shape: Shape) -> np.ndarray:
    """Put (…, d, h, w) back at its place in zeros of (…, *shape)."""
    whole = np.zeros((*array.shape[:-3], *shape), dtype=array.dtype)
    crop(whole, box)[...] = array
    return whole
