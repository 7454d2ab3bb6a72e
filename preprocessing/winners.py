"""Which class has the largest logit, on another grid than the logits', without interpolating most of them.

A linear interpolation lies between the values that it is made of. So in a block of the result, a class whose largest
logit is below another's smallest cannot win, and is left out; where one is left, nothing is interpolated. Of many
classes few meet in one place, so that the cost hardly grows with their number.

Letters: K classes or regions; D, H, W depth, height, width of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..spacing import Shape
from .probabilities import class_shares, region_shares
from .resample import NEAREST, Block, Orders, axis_operator, block_of

BLOCK_ROWS = 24
"""Sides of a block of the result, in voxels of it: where they are larger, more classes meet (measured)."""
PLANE_ROWS = 16
ROUNDING = 1e-5
"""Of a sum of products of weights and logits, as a share of the largest logit: far more than float32 makes."""


class Winners:
    """Class numbers on another grid, from logits that come some planes at a time, the first planes first.

    Where logits are equal, the earlier class wins. Regions (`painted`) are painted over each other instead, the later
    over the earlier, each where its logit is above 0.

    Args:
        shape: (D, H, W) of all logits.
        new_shape: of the result.
        orders: linear or nearest neighbour, of each axis.
        num_outputs: K.
        painted: class number that each region is painted with; None for classes.
        probabilities: (K, *new_shape) float16 that is filled with those of all classes or regions, each interpolated;
            None for none.
    """

    def __init__(
        self,
        shape: Shape,
        new_shape: Shape,
        orders: Orders,
        num_outputs: int,
        painted: Sequence[int] | None = None,
        *,
        probabilities: np.ndarray | None = None,
    ) -> None:
        self.painted, self.probabilities = painted, probabilities
        highest = num_outputs - 1 if painted is None else max(painted)
        self.result = np.zeros(new_shape, np.min_scalar_type(highest))
        self.operators = [
            operator_of(size, new, order) for size, new, order in zip(shape, new_shape, orders, strict=True)
        ]
        self.in_plane = [blocks_of(operator) for operator in self.operators[1:]]
        looks_at = self.operators[0] != 0  # (D', D)
        self.first_plane = looks_at.argmax(axis=1)
        self.last_plane = shape[0] - 1 - looks_at[:, ::-1].argmax(axis=1)
        self.kept = np.zeros((num_outputs, 0, *shape[1:]), np.float32)
        self.num_planes = self.num_rows = 0

    def add(self, logits: np.ndarray) -> None:
        """Take the next planes, (K, d, H, W), and fill what can be filled by now.

        Raises:
            InputError: if a logit is NaN or infinite: a comparison would take it for any class, or for none.
        """
        if not np.isfinite((logits.min(), logits.max())).all():
            raise InputError(
                "the network gave values that are no finite numbers; give --precision float32, or another model"
            )
        begin = self.num_planes - self.kept.shape[1]
        self.num_planes += logits.shape[1]
        ready = int(np.searchsorted(self.last_plane, self.num_planes))
        for first in range(self.num_rows, ready, PLANE_ROWS):
            block = block_of(self.operators[0], slice(first, min(first + PLANE_ROWS, ready)))
            columns = slice(block.columns.start - begin, block.columns.stop - begin)
            part, place = self.planes(logits, columns), self.result[block.rows]
            if self.painted is None:
                fill_largest(part, block.weights, self.in_plane, place)
            else:
                fill_positive(part, block.weights, self.in_plane, self.painted, place)
            if self.probabilities is not None:
                winners, shares = (place if self.painted is None else None), self.probabilities[:, block.rows]
                fill_probabilities(part, block.weights, self.in_plane, winners, shares)
        self.num_rows = ready
        needed = int(self.first_plane[ready]) if ready < len(self.first_plane) else self.num_planes
        self.kept = self.planes(logits, slice(needed - begin, self.num_planes - begin)).copy()

    def planes(self, logits: np.ndarray, planes: slice) -> np.ndarray:
        """Some planes of those that were kept and the new ones together."""
        num_kept = self.kept.shape[1]
        new = logits[:, max(planes.start - num_kept, 0) : max(planes.stop - num_kept, 0)]
        return (
            new if planes.start >= num_kept else np.concatenate([self.kept[:, planes.start : planes.stop], new], axis=1)
        )


def operator_of(size: int, new_size: int, order: int) -> np.ndarray:
    """Matrix (new_size, size) of one axis; where the order is nearest neighbour, one weight in each row."""
    if size == new_size:
        return np.eye(size, dtype=np.float32)
    operator = axis_operator(size, new_size, order)
    if order != NEAREST:
        return operator
    nearest = np.zeros_like(operator)
    nearest[np.arange(new_size), operator.argmax(axis=1)] = 1
    return nearest


def blocks_of(operator: np.ndarray) -> list[Block]:
    """All its rows, some at a time."""
    starts = range(0, len(operator), BLOCK_ROWS)
    return [block_of(operator, slice(start, min(start + BLOCK_ROWS, len(operator)))) for start in starts]


def fill_largest(
    logits: np.ndarray, weights: np.ndarray, in_plane: Sequence[Sequence[Block]], result: np.ndarray
) -> None:
    """Fill slices of the result with the numbers of the winning classes.

    Args:
        logits: (K, d, H, W), the slices that the result is made of.
        weights: (slices of the result, d).
        in_plane: blocks of rows along height and width.
        result: (slices, H', W').
    """
    lowest, highest = bounds_of(logits, in_plane, np.minimum), bounds_of(logits, in_plane, np.maximum)
    rounding = ROUNDING * max(float(-lowest.min()), float(highest.max()))
    may_win = highest >= lowest.max(axis=0) - rounding  # (K, blocks along height, along width)
    for row, high in enumerate(in_plane[0]):
        for column, wide in enumerate(in_plane[1]):
            numbers = np.flatnonzero(may_win[:, row, column])
            place = result[:, high.rows, wide.rows]
            if len(numbers) == 1:
                place[...] = numbers[0]
            else:
                values = logits[numbers, :, high.columns, wide.columns]
                kept = contenders(values, rounding)
                values, numbers = values[kept], numbers[kept]
                choose(interpolate(values, weights, high.weights, wide.weights), numbers, place)


def contenders(values: np.ndarray, rounding: float) -> np.ndarray:
    """Numbers of the classes of a block (K, d, h, w) that may win somewhere between its voxels.

    Those that lead in some voxel, and those that are not everywhere below the mean of these: at any place, one of the
    leaders is at least as large as their mean.
    """
    flat = values.reshape(len(values), -1)
    leads = (flat == flat.max(axis=0)).any(axis=1)
    return np.flatnonzero(leads | (flat >= flat[leads].mean(axis=0) - rounding).any(axis=1))


def choose(values: np.ndarray, numbers: np.ndarray, place: np.ndarray) -> None:
    """Fill `place` (D, H, W) with the number whose value is the largest, of values (K, D, H, W)."""
    place[...], best = numbers[0], values[0]
    for number, value in zip(numbers[1:], values[1:], strict=True):
        np.copyto(place, number, where=value > best, casting="unsafe")
        np.maximum(best, value, out=best)


def bounds_of(logits: np.ndarray, in_plane: Sequence[Sequence[Block]], bound: np.ufunc) -> np.ndarray:
    """The smallest or largest logit (K, blocks along height, along width) of what each block looks at."""
    flat = bound.reduce(logits, axis=1)  # (K, H, W)
    high = np.stack([bound.reduce(flat[:, block.columns], axis=1) for block in in_plane[0]], axis=1)
    return np.stack([bound.reduce(high[..., block.columns], axis=-1) for block in in_plane[1]], axis=-1)


def interpolate(values: np.ndarray, depth: np.ndarray, height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """(K, d, h, w) to (K, D', H', W') by weights (D', d), (H', h), (W', w), float32."""
    values = values.astype(np.float32, copy=False)
    count = len(values)
    rows = height @ (values @ width.T)  # (K, d, H', W')
    return (depth @ rows.reshape(count, rows.shape[1], -1)).reshape(count, len(depth), len(height), len(width))


def fill_positive(
    logits: np.ndarray,
    weights: np.ndarray,
    in_plane: Sequence[Sequence[Block]],
    numbers: Sequence[int],
    result: np.ndarray,
) -> None:
    """As `fill_largest`, of regions."""
    highest = bounds_of(logits, in_plane, np.maximum)
    for row, high in enumerate(in_plane[0]):
        for column, wide in enumerate(in_plane[1]):
            place = result[:, high.rows, wide.rows]
            for region in np.flatnonzero(highest[:, row, column] > 0):
                values = logits[region, :, high.columns, wide.columns][None]
                place[interpolate(values, weights, high.weights, wide.weights)[0] > 0] = numbers[int(region)]


def fill_probabilities(
    logits: np.ndarray,
    weights: np.ndarray,
    in_plane: Sequence[Sequence[Block]],
    winners: np.ndarray | None,
    probabilities: np.ndarray,
) -> None:
    """Fill slices of probabilities (K, slices, H', W'), float16; nothing is left out.

    Args:
        logits, weights, in_plane: as of `fill_largest`.
        winners: (slices, H', W') of classes; None for regions.
    """
    for high in in_plane[0]:
        for wide in in_plane[1]:
            part = logits[:, :, high.columns, wide.columns]
            values = interpolate(part, weights, high.weights, wide.weights)
            place = (slice(None), high.rows, wide.rows)
            shares = region_shares(values) if winners is None else class_shares(values, winners[place])
            probabilities[(slice(None), *place)] = shares
