"""Headers of NIfTI files, and what in them cannot be or is read differently by different programs.

An image that viewers would show in another place than where its label map was drawn is refused, not guessed at.

Layout: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError

NUM_HEADER_BYTES = 544
"""Of the longer header, NIfTI-2, with its extension flag."""
MAGIC = {348: b"n+1\0", 540: b"n+2\0\r\n\x1a\n"}
"""Of a file that holds header and voxels, by the header's size (its own first field)."""
LAYOUTS = {
    348: {
        "magic": ("4s", 344),
        "dim": ("8h", 40),
        "datatype": ("h", 70),
        "bitpix": ("h", 72),
        "pixdim": ("8f", 76),
        "vox_offset": ("f", 108),
        "scaling": ("2f", 112),
        "units": ("B", 123),
        "codes": ("2h", 252),
        "quaternion": ("3f", 256),
        "offset": ("3f", 268),
        "srow": ("12f", 280),
    },
    540: {
        "magic": ("8s", 4),
        "datatype": ("h", 12),
        "bitpix": ("h", 14),
        "dim": ("8q", 16),
        "pixdim": ("8d", 104),
        "vox_offset": ("q", 168),
        "scaling": ("2d", 176),
        "codes": ("2i", 344),
        "quaternion": ("3d", 352),
        "offset": ("3d", 376),
        "srow": ("12d", 400),
        "units": ("i", 500),
    },
}
"""Type and first byte of each field that is looked at, by the header's size."""
DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}
"""NumPy's names of the datatypes that are one plain number a voxel."""
BITS = {1: 1, 32: 64, 128: 24, 1024: 64, 1280: 64, 1536: 128, 1792: 128, 2048: 256, 2304: 32}
"""A voxel of the other datatypes."""
MAX_CODE = 5
MAX_FIRST_BYTE = 1 << 40
UNITS = {1: "metre", 3: "micrometre"}
QUATERNION_TOLERANCE = 1e-3
PLACE_TOLERANCE_VOXELS = 0.5
COPY = "keep the right one with fslorient -copyqform2sform or -copysform2qform"


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
    unit: int
    qform_code: int
    sform_code: int
    qfac: float
    quaternion: tuple[float, float, float]
    offset_mm: tuple[float, float, float]
    srow: np.ndarray
    """(3, 4)."""

    @property
    def dtype(self) -> np.dtype | None:
        """Of the voxels; None where they are no plain numbers."""
        name = DTYPES.get(self.datatype)
        return None if name is None else np.dtype(self.byte_order + name)

    @property
    def is_scaled(self) -> bool:
        """True if intensities are not what is stored."""
        return self.scaling[0] != 0 and self.scaling != (1, 0)

    @property
    def num_bytes(self) -> int:
        """Of all voxels."""
        return -(-math.prod(self.sizes) * self.num_voxel_bits // 8)

    @property
    def has_no_place(self) -> bool:
        """True if it says nothing of where the image lies."""
        return self.qform_code == self.sform_code == 0


def parse_header(path: Path, head: bytes) -> Header:
    """The header in the first bytes of a file.

    Raises:
        InputError: if it is no single-file NIfTI.
    """
    head = head.ljust(NUM_HEADER_BYTES, b"\0")
    for order, size in itertools.product("<>", LAYOUTS):
        if struct.unpack_from(f"{order}i", head)[0] != size:
            continue
        field = {name: struct.unpack_from(order + kind, head, first) for name, (kind, first) in LAYOUTS[size].items()}
        num_axes, *sizes = field["dim"]
        (first_byte,) = field["vox_offset"]
        if field["magic"][0] != MAGIC[size] or not 1 <= num_axes <= 7 or not size + 4 <= first_byte < MAX_FIRST_BYTE:
            break
        return Header(
            byte_order=order,
            sizes=tuple(sizes[:num_axes]),
            spacing_mm=field["pixdim"][1 : 1 + min(num_axes, 3)],
            datatype=field["datatype"][0],
            num_voxel_bits=field["bitpix"][0],
            first_byte=int(first_byte),
            scaling=field["scaling"],
            unit=field["units"][0] & 7,
            qform_code=field["codes"][0],
            sform_code=field["codes"][1],
            qfac=field["pixdim"][0],
            quaternion=field["quaternion"],
            offset_mm=field["offset"],
            srow=np.array(field["srow"], np.float64).reshape(3, 4),
        )
    raise InputError(f"{path}: cannot be read as NIfTI: its header is damaged or that of another format; copy it again")


def check_header(path: Path, header: Header) -> None:
    """Raise InputError for an image that has no voxels, or whose header contradicts itself or can be read two ways."""
    if min(header.sizes) < 1:
        shape = "×".join(map(str, header.sizes))
        raise InputError(f"{path}: the header gives {shape} voxels; each must be above zero: copy the file again")
    if not all(math.isfinite(side) and side > 0 for side in header.spacing_mm):
        raise InputError(
            f"{path}: voxel spacing {times(header.spacing_mm)} mm; each must be above zero: correct the header"
        )
    num_bits = BITS.get(header.datatype, 0) if header.dtype is None else header.dtype.itemsize * 8
    if header.num_voxel_bits != num_bits:
        raise InputError(
            f"{path}: datatype {header.datatype} has {num_bits or 'unknown'} bits a voxel, but the header says "
            f"{header.num_voxel_bits}; copy the file again"
        )
    if header.unit in UNITS:
        raise InputError(
            f"{path}: spacing and place are in the unit {UNITS[header.unit]}, which many programs take for mm; "
            "write them in mm"
        )
    problem = placement_problem(header)
    if problem is not None:
        raise InputError(f"{path}: {problem}")


def placement_problem(header: Header) -> str | None:
    """What is wrong with qform and sform; None where all programs place the image within half a voxel alike."""
    if not (0 <= header.qform_code <= MAX_CODE and 0 <= header.sform_code <= MAX_CODE):
        return (
            f"qform_code {header.qform_code}, sform_code {header.sform_code}; expected 0 to {MAX_CODE}: copy it again"
        )
    if header.has_no_place:
        given = np.array([*header.quaternion, *header.offset_mm])
        if given.any() or not (is_unset(header.srow) or not header.srow.any()):
            return "gives a place, but qform_code and sform_code 0 deny it; set the right one to 1"
        return None
    qform = qform_of(header) if header.qform_code else None
    sform = header.srow if header.sform_code else None
    if isinstance(qform, str):
        return qform
    if any(form is not None and not np.isfinite(form).all() for form in (qform, sform)):
        return f"qform or sform holds NaN or infinite values; {COPY}"
    num_axes = len(header.spacing_mm)
    if sform is not None:
        steps = np.linalg.norm(sform[:, :num_axes], axis=0)
        if not steps.all():
            return f"an axis of its sform has no length; {COPY}"
        scaled = sform.copy()
        scaled[:, :num_axes] *= header.spacing_mm / steps
        wrong = [side for side in header.spacing_mm if abs(side - 1) > 0.01]
        if is_unset(sform) and len(wrong) > 1:  # a single one is rather a damaged pixdim
            sform = scaled
        elif difference(header, scaled, sform) is not None:
            return f"sform has voxels of {times(steps)} mm, pixdim of {times(header.spacing_mm)} mm; correct the header"
    if qform is None or sform is None or header.qform_code != header.sform_code:
        return None  # other codes, other spaces: the scanner's, say, and that of a template
    corners = difference(header, qform, sform)
    if corners is None:
        return None
    here, there = ("(" + ", ".join(f"{value:.4g}" for value in corner) + ")" for corner in corners)
    return f"qform and sform disagree where it lies: one puts a corner at {here} mm, the other at {there} mm; {COPY}"


def is_unset(srow: np.ndarray) -> bool:
    """True for unit steps without an offset: what programs write that know no sform (as in ACDC's data)."""
    return bool((np.abs(srow) == np.eye(3, 4)).all())


def qform_of(header: Header) -> np.ndarray | str:
    """(3, 4) from the quaternion (nifti1.h, method 2), or what is wrong with it."""
    b, c, d = header.quaternion
    square = b * b + c * c + d * d
    if header.qfac not in (-1, 0, 1):
        return f"pixdim[0] is {header.qfac:g}; expected -1 or 1, the side that the qform's slices go to: copy it again"
    if not square <= 1 + QUATERNION_TOLERANCE:
        return f"quaternion ({b:g}, {c:g}, {d:g}) is no rotation; correct the qform"
    if square > 1:
        b, c, d = (value / math.sqrt(square) for value in (b, c, d))
    a = math.sqrt(max(1 - b * b - c * c - d * d, 0))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = np.ones(3)
    steps[: len(header.spacing_mm)] = header.spacing_mm
    steps[2] *= -1 if header.qfac == -1 else 1
    return np.column_stack([rotation * steps, header.offset_mm])


def difference(header: Header, form: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Where two forms (3, 4) put the corner that they disagree about most; None if by half a voxel or less."""
    sizes = (*header.sizes, 1, 1)[:3]
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, size - 1) for size in sizes))])  # (8, 4)
    with np.errstate(all="ignore"):
        here, there = corners @ form.T, corners @ other.T
        distances = np.linalg.norm(here - there, axis=1)
    if (distances <= PLACE_TOLERANCE_VOXELS * min(header.spacing_mm)).all():
        return None
    worst = int(np.nan_to_num(distances, nan=np.inf).argmax())
    return here[worst], there[worst]


def times(sides_mm: tuple[float, ...] | np.ndarray) -> str:
    """1.25×1.25×8."""
    return "×".join(f"{side:.4g}" for side in sides_mm)
