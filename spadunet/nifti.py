"""What SimpleITK mends in a NIfTI file without a word: it fills a half copy with zeros, makes a spacing of zero 1 mm
and NaN 0.

Layout of the header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from .errors import InputError

NUM_HEADER_BYTES = 544
"""Of the longer header, NIfTI-2, with its extension flag."""
LAYOUTS = {
    348: {
        "magic": ("3s", 344),
        "dim": ("8h", 40),
        "datatype": ("h", 70),
        "bitpix": ("h", 72),
        "pixdim": ("8f", 76),
        "vox_offset": ("f", 108),
    },
    540: {
        "magic": ("3s", 4),
        "datatype": ("h", 12),
        "bitpix": ("h", 14),
        "dim": ("8q", 16),
        "pixdim": ("8d", 104),
        "vox_offset": ("q", 168),
    },
}
"""Type and first byte of each field that is looked at, by the header's size (its own first field)."""
FLOATS = {16: "f4", 64: "f8"}
"""The datatypes that can hold NaN."""
NUM_BYTES_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Header:
    """The part of a header that is looked at."""

    byte_order: str
    sizes: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    datatype: int
    num_voxel_bits: int
    first_byte: int

    @property
    def num_bytes(self) -> int:
        """Of all voxels."""
        return -(-math.prod(self.sizes) * self.num_voxel_bits // 8)


def check_nifti(path: Path) -> None:
    """Make sure that a file is whole, that its voxels have a size and that its values are numbers.

    Of a file that is no single-file NIfTI, only the compression is looked at.

    Raises:
        InputError: if it is damaged or truncated, a size or a spacing is not above zero, or values are not finite.
    """
    is_compressed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            header = parse_header(file.read(NUM_HEADER_BYTES))
            if header is not None:
                check_header(path, header)
                file.seek(header.first_byte)
            num_bytes, num_not_finite = read_through(file, header)
    except (EOFError, OSError, zlib.error) as error:
        kind = "gzip file" if is_compressed else "file"
        raise InputError(f"{path}: damaged {kind} ({error}); copy it again from its source") from error
    if header is not None and num_bytes < header.num_bytes:
        raise InputError(
            f"{path}: truncated: {num_bytes} of the {header.num_bytes} bytes of voxels that its header announces; "
            "copy it again from its source"
        )
    if num_not_finite:
        raise InputError(
            f"{path}: holds {num_not_finite} NaN or infinite values; replace them by a number, e.g. the minimum"
        )


def check_nifti_header(path: Path) -> None:
    """Make sure that the voxels have a size, without reading them.

    Raises:
        InputError: if the header is damaged, or a size or a spacing is not above zero.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = parse_header(file.read(NUM_HEADER_BYTES))
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged file ({error}); copy it again from its source") from error
    if header is not None:
        check_header(path, header)


def parse_header(head: bytes) -> Header | None:
    """The header in the first bytes of a file; None if it is no single-file NIfTI."""
    head = head.ljust(NUM_HEADER_BYTES, b"\0")
    for order in "<>":
        layout = LAYOUTS.get(struct.unpack_from(f"{order}i", head)[0])
        if layout is None:
            continue
        field = {name: struct.unpack_from(order + kind, head, first) for name, (kind, first) in layout.items()}
        num_axes, *sizes = field["dim"]
        (first_byte,) = field["vox_offset"]
        if field["magic"][0] in (b"n+1", b"n+2") and 1 <= num_axes <= 7 and 0 <= first_byte < math.inf:
            return Header(
                byte_order=order,
                sizes=tuple(sizes[:num_axes]),
                spacing_mm=field["pixdim"][1 : 1 + min(num_axes, 3)],
                datatype=field["datatype"][0],
                num_voxel_bits=field["bitpix"][0],
                first_byte=int(first_byte),
            )
    return None


def check_header(path: Path, header: Header) -> None:
    """Raise InputError for an image without voxels or with a spacing that cannot be."""
    if min(header.sizes) < 1:
        shape = "×".join(map(str, header.sizes))
        raise InputError(f"{path}: the header gives {shape} voxels; each must be above zero: copy the file again")
    if not all(math.isfinite(side) and side > 0 for side in header.spacing_mm):
        sides = "×".join(f"{side:.4g}" for side in header.spacing_mm)
        raise InputError(f"{path}: voxel spacing {sides} mm; each must be above zero: correct the header")


def read_through(file: IO[bytes] | gzip.GzipFile, header: Header | None) -> tuple[int, int]:
    """Number of bytes from here to the end, and of voxels among them that are not finite."""
    num_bytes, num_not_finite = 0, 0
    while part := file.read(NUM_BYTES_AT_ONCE):
        if header and header.datatype in FLOATS:
            dtype = np.dtype(header.byte_order + FLOATS[header.datatype])
            voxels = part[: max(header.num_bytes - num_bytes, 0)]
            values = np.frombuffer(voxels, dtype, count=len(voxels) // dtype.itemsize)
            num_not_finite += int((~np.isfinite(values)).sum())
        num_bytes += len(part)
    return num_bytes, num_not_finite
