"""What SimpleITK passes over in silence in a NIfTI file: a half copy (it fills up with zeros), a header that lies.

Layout of the header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from .errors import InputError

NUM_HEADER_BYTES = 544
"""Of the longer header (NIfTI-2) with its extension flag."""
LAYOUTS = {
    348: {"dim": ("8h", 40), "bitpix": ("h", 72), "pixdim": ("8f", 76), "vox_offset": ("f", 108), "magic": ("3s", 344)},
    540: {"dim": ("8q", 16), "bitpix": ("h", 14), "pixdim": ("8d", 104), "vox_offset": ("q", 168), "magic": ("3s", 4)},
}
"""Type and first byte of each field that is looked at, by the header's size (its first field)."""


def check_nifti(path: Path) -> None:
    """Make sure that a file is whole and that its voxels have a size, before SimpleITK reads it.

    A file that is no single-file NIfTI is left to SimpleITK, but for its compression.

    Raises:
        InputError: if a .gz file is damaged, a size or a spacing is not above zero, or voxels are missing.
    """
    head, num_bytes = read_through(path)
    head = head.ljust(NUM_HEADER_BYTES, b"\0")
    for order in "<>":
        layout = LAYOUTS.get(struct.unpack_from(f"{order}i", head)[0], {})
        fields = {name: struct.unpack_from(order + kind, head, first) for name, (kind, first) in layout.items()}
        if fields and fields["magic"][0] in (b"n+1", b"n+2") and 1 <= fields["dim"][0] <= 7:
            check_fields(path, fields, num_bytes)


def check_fields(path: Path, fields: dict[str, tuple], num_bytes: int) -> None:
    """Refuse a header that SimpleITK would mend without a word, and one that announces more bytes than there are."""
    num_axes = fields["dim"][0]
    sizes = fields["dim"][1 : 1 + num_axes]
    if min(sizes) < 1:
        shape = "×".join(map(str, sizes))
        raise InputError(f"{path}: the header gives {shape} voxels; each must be above zero: copy the file again")
    spacing_mm = fields["pixdim"][1 : 1 + min(num_axes, 3)]
    if not all(math.isfinite(side) and side > 0 for side in spacing_mm):
        sides = "×".join(f"{side:.4g}" for side in spacing_mm)
        raise InputError(f"{path}: voxel spacing {sides} mm; each must be above zero: correct the header")
    num_announced = fields["vox_offset"][0] + math.prod(sizes) * fields["bitpix"][0] / 8
    if num_bytes < num_announced:
        raise InputError(
            f"{path}: truncated: {num_bytes} of the {num_announced:.0f} bytes that its header announces; "
            "copy it again from its source"
        )


def read_through(path: Path) -> tuple[bytes, int]:
    """First bytes and length of a file, decompressed where its name ends in .gz.

    Raises:
        InputError: if a .gz file is truncated or corrupt.
    """
    if path.suffix != ".gz":
        with path.open("rb") as plain:
            return plain.read(NUM_HEADER_BYTES), path.stat().st_size
    try:
        with gzip.open(path) as file:
            head = file.read(NUM_HEADER_BYTES)
            num_bytes = len(head)
            while part := file.read(1 << 22):
                num_bytes += len(part)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: damaged gzip file ({error}); copy it again from its source") from error
    return head, num_bytes
