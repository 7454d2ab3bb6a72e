"""Resampling as one small operator an axis, applied as matrix products, slab by slab.

The interpolation is that of nnU-Net (Isensee et al. 2021): a cubic spline for images, linear for each class of a
label map, nearest neighbour along an axis with thick slices. A row of an operator is zero but for a few dozen
columns, so only blocks around its diagonal are multiplied. Of the result, one slab of slices is worked on at a time:
what is held besides input and output does not grow with the volume.

Letters: C channels, K classes; D, H, W depth, height, width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ..spacing import Shape, Spacing, degree_of_anisotropy

Array = Any
"""A NumPy array, or a tensor on a GPU: both multiply and slice alike."""
CUBIC, LINEAR, NEAREST = 3, 1, 0
Orders = tuple[int, int, int]
"""Spline order along depth, height, width."""
NEGLIGIBLE = 1e-7
"""Weights of a cubic spline fall to a quarter from voxel to voxel; smaller ones are left out."""
BLOCK_ROWS = 64
"""Rows of an operator multiplied at once: with more, more of its zeros; with fewer, small products (measured)."""
SLAB_VOXELS = 1 << 23
"""Of the result worked on at once: 32 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows of an operator, and the columns in which they are not zero."""

    rows: slice
    columns: slice
    weights: np.ndarray
    """(rows, columns) float32."""


@functools.lru_cache(maxsize=64)
def axis_operator(size: int, new_size: int, order: int) -> np.ndarray:
    """Matrix (new_size, size), float32, that interpolates along one axis; voxel edges of both grids coincide.

    Built by resampling the identity, so that it is SciPy's spline.
    """
    identity = np.eye(size)
    operator = ndimage.zoom(identity, (new_size / size, 1), order=order, mode="nearest", grid_mode=True)
    operator[np.abs(operator) < NEGLIGIBLE] = 0
    return np.ascontiguousarray(operator, dtype=np.float32)


@functools.lru_cache(maxsize=64)
def blocks_of(size: int, new_size: int, order: int) -> tuple[Block, ...]:
    """An axis's operator in blocks of rows."""
    operator = axis_operator(size, new_size, order)
    starts = range(0, new_size, BLOCK_ROWS)
    return tuple(block_of(operator, slice(start, min(start + BLOCK_ROWS, new_size))) for start in starts)


def block_of(operator: np.ndarray, rows: slice) -> Block:
    """Some rows of an operator, without the columns that they do not look at."""
    columns = span(operator[rows] != 0)
    return Block(rows=rows, columns=columns, weights=np.ascontiguousarray(operator[rows, columns]))


def span(mask: np.ndarray) -> slice:
    """From the first to the last column of (M, N) with a true value; empty if there is none."""
    places = np.flatnonzero(mask.any(axis=0))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def resample_array(array: np.ndarray, shape: Shape, orders: Orders) -> np.ndarray:
    """(D, H, W) to `shape`, float32, with a spline order for each axis."""
    result = np.empty(shape, np.float32)
    for rows in slabs_of(shape):
        result[rows] = resample_slab(array, rows, shape, orders)
    return result


def slabs_of(shape: Shape) -> Iterator[slice]:
    """Slices of (D, H, W) that are worked on at once."""
    step = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def resample_slab(
    array: np.ndarray,
    rows: slice,
    shape: Shape,
    orders: Orders,
    *,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    device: str = "cpu",
) -> np.ndarray:
    """Slices `rows` of (D, H, W) resampled to `shape`: (d, H', W') float32.

    Args:
        prepare: what is done with the slices of `array` that are needed, as to normalise them.
        device: of the products: cpu, or what torch calls a GPU.
    """
    is_same_depth = array.shape[0] == shape[0]
    block = None if is_same_depth else block_of(axis_operator(array.shape[0], shape[0], orders[0]), rows)
    part = array[rows if block is None else block.columns]
    slab: Array = np.ascontiguousarray(part if prepare is None else prepare(part), dtype=np.float32)
    if device != "cpu":
        import torch

        slab = torch.from_numpy(slab).to(device)
    grows = block is not None and block.weights.shape[0] > block.weights.shape[1]
    if block is not None and not grows:  # shrink first: fewer products
        slab = combine_slices(slab, block.weights, orders[0])
    for axis in sorted((1, 2), key=lambda axis: shape[axis] / array.shape[axis]):
        if shape[axis] != array.shape[axis]:
            slab = resample_in_plane(slab, axis, blocks_of(array.shape[axis], shape[axis], orders[axis]))
    if block is not None and grows:
        slab = combine_slices(slab, block.weights, orders[0])
    return slab if isinstance(slab, np.ndarray) else slab.cpu().numpy()


