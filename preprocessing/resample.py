"""Resampling as one small dense operator an axis, applied as matrix products.

The interpolation is that of nnU-Net (Isensee et al. 2021): a cubic spline for images, linear for each class of a
label map, nearest neighbour along an axis with thick slices. Letters: C channels, K classes; D, H, W depth, height,
width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import ndimage

from ..spacing import Shape, Spacing, degree_of_anisotropy

CUBIC, LINEAR, NEAREST = 3, 1, 0


@functools.lru_cache(maxsize=64)
def axis_operator(size: int, new_size: int, order: int) -> np.ndarray:
    """Matrix (new_size, size), float32, that interpolates along one axis; voxel edges of both grids coincide.

    Built by resampling the identity, so that it is SciPy's spline to the last digit.
    """
    identity = np.eye(size)
    operator = ndimage.zoom(identity, (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    return np.ascontiguousarray(operator, dtype=np.float32)


def resample_array(array: np.ndarray, shape: Shape, orders: tuple[int, int, int]) -> np.ndarray:
    """(D, H, W) to `shape`, float32, with a spline order for each axis."""
    array = np.asarray(array, dtype=np.float32)
    axes = sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis])  # shrink first: fewer products
    for axis in axes:
        if shape[axis] != array.shape[axis]:
            operator = axis_operator(array.shape[axis], shape[axis], orders[axis])
            array = np.moveaxis(np.tensordot(operator, array, axes=(1, axis)), 0, axis)
    return array


def spline_orders(spacing_mm: Spacing, new_spacing_mm: Spacing, order: int) -> tuple[int, int, int]:
    """The order in plane; nearest neighbour along depth where slices are thick (DA ≥ 1) before or after."""
    is_thick = max(degree_of_anisotropy(spacing_mm), degree_of_anisotropy(new_spacing_mm)) >= 1
    return (NEAREST if is_thick else order), order, order


def resample_image(image: np.ndarray, shape: Shape, orders: tuple[int, int, int]) -> np.ndarray:
    """(C, D, H, W) to (C, *shape), float32, kept within each channel's range: splines overshoot."""
    if image.shape[1:] == shape:
        return image.astype(np.float32)
    channels = [resample_array(channel, shape, orders).clip(channel.min(), channel.max()) for channel in image]
    return np.stack(channels)  # (C, D', H', W')


def resample_classes(classes: np.ndarray, shape: Shape, orders: tuple[int, int, int]) -> np.ndarray:
    """Class numbers (D, H, W) to `shape`: each class interpolated by itself, the largest wins."""
    if classes.shape == shape:
        return classes
    return largest(
        ((number, classes == number) for number in np.unique(classes).tolist()), shape, orders, classes.dtype
    )


def largest_of_logits(logits: np.ndarray, shape: Shape, orders: tuple[int, int, int]) -> np.ndarray:
    """Logits (K, D, H, W) to class numbers of `shape`, one class in memory at a time."""
    dtype = np.uint8 if len(logits) <= 256 else np.uint16
    return largest(enumerate(logits), shape, orders, np.dtype(dtype))


def paint_positive(
    logits: np.ndarray, numbers: Sequence[int], shape: Shape, orders: tuple[int, int, int]
) -> np.ndarray:
    """Logits of regions (R, D, H, W) to class numbers of `shape`, one region in memory at a time.

    Each region is painted with its number where its logit is above 0, the later over the earlier.
    """
    result = np.zeros(shape, np.min_scalar_type(max(numbers)))
    for number, logit in zip(numbers, logits, strict=True):
        result[resample_array(logit, shape, orders) > 0] = number
    return result


def largest(
    scores: Iterable[tuple[int, np.ndarray]], shape: Shape, orders: tuple[int, int, int], dtype: np.dtype
) -> np.ndarray:
    """Number of the score map (D, H, W) that is largest at each voxel of `shape`; the earlier one where equal."""
    result = np.zeros(shape, dtype)
    best = np.full(shape, -np.inf, np.float32)
    for number, score in scores:
        score = resample_array(score, shape, orders)
        is_better = score > best
        result[is_better] = number
        best[is_better] = score[is_better]
    return result


def shape_at(shape: Shape, spacing_mm: Spacing, new_spacing_mm: Spacing) -> Shape:
    """Shape that covers the same extent at a new spacing, at least one voxel an axis."""
    sizes = [max(round(size * old / new), 1) for size, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)]
    return sizes[0], sizes[1], sizes[2]
