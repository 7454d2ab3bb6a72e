"""Images and label maps in patient space.

Letters: C channels; A0, A1, A2 the array axes in storage order (SimpleITK's index order reversed).
An affine (4, 4) maps array indices to millimetres in ITK's frame, where x grows to the patient's left, y to the back
(posterior) and z to the head (superior). `orient` turns the storage order into (D, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dicom import read_dicom
from .errors import InputError
from .formats import MAX_COLOURS, VOLUME_ENDINGS, check_affine, ending_of, read_channels, write_array
from .spacing import Shape, Spacing

CORNER_TOLERANCE_VOXELS = 0.5
"""Two geometries are the same if no corner of the array lies further apart than this (in the smallest voxel side)."""

LEAST_DEGREES = 0.01
"""Between directions that are said to differ: what rounding in a header's float32 turns an axis by is less."""

MAX_VOXEL_BYTES = 4
"""Wider numbers become float32: no scanner measures so finely."""

LABEL_TYPES = (np.uint8, np.uint16, np.int32, np.int64)
"""Of labels that were stored as floating point."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """Intensities `array` (C, A0, A1, A2), any real type, with the affine that places them."""

    array: np.ndarray
    affine: np.ndarray
    missing_channels: tuple[int, ...] = ()
    """Numbers of optional channels that the image lacks; 0 in the array."""

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"an image array has 4 axes (channel and three of space), not shape {self.array.shape}")
        if self.missing_channels and not set(self.missing_channels) < set(range(len(self.array))):
            raise ValueError(f"of {len(self.array)} channels, {list(self.missing_channels)} cannot be missing")
        check_affine(self.affine)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along the array's axes."""
        return spacing_of(self.affine)

    @property
    def shape(self) -> Shape:
        """Number of voxels along the array's axes."""
        return shape_of(self.array)


@dataclass(frozen=True, kw_only=True)
class LabelMap:
    """Label ids `array` (A0, A1, A2), integer, with the affine that places them."""

    array: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"a label map's array has 3 axes, not shape {self.array.shape}")
        if not np.issubdtype(self.array.dtype, np.integer):
            raise ValueError(f"a label map's array is of integers, not {self.array.dtype}")
        check_affine(self.affine)

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size along the array's axes."""
        return spacing_of(self.affine)

    @property
    def shape(self) -> Shape:
        """Number of voxels along the array's axes."""
        return shape_of(self.array)


def spacing_of(affine: np.ndarray) -> Spacing:
    """Lengths in mm of one step along each array axis."""
    a, b, c = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return a, b, c


def shape_of(array: np.ndarray) -> Shape:
    """The last three sizes of an array as a tuple."""
    a, b, c = array.shape[-3:]
    return a, b, c


def corner_distance_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between where two affines put the corners of an array of this shape."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"), -1).reshape(-1, 3)
    corners = np.concatenate([corners, np.ones((8, 1))], axis=1)  # (8, 4)
    difference = corners @ (affine - other).T
    return float(np.linalg.norm(difference[:, :3], axis=1).max())


def geometry_difference(image: Image | LabelMap, other: Image | LabelMap) -> str | None:
    """Say how two grids differ, or None where they agree within half a voxel at every corner."""
    return grid_difference(image.shape, image.affine, other.shape, other.affine)


def grid_difference(
    shape: Sequence[int], affine: np.ndarray, other_shape: Sequence[int], other_affine: np.ndarray
) -> str | None:
    """As `geometry_difference`, of shapes (A0, A1, A2) and affines; told as the file has them, x×y×z."""
    if tuple(shape) != tuple(other_shape):
        told, other_told = ("×".join(map(str, reversed(it))) for it in (shape, other_shape))
        return f"shape {told} against {other_told} voxels (x×y×z)"
    distance_mm = corner_distance_mm(shape, affine, other_affine)
    if distance_mm > CORNER_TOLERANCE_VOXELS * min(spacing_of(affine)):
        return f"corners lie up to {distance_mm:.3g} mm apart ({what_differs(affine, other_affine)})"
    return None


def what_differs(affine: np.ndarray, other: np.ndarray) -> str:
    """Which of spacing, directions of the axes and origin differ between two affines."""
    told = []
    spacing, other_spacing = (format_spacing(spacing_of(it)[::-1]) for it in (affine, other))
    if spacing != other_spacing:
        told.append(f"spacing {spacing} against {other_spacing} mm, x×y×z")
    chords = np.linalg.norm(affine[:3, :3] / spacing_of(affine) - other[:3, :3] / spacing_of(other), axis=0)
    degrees = float(np.degrees(2 * np.arcsin(np.clip(chords / 2, 0, 1))).max())
    if degrees >= LEAST_DEGREES:
        told.append(f"axes turned by up to {degrees:.3g}°")
    origin, other_origin = (", ".join(f"{value:.5g}" for value in it[:3, 3]) for it in (affine, other))
    if origin != other_origin:
        told.append(f"origin {origin} against {other_origin} mm (LPS)")
    return "; ".join(told)


