"""Pictures of a case: an image with the outlines of reference and prediction.

Letters: D, H, W depth, height, width of an upright volume, as `orient.choose_upright_axes` has it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import InputError
from .image import geometry_difference, read_image, read_label_map, turned_onto
from .labels import LabelSet
from .orient import choose_upright_axes, ends_of_axes, orient, tells_orientation
from .page import COLOURS
from .spacing import Spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN_MM = 12.0
MARGIN_SHARE = 0.25
"""Around what is outlined, of its own size, and at least MARGIN_MM: context enough to know the place."""
LONGER_SIDE_PIXELS = 420
SHOWN_PERCENTILES = (0.5, 99.0)
"""Of what is shown, from black to white: bright fat must not darken all else."""
FEWEST_SLICES = 4
"""Across a plane: of fewer, the plane would be stripes."""
JPEG = {"quality": 88, "subsampling": 0}
"""Thin coloured lines need their colour at full resolution."""


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """A case to be drawn: intensities and label ids (D, H, W) on one grid."""

    volume: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    labels: LabelSet
    spacing_mm: Spacing
    ends: tuple[tuple[str, str], ...] | None = None
    """The patient's sides where depth, height and width begin and end, as `orient.ends_of_axes`; None if not known."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """Which axes run against those of the file."""

    def is_labelled(self, label_map: np.ndarray) -> np.ndarray:
        """Where one of the two has a structure, bool (D, H, W)."""
        return (label_map != 0) & (label_map != (self.labels.ignore_id or 0))


def read_overlay(
    image_path: Path | None, reference_path: Path, prediction_path: Path | None, labels: LabelSet
) -> Overlay:
    """Read a case upright, from the head downwards where the files tell, else as they lie.

    Args:
        image_path: of one channel; of several in one file, the first is shown. None for a dark image.
        prediction_path: None where nothing was predicted.

    Raises:
        InputError: if a file cannot be read, or they do not lie on one grid.
    """
    reference = read_label_map(reference_path)
    image = None if image_path is None else read_image([image_path])
    grid = reference if image is None else image
    arrays: list[np.ndarray] = []
    for path in (reference_path, prediction_path):
        label_map = reference if path == reference_path else None if path is None else read_label_map(path)
        if label_map is None:
            arrays.append(np.broadcast_to(np.uint8(0), grid.shape))
            continue
        label_map = (turned_onto(label_map, grid) if geometry_difference(label_map, grid) else None) or label_map
        if label_map.shape != grid.shape:
            raise InputError(f"{path}: does not lie on the grid of {image_path or reference_path}")
        arrays.append(label_map.array)
    axes, flips = choose_upright_axes(grid.shape, grid.affine)
    volume = np.broadcast_to(np.float32(0), grid.shape) if image is None else image.array[0]
    spacing_mm = grid.spacing_mm
    return Overlay(
        volume=orient(volume, axes, flips),
        reference=orient(arrays[0], axes, flips),
        prediction=orient(arrays[1], axes, flips),
        labels=labels,
        spacing_mm=(spacing_mm[axes[0]], spacing_mm[axes[1]], spacing_mm[axes[2]]),
        ends=ends_of_axes(grid.affine, axes, flips) if tells_orientation(grid.affine) else None,
        flips=flips,
    )


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One slice of a volume."""

    axis: int
    index: int


def densest_planes(overlay: Overlay) -> list[Plane]:
    """The slice along each axis that has most of the reference, or of the prediction where there is no reference.

    The middle ones where both are empty; along depth alone where there are hardly any slices.
    """
    mask = overlay.is_labelled(overlay.reference)
    if not mask.any():
        mask = overlay.is_labelled(overlay.prediction)
    planes = []
    for axis in range(3 if min(mask.shape) >= FEWEST_SLICES else 1):
        counts = mask.sum(axis=tuple(other for other in range(3) if other != axis))
        planes.append(Plane(axis=axis, index=int(counts.argmax()) if counts.any() else mask.shape[axis] // 2))
    return planes


def quartile_planes(overlay: Overlay) -> list[Plane]:
    """The slices along depth a quarter, half and three quarters through the reference, or the volume without one."""
    slices = np.flatnonzero(overlay.is_labelled(overlay.reference).any(axis=(1, 2)))
    chosen = np.quantile(slices if len(slices) else np.arange(len(overlay.volume)), (0.25, 0.5, 0.75))
    return [Plane(axis=0, index=index) for index in sorted(set(chosen.astype(int).tolist()))]


def box_of(mask: np.ndarray, spacing_mm: Spacing) -> tuple[slice, slice, slice]:
    """What is worth showing of a bool volume (D, H, W): its true part and a margin; all of an empty one."""
    if not mask.any():
        return slice(None), slice(None), slice(None)
    sides = []
    for axis, spacing in enumerate(spacing_mm):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = int(there[0]), int(there[-1]) + 1
        margin = int(np.ceil(max(MARGIN_MM / spacing, MARGIN_SHARE * (last - first))))
        sides.append(slice(max(0, first - margin), last + margin))
    return sides[0], sides[1], sides[2]


def draw_planes(overlay: Overlay, planes: Sequence[Plane]) -> list[bytes]:
    """A JPEG of each plane: cut to what is outlined, reference dashed and prediction solid, in their class's colour.

    Voxels of other shapes than cubes are drawn as they are in the patient.
    """
    outlined = overlay.is_labelled(overlay.reference) | overlay.is_labelled(overlay.prediction)
    box = box_of(outlined, overlay.spacing_mm)
    low, high = np.percentile(overlay.volume[box], SHOWN_PERCENTILES)
    return [draw_plane(overlay, plane, box, (float(low), float(high))) for plane in planes]


def draw_plane(overlay: Overlay, plane: Plane, box: tuple[slice, slice, slice], window: tuple[float, float]) -> bytes:
    """A JPEG of one plane; black at window[0], white at window[1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sides = [axis for axis in range(3) if axis != plane.axis]
    cut = tuple(plane.index if axis == plane.axis else box[axis] for axis in range(3))
    image = overlay.volume[cut]
    height_mm, width_mm = (size * overlay.spacing_mm[axis] for size, axis in zip(image.shape, sides, strict=True))
    scale = LONGER_SIDE_PIXELS / max(height_mm, width_mm)
    size_inches = (max(40.0, width_mm * scale) / 100, max(40.0, height_mm * scale) / 100)
    figure = Figure(figsize=size_inches, dpi=100, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, cmap="gray", vmin=window[0], vmax=max(window[1], window[0] + 1e-6), aspect="auto")
    for label_map, line in (
        (overlay.prediction, "solid"),
        (overlay.reference, "dashed"),
    ):  # dashes let see what is below
        for number, structure in enumerate(overlay.labels.structures):
            outline(axes, structure.mask_in(label_map[cut]), COLOURS[number % len(COLOURS)], line)
    axes.set_axis_off()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_jpg(buffer, pil_kwargs=JPEG)
    return buffer.getvalue()


def outline(axes: Axes, mask: np.ndarray, colour: str, line: str) -> None:
    """Draw the border of a bool mask (H, W), closed at the edges of the picture; nothing of an empty one."""
    if mask.any():
        rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
        height, width = mask.shape
        axes.contour(columns, rows, np.pad(mask, 1), [0.5], colors=colour, linestyles=line, linewidths=1.4)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
