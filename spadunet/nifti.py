"""NIfTI files read through once: checked, and their voxels kept.

SimpleITK mends without a word what is wrong with a file: it fills a half copy with zeros, makes a spacing of zero 1 mm
and NaN 0. So a file is unpacked here, looked at, and its voxels are taken from there; what the header says of their
place is left to SimpleITK.

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
        "scaling": ("2f", 112),
    },
    540: {
        "magic": ("3s", 4),
        "datatype": ("h", 12),
        "bitpix": ("h", 14),
        "dim": ("8q", 16),
        "pixdim": ("8d", 104),
        "vox_offset": ("q", 168),
        "scaling": ("2d", 176),
    },
}
"""Type and first byte of each field that is looked at, by the header's size (its own first field)."""
DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""NumPy's names of the datatypes that are one plain number a voxel."""
MAX_PACKING = 1100
"""Gzip packs nothing closer (1032 to 1): a header that announces more voxels than this is wrong."""
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
    scaling: tuple[float, float]
    """Slope and intercept."""

    @property
    def dtype(self) -> np.dtype | None:
        """Of the voxels; None where they are no plain numbers."""
        name = DTYPES.get(self.datatype)
        dtype = None if name is None else np.dtype(self.byte_order + name)
        return dtype if dtype is not None and dtype.itemsize * 8 == self.num_voxel_bits else None

    @property
    def is_scaled(self) -> bool:
        """True if intensities are not what is stored."""
        return self.scaling[0] != 0 and self.scaling != (1, 0)

    @property
    def num_bytes(self) -> int:
        """Of all voxels."""
        return -(-math.prod(self.sizes) * self.num_voxel_bits // 8)


def read_voxels(path: Path) -> np.ndarray | None:
    """Make sure that a file is whole, that its voxels have a size and that its values are numbers; give its voxels.

    Returns:
        All values (N,) in the order and type of the file; None where they are scaled, no plain numbers, or the file is
        no single-file NIfTI, of which only the compression is looked at.

    Raises:
        InputError: if it is damaged or truncated, a size or a spacing is not above zero, or values are not finite.
    """
    is_compressed = path.suffix == ".gz"
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            header = parse_header(file.read(NUM_HEADER_BYTES))
            if header is None:
                read_rest(file)
                return None
            check_header(path, header)
            file.seek(header.first_byte)
            num_possible = path.stat().st_size * (MAX_PACKING if is_compressed else 1)
            if header.num_bytes > num_possible:
                raise InputError(truncated(path, f"at most {num_possible}", header))
            content = np.empty(header.num_bytes, np.uint8)
            num_bytes = read_into(file, content)
            read_rest(file)
    except (EOFError, OSError, zlib.error) as error:
        kind = "gzip file" if is_compressed else "file"
        raise InputError(f"{path}: damaged {kind} ({error}); copy it again from its source") from error
    if num_bytes < header.num_bytes:
        raise InputError(truncated(path, str(num_bytes), header))
    if header.dtype is None:
        return None
    voxels = content.view(header.dtype)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        number = int((~np.isfinite(voxels)).sum())
        raise InputError(f"{path}: holds {number} NaN or infinite values; replace them by a number, e.g. the minimum")
    return None if header.is_scaled else voxels.astype(voxels.dtype.newbyteorder("="), copy=False)


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


def read_rest(file: IO[bytes] | gzip.GzipFile) -> None:
    """Read to the end, where a packed file's checksum stands."""
    while file.read(NUM_BYTES_AT_ONCE):
        pass


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
                scaling=field["scaling"],
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