def turned_onto(label_map: LabelMap, other: Image | LabelMap) -> LabelMap | None:
    """The same label map with its axes in the order and direction of another grid; None if it is another grid.

    Two files may store one grid with other axes first, or backwards.
    """
    steps = np.linalg.solve(label_map.affine, other.affine)[:3, :3]  # (axis of the label map, axis of the other)
    axes = [int(axis) for axis in np.abs(steps).argmax(axis=0)]
    if sorted(axes) != [0, 1, 2]:
        return None
    array = label_map.array.transpose(axes)
    affine = label_map.affine.copy()
    affine[:3, :3] = label_map.affine[:3, axes]
    for axis in range(3):
        if steps[axes[axis], axis] < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += (array.shape[axis] - 1) * affine[:3, axis]
            affine[:3, axis] *= -1
    turned = LabelMap(array=array, affine=affine)
    return turned if geometry_difference(other, turned) is None else None


def format_spacing(spacing_mm: Spacing) -> str:
    """1.25×1.25×8, in array order."""
    return "×".join(f"{side:.4g}" for side in spacing_mm)


def read_image(paths: Sequence[Path | None], *, num_channels: int | None = None, series: str | None = None) -> Image:
    """Read one file a channel, or a colour picture, into one image.

    Args:
        paths: None where a channel is missing.
        num_channels: how many there must be, where that is known.
        series: the file stem of the one to read, of a folder or zip file with several DICOM series.

    Raises:
        InputError: if a file is missing, damaged, not a 2D or 3D image, holds values that `bad_values` tells, if the
            channels' grids differ, or if there are too few or too many.
    """
    present = [path for path in paths if path is not None]
    missing = tuple(number for number, path in enumerate(paths) if path is None)
    expected = len(present) if missing else num_channels
    arrays: list[np.ndarray] = []
    affines: list[np.ndarray] = []
    for path in present:
        array, affine = read_channels(path) if series is None else read_dicom(path, series)
        if problem := bad_values(array):
            raise InputError(f"{path}: {problem}")
        arrays.append(array.astype(np.float32) if array.dtype.itemsize > MAX_VOXEL_BYTES else array)
        affines.append(affine)
        difference = grid_difference(arrays[0].shape[1:], affines[0], array.shape[1:], affine)
        if difference:
            raise InputError(
                f"{path}: does not lie on the grid of {present[0]}: {difference}; resample one to the other"
            )
    array = as_channels(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), expected)
    if expected is not None and len(array) != expected:
        is_4d = len(array) > len(present) and ending_of(present[0], VOLUME_ENDINGS) is not None
        shape = "×".join(map(str, array.shape[::-1]))
        remedy = f" (it is 4D, {shape}; split it into volumes)" if is_4d else ""
        raise InputError(f"{present[0]}: wrong channel count: {len(array)}, expected {expected}{remedy}")
    if missing:
        array = np.insert(array, [number - before for before, number in enumerate(missing)], 0, axis=0)
    return Image(array=array, affine=affines[0], missing_channels=missing)


def bad_values(array: np.ndarray) -> str | None:
    """What is wrong with an image's numbers, and the remedy; None where float32 holds them all."""
    if array.dtype.kind != "f":
        return None
    low, high = array.min(initial=0), array.max(initial=0)
    if not np.isfinite((low, high)).all():
        number = int((~np.isfinite(array)).sum())
        return f"holds {number} NaN or infinite values; replace them by a number, e.g. the minimum"
    if max(-low, high) > np.finfo(np.float32).max:
        return f"holds values from {low:.3g} to {high:.3g}, more than float32 holds; were they meant? Replace them"
    return None


def as_channels(array: np.ndarray, num_channels: int | None) -> np.ndarray:
    """(C, A0, A1, A2) with a grey image among colour ones made colour, and one that was saved as colour grey again."""
    if num_channels == MAX_COLOURS and len(array) == 1:
        return np.repeat(array, MAX_COLOURS, axis=0)
    if num_channels == 1 and len(array) == MAX_COLOURS and (array == array[:1]).all():
        return array[:1]
    return array


def read_label_map(path: Path) -> LabelMap:
    """Read a label map.

    Raises:
        InputError: as `read_image`, and if a value is not a whole number or a picture is coloured.
    """
    channels, affine = read_channels(path)
    channels = as_channels(channels, 1)
    if len(channels) != 1:
        raise InputError(f"{path}: holds {len(channels)} values a voxel (4D or colour); a label map has one")
    array = channels[0]
    if not np.issubdtype(array.dtype, np.integer):
        array = whole_numbers(array, path)
    return LabelMap(array=array, affine=affine)


def whole_numbers(array: np.ndarray, path: Path) -> np.ndarray:
    """Labels that were stored as floating point, in the narrowest of `LABEL_TYPES`; slab by slab, to spare memory.

    Raises:
        InputError: if one is no whole number or does not fit; names the file.
    """
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if not np.isfinite((low, high)).all():
        raise InputError(f"{path}: holds NaN or infinite label values; labels are whole numbers")
    fitting = [it for it in LABEL_TYPES if np.iinfo(it).min <= int(low) and int(high) <= np.iinfo(it).max]
    if not fitting:
        raise InputError(f"{path}: holds label values from {low:.6g} to {high:.6g}; label ids have at most 64 bits")
    labels = np.empty(array.shape, fitting[0])
    for slab, values in zip(labels, array, strict=True):
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            value = float(values[whole != values][0])
            raise InputError(f"{path}: holds the label value {value:.6g}, not a whole number; was it interpolated?")
        slab[...] = whole
    return labels


def write_label_map(path: Path, label_map: LabelMap, *, num_axes: int = 3) -> None:
    """Write a label map with its geometry, in the format of the path's ending, whole or not at all.

    Args:
        num_axes: 2 writes a single slice as a 2D image.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    write_array(path, label_map.array, label_map.affine, num_axes=num_axes)
