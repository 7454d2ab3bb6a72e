"""Where the borders of prediction and reference lie apart, seen through the whole volume in three directions."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..labels import Region
from ..overlay import FEWEST_SLICES, Overlay
from .borders import Box, border
from .evaluate import NOWHERE, class_boxes, union_of
from .nearest import nearest_mm
from .slices import upright_sides

LONGER_SIDE_PIXELS = 200
PALETTE = "viridis"
PALETTE_FROM = 0.12
"""Its darkest colours would not be seen on a dark page."""
NO_OTHER = (204, 0, 204)
"""Colour of the border of a class that is missed or a false alarm: there is no distance to show."""
ROUND_NUMBERS = (1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class ErrorMaps:
    """Distances between the borders of all classes, the largest along each line of sight, as PNG pictures by axis."""

    predictions: tuple[bytes, ...]
    """From the prediction's border to the reference's: what was found too much. None if it has no border."""
    references: tuple[bytes, ...]
    """From the reference's border to the prediction's: what was not found. None if it has no border."""
    scale_mm: float
    """Of the brightest colour."""
    largest_mm: float | None
    """None if no class has both borders."""
    has_no_other: bool
    """Some border is shown in NO_OTHER."""


def draw_error_maps(cropped: Overlay, structures: Sequence[Region], full_shape: tuple[int, ...]) -> ErrorMaps:
    """Maps of a case; without anything where no class is in either label map.

    Args:
        cropped: label maps, and the voxel size.
        structures: whose borders are compared.
        full_shape: of the volume: across an axis of hardly any slices alone, as `slices.draw_stacks`.
    """
    boxes = class_boxes(cropped.prediction, cropped.reference, cropped.labels)
    distances = [border_distances(cropped, it, union_of([boxes[label_id] for label_id in it.ids])) for it in structures]
    values = np.concatenate([np.concatenate([it[1], it[3]]) for it in distances] or [np.zeros(0)])
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else None
    scale = round_up(largest or 0.0)
    axes = range(3 if min(full_shape) >= FEWEST_SLICES else 1)
    sides = [upright_sides(axis, cropped.ends) for axis in axes]
    shape = cropped.reference.shape
    return ErrorMaps(
        predictions=draw_maps([it[:2] for it in distances], shape, sides, scale),
        references=draw_maps([it[2:] for it in distances], shape, sides, scale),
        scale_mm=scale,
        largest_mm=largest,
        has_no_other=len(finite) < len(values),
    )


def border_distances(
    cropped: Overlay, structure: Region, box: Box
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Border voxels of a structure (N, 3) and their distance in mm to the other border (N,): prediction, reference.

    Infinite where the other has no border.

    Args:
        box: holds the structure in both label maps.
    """
    if box == NOWHERE:
        return np.zeros((0, 3), int), np.zeros(0), np.zeros((0, 3), int), np.zeros(0)
    begins = [side.start for side in box]
    masks = [border(structure.mask_in(it[box])) for it in (cropped.prediction, cropped.reference)]
    prediction, reference = (np.argwhere(mask) + begins for mask in masks)
    if not len(prediction) or not len(reference):
        return prediction, np.full(len(prediction), np.inf), reference, np.full(len(reference), np.inf)
    return (
        prediction,
        nearest_mm(masks[0], masks[1], cropped.spacing_mm),
        reference,
        nearest_mm(masks[1], masks[0], cropped.spacing_mm),
    )


def round_up(value_mm: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 … mm, so that maps of several cases can be compared."""
    if value_mm <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value_mm))
    return next(it * power for it in (*ROUND_NUMBERS, 10) if it * power >= value_mm * (1 - 1e-9))


def draw_maps(
    distances: Sequence[tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, ...],
    sides: Sequence[tuple[int, int]],
    scale_mm: float,
) -> tuple[bytes, ...]:
    """A map for each pair of sides; none without any border voxel."""
    if not any(len(values) for _, values in distances):
        return ()
    return tuple(draw_map(distances, shape, pair, scale_mm) for pair in sides)


def draw_map(
    distances: Sequence[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...], sides: tuple[int, int], scale_mm: float
) -> bytes:
    """A PNG of the largest distance in each line of sight, see-through where there is no border.

    Args:
        distances: of each structure, voxels (N, 3) and mm (N,).
        shape: of the volume that the voxels lie in.
        sides: axes of the picture's rows and columns.
    """
    from PIL import Image

    rows, columns = sides
    steps = [-(-shape[it] // LONGER_SIDE_PIXELS) for it in (rows, columns)]
    canvas = np.zeros([-(-shape[it] // step) for it, step in zip((rows, columns), steps, strict=True)], np.uint8)
    for voxels, values in distances:
        colours = np.where(np.isfinite(values), 1 + np.minimum(values / scale_mm, 1) * 253, 255).astype(np.uint8)
        np.maximum.at(canvas, (voxels[:, rows] // steps[0], voxels[:, columns] // steps[1]), colours)
    picture = Image.frombytes("P", canvas.shape[::-1], canvas.tobytes())
    picture.putpalette(bytes(np.concatenate([[[0, 0, 0]], palette(254), [NO_OTHER]]).astype(np.uint8).ravel()))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=0, optimize=True)
    return buffer.getvalue()


def palette(num_colours: int) -> np.ndarray:
    """Colours from no distance to the largest, (num_colours, 3) of 0 to 255."""
    from matplotlib import colormaps

    shades = colormaps[PALETTE](np.linspace(PALETTE_FROM, 1, num_colours))[:, :3]
    return np.asarray(np.rint(255 * shades), int)
