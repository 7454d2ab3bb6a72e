"""Images and label maps in patient space, read and written through SimpleITK.

Letters: C channels; A0, A1, A2 the array axes in storage order (SimpleITK's index order reversed).
An affine (4, 4) maps array indices to millimetres in ITK's frame, where x grows to the patient's left, y to the back
(posterior) and z to the head (superior). `preprocessing.orient` turns the storage order into (D, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError, OutputError
from .files import atomic_path
from .nifti import check_nifti
from .spacing import Shape, Spacing

NIFTI_ENDINGS = (".nii.gz", ".nii")
CORNER_TOLERANCE_VOXELS = 0.5
"""Two geometries are the same if no corner of the array lies further apart than this (in the smallest voxel side)."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """Intensities `array` (C, A0, A1, A2), float32, with the affine that places them."""

    array: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise ValueError(f"an image array has 4 axes (channel and three of space), not shape {self.array.shape}")
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


def check_affine(affine: np.ndarray) -> None:
    """Raise ValueError unless the affine is (4, 4), finite and invertible."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"an affine is a finite (4, 4) matrix, not {affine!r}")
    if not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError("the affine is singular: a voxel side is zero or two axes coincide")


def spacing_of(affine: np.ndarray) -> Spacing:
    """Lengths in mm of one step along each array axis."""
    a, b, c = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    return a, b, c


def shape_of(array: np.ndarray) -> Shape:
    """The last three sizes of an array as a tuple."""
    a, b, c = array.shape[-3:]
    return a, b, c


def corner_distance_mm(shape: Shape, affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between where two affines put the corners of an array of this shape."""
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"), -1).reshape(-1, 3)
    corners = np.concatenate([corners, np.ones((8, 1))], axis=1)  # (8, 4)
    difference = corners @ (affine - other).T
    return float(np.linalg.norm(difference[:, :3], axis=1).max())


def geometry_difference(image: Image | LabelMap, other: Image | LabelMap) -> str | None:
    """Say how two grids differ, or None where they agree within half a voxel at every corner."""
    if image.shape != other.shape:
        return f"shape {image.shape} against {other.shape} voxels"
    distance_mm = corner_distance_mm(image.shape, image.affine, other.affine)
    if distance_mm > CORNER_TOLERANCE_VOXELS * min(image.spacing_mm):
        return (
            f"corners lie up to {distance_mm:.3g} mm apart "
            f"(spacing {format_spacing(image.spacing_mm)} against {format_spacing(other.spacing_mm)} mm)"
        )
    return None


def format_spacing(spacing_mm: Spacing) -> str:
    """1.25×1.25×8, in array order."""
    return "×".join(f"{side:.4g}" for side in spacing_mm)


def read_image(paths: Sequence[Path]) -> Image:
    """Read one file a channel into one image.

    Raises:
        InputError: if a file is missing, damaged, not a single-valued 2D or 3D image, holds NaN or infinite
            values, or if the channels' grids differ.
    """
    channels = [read_grid(path) for path in paths]
    first_array, affine = channels[0]
    first = LabelMap(array=np.zeros(first_array.shape, np.uint8), affine=affine)
    arrays = []
    for path, (array, channel_affine) in zip(paths, channels, strict=True):
        grid = LabelMap(array=np.zeros(array.shape, np.uint8), affine=channel_affine)
        difference = geometry_difference(first, grid)
        if difference:
            raise InputError(f"{path}: does not lie on the grid of {paths[0]}: {difference}; resample one to the other")
        values = array.astype(np.float32)
        if not np.isfinite(values).all():
            number = int((~np.isfinite(values)).sum())
            raise InputError(
                f"{path}: holds {number} NaN or infinite values; replace them by a number, e.g. the minimum"
            )
        arrays.append(values)
    return Image(array=np.stack(arrays), affine=affine)


def read_label_map(path: Path) -> LabelMap:
    """Read a label map.

    Raises:
        InputError: as `read_image`, and if a value is not a whole number.
    """
    array, affine = read_grid(path)
    if not np.issubdtype(array.dtype, np.integer):
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds NaN or infinite label values; labels are whole numbers")
        whole = np.rint(array)
        if not np.array_equal(whole, array):
            value = float(array[whole != array][0])
            raise InputError(f"{path}: holds the label value {value:.6g}, not a whole number; was it interpolated?")
        array = whole.astype(np.int64)
    return LabelMap(array=array, affine=affine)


def read_grid(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (A0, A1, A2) in the file's own type, and affine."""
    if not path.is_file():
        raise InputError(f"{path}: not found")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    check_nifti(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_header(path, reader)
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("ERROR: ")[-1]
        raise InputError(f"{path}: cannot be read as an image: {reason}") from error
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    return sitk.GetArrayFromImage(image), affine_of(image, path)


def check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse what is no single-valued 2D or 3D image before its voxels are read."""
    size = reader.GetSize()
    if len(size) not in (2, 3):
        shape = "×".join(map(str, size))
        raise InputError(f"{path}: is {len(size)}D ({shape}); expected one 3D image a file: split it into volumes")
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path}: holds {reader.GetNumberOfComponents()} values a voxel; expected one: write one file a channel"
        )
    if not all(spacing > 0 and np.isfinite(spacing) for spacing in reader.GetSpacing()):
        raise InputError(f"{path}: voxel spacing {reader.GetSpacing()} mm; each must be above zero: correct the header")


def affine_of(image: sitk.Image, path: Path) -> np.ndarray:
    """Affine (4, 4) of array indices for a 3D SimpleITK image."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = (direction * np.array(image.GetSpacing()))[:, ::-1]
    affine[:3, 3] = image.GetOrigin()
    try:
        check_affine(affine)
    except ValueError as error:
        raise InputError(f"{path}: {error}; correct the header") from error
    return affine


def write_label_map(path: Path, label_map: LabelMap) -> None:
    """Write a label map as NIfTI with its geometry, whole or not at all.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    image = sitk.GetImageFromArray(label_map.array)
    spacing = np.array(label_map.spacing_mm)
    image.SetSpacing(spacing[::-1].tolist())
    image.SetOrigin(label_map.affine[:3, 3].tolist())
    image.SetDirection((label_map.affine[:3, :3] / spacing)[:, ::-1].ravel().tolist())
    with atomic_path(path) as partial:
        try:
            sitk.WriteImage(image, str(partial), useCompression=True)
            read_grid(partial)  # ITK writes half a file to a full disk without a word
        except (RuntimeError, InputError) as error:
            raise OutputError(f"{path}: cannot be written; is the disk full or the folder read-only?") from error