def combine_slices(slab: Array, weights: np.ndarray, order: int) -> Array:
    """(D, H, W) to (d, H, W) by weights (d, D)."""
    if order == NEAREST:
        return slab[weights.argmax(axis=1)]
    _, height, width = slab.shape
    return (like(weights, slab) @ slab.reshape(len(slab), -1)).reshape(-1, height, width)


def resample_in_plane(slab: Array, axis: int, blocks: tuple[Block, ...]) -> Array:
    """(D, H, W) float32 with axis 1 or 2 resampled."""
    shape = list(slab.shape)
    shape[axis] = blocks[-1].rows.stop
    result = np.empty(shape, np.float32) if isinstance(slab, np.ndarray) else slab.new_empty(shape)
    for block in blocks:
        weights = like(block.weights, slab)
        if axis == 1:
            result[:, block.rows] = weights @ slab[:, block.columns]
        else:
            result[..., block.rows] = slab[..., block.columns] @ weights.T
    return result


def like(weights: np.ndarray, slab: Array) -> Array:
    """Weights where the slab is."""
    if isinstance(slab, np.ndarray):
        return weights
    import torch

    return torch.from_numpy(weights).to(slab.device)


def spline_orders(spacing_mm: Spacing, new_spacing_mm: Spacing, order: int) -> Orders:
    """The order in plane; nearest neighbour along depth where slices are thick (DA ≥ 1) before or after."""
    is_thick = max(degree_of_anisotropy(spacing_mm), degree_of_anisotropy(new_spacing_mm)) >= 1
    return (NEAREST if is_thick else order), order, order


def resample_image(
    image: np.ndarray,
    shape: Shape,
    orders: Orders,
    *,
    prepare: Sequence[Callable[[np.ndarray], np.ndarray]] | None = None,
    dtype: type[np.floating] = np.float32,
    device: str = "cpu",
) -> np.ndarray:
    """(C, D, H, W) to (C, *shape), kept within each channel's range: splines overshoot.

    Args:
        prepare: for each channel what is done with its intensities before, a function that never falls.
        dtype: of the result.
        device: of the products: cpu, or what torch calls a GPU.
    """
    result = np.empty((len(image), *shape), dtype)
    for number, channel in enumerate(image):
        ready = None if prepare is None else prepare[number]
        limits = np.array([channel.min(), channel.max()])
        low, high = (limits if ready is None else ready(limits)).astype(np.float32)
        for rows in slabs_of(shape):
            slab = resample_slab(channel, rows, shape, orders, prepare=ready, device=device)
            result[number, rows] = slab if channel.shape == shape else slab.clip(low, high, out=slab)
    return result


def resample_classes(classes: np.ndarray, shape: Shape, orders: Orders) -> np.ndarray:
    """Class numbers (D, H, W) to `shape`: each class interpolated within its box, the largest share wins.

    Where shares are equal, the lowest number wins.
    """
    if classes.shape == shape:
        return classes
    boxes = ndimage.find_objects(classes)
    operators = [axis_operator(size, new, order) for size, new, order in zip(classes.shape, shape, orders, strict=True)]
    result = np.zeros(shape, classes.dtype)
    for rows in slabs_of(shape):
        slab = result[rows]
        best, total = np.zeros((2, *slab.shape), np.float32)
        block = block_of(operators[0], rows)
        for number, box in enumerate(boxes, start=1):
            depth = None if box is None else overlap(box[0], block.columns)
            if depth is None:
                continue
            parts = [block_within(operator, side) for operator, side in zip(operators[1:], box[1:], strict=True)]
            weights = block.weights[:, depth.start - block.columns.start : depth.stop - block.columns.start]
            mask = (classes[depth, box[1], box[2]] == number).astype(np.float32)
            share = combine_slices(mask, weights, LINEAR)
            share = parts[0].weights @ share @ parts[1].weights.T
            place = (slice(None), parts[0].rows, parts[1].rows)
            total[place] += share
            is_better = share > best[place]
            slab[place][is_better] = number
            best[place][is_better] = share[is_better]
        slab[best <= 1 - total] = 0
    return result


def overlap(side: slice, other: slice) -> slice | None:
    """What two slices share; None if nothing."""
    start, stop = max(side.start, other.start), min(side.stop, other.stop)
    return slice(start, stop) if start < stop else None


def block_within(operator: np.ndarray, columns: slice) -> Block:
    """The rows of an operator that look at some columns, and what they see of them."""
    rows = span(operator[:, columns].T != 0)
    return Block(rows=rows, columns=columns, weights=np.ascontiguousarray(operator[rows, columns]))


def shape_at(shape: Shape, spacing_mm: Spacing, new_spacing_mm: Spacing) -> Shape:
    """Shape that covers the same extent at a new spacing, at least one voxel an axis."""
    sizes = [max(round(size * old / new), 1) for size, old, new in zip(shape, spacing_mm, new_spacing_mm, strict=True)]
    return sizes[0], sizes[1], sizes[2]
