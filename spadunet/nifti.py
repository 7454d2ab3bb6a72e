"""NIfTI files read through once: checked, and their voxels kept.

SimpleITK mends without a word what is wrong with a file: it fills a half copy with zeros, makes a spacing of zero 1 mm
and NaN 0. So a file is unpacked here, looked at, and its voxels are taken from there; what the header says of their
place is left to SimpleITK.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from .errors import InputError
from .nifti_header import NUM_HEADER_BYTES, Header, check_header, parse_header

MAX_PACKING = 1100
"""Gzip packs nothing closer (1032 to 1): a header that announces more voxels than this is wrong."""
NUM_BYTES_AT_ONCE = 1 << 22


def read_voxels(path: Path) -> np.ndarray | None:
    """Make sure that a file is whole, that its voxels have a size and that its values are numbers; give its voxels.

    Returns:
        All values (N,) in the order and type of the file; None where they are scaled or no plain numbers.

    Raises:
        InputError: if it is damaged, truncated or longer than its header announces, values are not finite, or as
            `nifti_header.check_header`.
    """
    is_compressed = is_gzip(path)
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            header = parse_header(path, file.read(NUM_HEADER_BYTES))
            check_header(path, header)
            file.seek(header.first_byte)
            num_possible = path.stat().st_size * (MAX_PACKING if is_compressed else 1)
            if header.num_bytes > num_possible:
                raise InputError(truncated(path, f"at most {num_possible}", header))
            content = np.empty(header.num_bytes, np.uint8)
            num_bytes = read_into(file, content)
            num_more = read_rest(file)
    except (EOFError, OSError, zlib.error) as error:
        kind = "gzip file" if is_compressed else "file"
        raise InputError(f"{path}: damaged {kind} ({error}); copy it again from its source") from error
    if num_bytes < header.num_bytes:
        raise InputError(truncated(path, str(num_bytes), header))
    if num_more >= max(header.sizes[0] * header.num_voxel_bits // 8, 1):
        shape = "×".join(map(str, header.sizes))
        raise InputError(
            f"{path}: holds {num_more} bytes more than the {shape} voxels of its header take; "
            "copy it again from its source"
        )
    if header.dtype is None:
        return None
    voxels = content.view(header.dtype)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        number = int((~np.isfinite(voxels)).sum())
        raise InputError(f"{path}: holds {number} NaN or infinite values; replace them by a number, e.g. the minimum")
    return None if header.is_scaled else voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


def is_gzip(path: Path) -> bool:
    """True if the name says so."""
    return path.suffix.lower() == ".gz"


def truncated(path: Path, found: str, header: Header) -> str:
    """What to say of a file that ends early."""
    return (
        f"{path}: truncated: {found} of the {header.num_bytes} bytes of voxels that its header announces; "
        "copy it again from its source"
    )


def read_into(file: IO[bytes] | gzip.GzipFile, content: np.ndarray) -> int:
    """Fill (N,) bytes from a file; how many there were."""
    view, num_bytes = content.data, 0
    while num_bytes < len(view) and (part := file.read(min(NUM_BYTES_AT_ONCE, len(view) - num_bytes))):
        view[num_bytes : num_bytes + len(part)] = part
        num_bytes += len(part)
    return num_bytes


def read_rest(file: IO[bytes] | gzip.GzipFile) -> int:
    """Read to the end, where a packed file's checksum stands; how many bytes there were."""
    num_bytes = 0
    while part := file.read(NUM_BYTES_AT_ONCE):
        num_bytes += len(part)
    return num_bytes


def check_nifti_header(path: Path) -> None:
    """Make sure that the voxels have a size, without reading them.

    Raises:
        InputError: if the header is damaged, or as `nifti_header.check_header`.
    """
    try:
        with gzip.open(path) if is_gzip(path) else path.open("rb") as file:
            header = parse_header(path, file.read(NUM_HEADER_BYTES))
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged file ({error}); copy it again from its source") from error
    check_header(path, header)
