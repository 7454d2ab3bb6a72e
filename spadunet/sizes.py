"""How large images are, told from their headers before anything is read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .errors import InputError
from .formats import Header, ending_of, files_of, is_packed, read_header
from .nifti import MAX_PACKING

BYTES_PER_DICOM_VALUE = 2


def count_values(paths: Iterable[Path]) -> int:
    """Number of values (voxels by channels) of all these files; a file that cannot be read counts as none.

    A folder or zip file of DICOM slices is judged by its bytes: headers of hundreds of slices take long to read.
    """
    return sum(count_values_of_file(path) for path in paths)


def most_values(paths: Iterable[Path]) -> int:
    """More values than these files can hold, however well they are packed; no file is opened."""
    files = (file for path in paths for file in files_of(path))
    members = (member for file in files for member in (file.rglob("*") if file.is_dir() else (file,)))
    return MAX_PACKING * sum(member.stat().st_size for member in members if member.is_file())


def count_values_of_file(path: Path) -> int:
    """Number of values of one file; 0 where it cannot be read, which is told when its turn comes."""
    if ending_of(path, (".zip",)):
        return bytes_unpacked(path) // BYTES_PER_DICOM_VALUE
    if path.is_dir():
        return sum(member.stat().st_size for member in path.rglob("*") if member.is_file()) // BYTES_PER_DICOM_VALUE
    header = header_of(path)
    return 0 if header is None else header.num_channels * math.prod(header.shape)


def voxel_volume_mm3(path: Path) -> float | None:
    """Volume of a voxel; None where it cannot be told, as of folders of DICOM slices."""
    header = None if is_packed(path) else header_of(path)
    return None if header is None else float(abs(np.linalg.det(header.affine[:3, :3])))


def bytes_unpacked(path: Path) -> int:
    """What a zip file holds, as its directory says; 0 where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return 0


def header_of(path: Path) -> Header | None:
    """The header of a file; None where it has none that can be read."""
    try:
        return read_header(path)
    except InputError:
        return None
