"""How large images are, told from their headers before anything is read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import SimpleITK as sitk

from .formats import ending_of
from .nifti import MAX_PACKING

BYTES_PER_DICOM_VALUE = 2


def count_values(paths: Iterable[Path]) -> int:
    """Number of values (voxels by channels) of all these files; a file that cannot be read counts as none.

    A folder or zip file of DICOM slices is judged by its bytes: headers of hundreds of slices take long to read.
    """
    return sum(count_values_of_file(path) for path in paths)


def most_values(paths: Iterable[Path]) -> int:
    """More values than these files can hold, however well they are packed; no file is opened."""
    members = (member for path in paths for member in (path.rglob("*") if path.is_dir() else (path,)))
    return MAX_PACKING * sum(member.stat().st_size for member in members if member.is_file())


def count_values_of_file(path: Path) -> int:
    """Number of values of one file; 0 where it cannot be read, which is told when its turn comes."""
    if path.is_dir() or ending_of(path, (".zip",)):
        members = path.rglob("*") if path.is_dir() else (path,)
        return sum(member.stat().st_size for member in members if member.is_file()) // BYTES_PER_DICOM_VALUE
    reader = open_header(path)
    return 0 if reader is None else math.prod(reader.GetSize()) * reader.GetNumberOfComponents()


def voxel_volume_mm3(path: Path) -> float | None:
    """Volume of a voxel; None where it cannot be told, as of DICOM slices."""
    reader = None if path.is_dir() else open_header(path)
    return None if reader is None else math.prod(reader.GetSpacing()[:3])


def open_header(path: Path) -> sitk.ImageFileReader | None:
    """A reader that knows the header; None where there is none."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    return reader
