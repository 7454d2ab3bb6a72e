"""Files to arrays with an affine, and back: what each format needs. Letters and frame as in `image`."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydantic import ConfigDict

from .dicom import MAX_PLACE_MM, affine_of_series, read_dicom, read_slice, the_one_series
from .errors import InputError, OutputError
from .files import atomic_path, write_text
from .itk import ITK_LOCK
from .nifti import check_nifti_header, read_voxels
from .record import PositiveSpacing, Record, read_record
from .text_header import check_text_header, voxel_files

NIFTI_ENDINGS = (".nii.gz", ".nii")
TEXT_ENDINGS = (".nrrd", ".mha", ".mhd")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, *TEXT_ENDINGS)
TIFF_ENDINGS = (".tif", ".tiff")
LOSSY_ENDINGS = (".jpg", ".jpeg")
PICTURE_ENDINGS = (".png", *TIFF_ENDINGS, ".bmp", *LOSSY_ENDINGS)
DICOM_ENDING = ".dcm"
"""Of a dataset of DICOM images: single files, folders of slices or zip files of them."""
IMAGE_ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS, DICOM_ENDING)
LABEL_ENDINGS = tuple(ending for ending in (*VOLUME_ENDINGS, *PICTURE_ENDINGS) if ending not in LOSSY_ENDINGS)
MAX_COLOURS = 3
SHEARED = (
    "its axes are not at right angles (a sheared affine or gantry tilt); resample it to an upright grid, or "
    "correct the header's sform or qform"
)
AXES_TOLERANCE = 0.01
BMP_HEADER = struct.Struct("<10xI4xii2xHI")
"""First byte of the pixels, width, height, bits a pixel, packing."""
RUN_LENGTHS, MAX_RUN = (1, 2), 128
"""Packings that say a pixel once for up to 255, in two bytes."""
JPEG_END, JPEG_TAIL_BYTES = b"\xff\xd9", 1024


def ending_of(path: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> str | None:
    """The ending of a file's name among these, whatever its case; None if it has none of them."""
    name = path.name.lower()
    return next((ending for ending in endings if name.endswith(ending)), None)


def strip_ending(path: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> str:
    """A file's name without its ending among these; the whole name if it has none of them."""
    return path.name[: len(path.name) - len(ending_of(path, endings) or "")]


def may_be_colour(path: Path) -> bool:
    """True for formats that hold colours in one file."""
    return ending_of(path, (*PICTURE_ENDINGS, DICOM_ENDING)) is not None


def is_packed(path: Path) -> bool:
    """True for a folder or zip file of DICOM slices."""
    return path.is_dir() or ending_of(path, (".zip",)) is not None


def is_dicom(path: Path) -> bool:
    """True for DICOM: a folder or a zip file of slices, or a single file."""
    return is_packed(path) or ending_of(path, (DICOM_ENDING,)) is not None


def holds_dicom(folder: Path) -> bool:
    """True if a DICOM slice, whole or damaged, lies in a folder or below it; files of other formats are none."""
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or ending_of(path) not in (None, DICOM_ENDING) or not path.is_file():
            continue
        try:
            if read_slice(path) is not None:
                return True
        except InputError:
            return True
    return False


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of its voxels before they are read."""

    num_channels: int
    shape: tuple[int, int, int]
    """(A0, A1, A2)."""
    affine: np.ndarray
    """(4, 4), as `read_channels` gives it."""
    voxel_type: np.dtype


def read_header(path: Path) -> Header | None:
    """Channels, shape, affine and type of a file, or of a folder with one DICOM series, from headers alone.

    None for a zip file, which would have to be unpacked.

    Raises:
        InputError: as `read_channels`, but for what only the voxels show.
    """
    if ending_of(path, (".zip",)):
        return None
    if path.is_dir():
        series = the_one_series(path, path)
        reader = open_reader(series.slices[0].path)
        sizes: tuple[int, ...] = (len(series.slices), *reader.GetSize()[1::-1])
        affine = affine_of_series(series)
    else:
        require_content(path)
        if ending_of(path, NIFTI_ENDINGS):
            check_nifti_header(path)
        reader = open_reader(path)
        sizes = (1, *reader.GetSize()[::-1])[-max(reader.GetDimension(), 3) :]  # ([C,] A0, A1, A2)
        is_picture = ending_of(path, PICTURE_ENDINGS) is not None
        affine = picture_affine(path, sizes[-3]) if is_picture else affine_of(reader, path)
    num_values = min(reader.GetNumberOfComponents(), MAX_COLOURS)
    return Header(
        num_channels=sizes[0] if len(sizes) == 4 else num_values,
        shape=(sizes[-3], sizes[-2], sizes[-1]),
        affine=affine,
        voxel_type=sitk.GetArrayViewFromImage(sitk.Image([1, 1], reader.GetPixelID())).dtype,
    )


def read_middle(path: Path, num_slices: int) -> tuple[np.ndarray, np.ndarray]:
    """Array (C, num_slices, A1, A2) of the middle slices of a volume file, and its affine, without reading the rest.

    Args:
        path: with one of VOLUME_ENDINGS.
        num_slices: along A0, at most as many as there are.

    Raises:
        InputError: if it cannot be read.
    """
    reader = open_reader(path)
    size = list(reader.GetSize())
    first = (size[2] - num_slices) // 2
    reader.SetExtractIndex([0, 0, first, *[0] * (len(size) - 3)])
    reader.SetExtractSize([*size[:2], num_slices, *size[3:]])
    try:
        with ITK_LOCK:
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as an image: {reason_of(error)}") from error
    array = sitk.GetArrayFromImage(image)
    return array.reshape(-1, *array.shape[-3:]), affine_of(image, path)


def read_channels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array (C, A0, A1, A2) in the file's own type, and affine.

    One channel, three of a colour picture (an alpha channel is left out), or those along the fourth axis of a 4D file.
    A picture is one slice with pixels of 1 mm: its size in the world is not known.

    Args:
        path: a file, or a folder or zip file that holds one DICOM series.

    Raises:
        InputError: if it is missing, empty, damaged, no 2D or 3D image, or does not say where its voxels lie.
    """
    if is_packed(path):
        return read_dicom(path)
    require_content(path)
    voxels = None
    if ending_of(path, NIFTI_ENDINGS):
        voxels = read_voxels(path)
    elif ending_of(path, LOSSY_ENDINGS):
        check_jpeg(path)
    reader = open_reader(path)
    if voxels is not None:
        array = voxels.reshape(reader.GetSize()[::-1])
    else:
        try:
            with ITK_LOCK:
                image = reader.Execute()
        except RuntimeError as error:
            raise InputError(f"{path}: cannot be read as an image: {reason_of(error)}") from error
        array = sitk.GetArrayFromImage(image)  # ([[C,] A0,] A1, A2), or with C last
    if reader.GetNumberOfComponents() > 1:
        array = np.moveaxis(array, -1, 0)[:MAX_COLOURS]
    elif reader.GetDimension() < 4:
        array = array[None]
    array = array.reshape(len(array), -1, *array.shape[-2:])
    is_picture = ending_of(path, PICTURE_ENDINGS) is not None
    return array, picture_affine(path, array.shape[1]) if is_picture else affine_of(reader, path)


def require_content(path: Path) -> None:
    """Raise InputError for a file that is missing or empty."""
    if not path.is_file():
        raise InputError(f"{path}: not found")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again from its source")


def open_reader(path: Path) -> sitk.ImageFileReader:
    """A reader that has read the header and found a 2D or 3D image.

    Raises:
        InputError: if it cannot be read or is none.
    """
    if ending_of(path, TEXT_ENDINGS):
        check_text_header(path)
    elif ending_of(path, (".bmp",)):
        check_bmp(path)
    elif ending_of(path, TIFF_ENDINGS):
        check_tiff(path)
    elif ending_of(path, (DICOM_ENDING,)):
        read_slice(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if ending_of(path, NIFTI_ENDINGS):  # else every format is asked whether the file is its own
        reader.SetImageIO("NiftiImageIO")
    try:
        with ITK_LOCK:
            reader.ReadImageInformation()
        check_header(path, reader)
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read as an image: {reason_of(error)}") from error
    return reader


def check_jpeg(path: Path) -> None:
    """Raise InputError for a picture that was cut off: ITK paints what is missing grey without a word."""
    if JPEG_END not in path.read_bytes()[-JPEG_TAIL_BYTES:]:
        raise InputError(f"{path}: truncated: the end of the picture is missing; copy it again from its source")


def check_bmp(path: Path) -> None:
    """Raise InputError for a picture that is not as long as its header says: ITK paints the rest without a word."""
    with path.open("rb") as file:
        head = file.read(BMP_HEADER.size)
    if len(head) == BMP_HEADER.size:
        first, width, height, bits, packing = BMP_HEADER.unpack(head)
        num_bytes = (width * bits + 31) // 32 * 4 * abs(height)  # rows are filled to four bytes
        if packing in RUN_LENGTHS:
            num_bytes //= MAX_RUN
        if width < 1 or not 0 < num_bytes <= path.stat().st_size - first:
            raise InputError(f"{path}: truncated: {width}×{height} pixels take {num_bytes} bytes; copy it again")


def check_tiff(path: Path) -> None:
    """Raise InputError where a directory of a TIFF's chain lies outside the file: ITK leaves such slices out."""
    content = path.read_bytes()
    order = "<" if content[:2] == b"II" else ">"
    if content[2:4] not in (b"*\0", b"\0*"):
        return  # BigTIFF, or no TIFF, as ITK will tell
    place, seen = 4, set()
    while place + 4 <= len(content) and place not in seen:
        seen.add(place)
        (first,) = struct.unpack_from(f"{order}I", content, place)
        if first == 0:
            return
        if first + 2 > len(content):
            break
        place = first + 2 + 12 * struct.unpack_from(f"{order}H", content, first)[0]
    raise InputError(f"{path}: truncated: a slice's directory lies outside the file; copy it again from its source")


def reason_of(error: RuntimeError) -> str:
    """The last line of ITK's message."""
    reason = str(error).strip().splitlines()[-1].split("ERROR: ")[-1]
    if "orthonormal" in reason:
        return SHEARED
    return reason


def check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    """Refuse what is no 2D or 3D image of one value or colour a voxel before its voxels are read."""
    size = reader.GetSize()
    if len(size) not in (2, 3, 4):
        shape = "×".join(map(str, size))
        raise InputError(f"{path}: is {len(size)}D ({shape}); expected a 2D or 3D image")
    num_values = reader.GetNumberOfComponents()
    if num_values != 1 and not (may_be_colour(path) and num_values in (MAX_COLOURS, MAX_COLOURS + 1)):
        raise InputError(f"{path}: holds {num_values} values a voxel; expected one: write one file a channel")
    if not all(spacing > 0 and np.isfinite(spacing) for spacing in reader.GetSpacing()):
        raise InputError(f"{path}: voxel spacing {reader.GetSpacing()} mm; each must be above zero: correct the header")


def affine_of(header: sitk.Image | sitk.ImageFileReader, path: Path) -> np.ndarray:
    """Affine (4, 4) of array indices for a SimpleITK image, or its header, of 2 to 4 axes; one slice is 1 mm thick."""
    axes = header.GetDimension()
    direction, spacing, origin = np.eye(max(axes, 3)), np.ones(max(axes, 3)), np.zeros(max(axes, 3))
    direction[:axes, :axes] = np.array(header.GetDirection()).reshape(axes, axes)
    spacing[:axes], origin[:axes] = header.GetSpacing(), header.GetOrigin()
    direction, spacing, origin = direction[:3, :3], spacing[:3], origin[:3]
    if np.abs(direction.T @ direction - np.eye(3)).max() > AXES_TOLERANCE:
        raise InputError(f"{path}: {SHEARED}")
    affine = np.eye(4)
    affine[:3, :3] = (direction * spacing)[:, ::-1]
    affine[:3, 3] = origin
    try:
        check_affine(affine)
    except ValueError as error:
        raise InputError(f"{path}: {error}; correct the header") from error
    size_mm = max(count * side for count, side in zip(header.GetSize(), spacing, strict=False))
    if max(size_mm, *np.abs(origin)) > MAX_PLACE_MM:
        raise InputError(
            f"{path}: an image of {size_mm:.4g} mm at {', '.join(f'{side:.4g}' for side in origin)} mm; no scanner is "
            "that large: correct the spacing or origin in the header"
        )
    return affine


def check_affine(affine: np.ndarray) -> None:
    """Raise ValueError unless the affine is (4, 4), finite and invertible."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"an affine is a finite (4, 4) matrix, not {affine!r}")
    if not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise ValueError("the affine is singular: a voxel side is zero or two axes coincide")


def picture_affine(path: Path, num_slices: int) -> np.ndarray:
    """Affine (4, 4) of a picture: 1 mm, or the spacing in the file beside a 3D TIFF.

    Raises:
        InputError: if a TIFF of several slices has no such file, or the file is wrong.
    """
    affine = np.eye(4)[[2, 1, 0, 3]]
    sidecar = find_sidecar(path)
    if sidecar is None:
        if num_slices == 1:
            return affine
        raise InputError(
            f"{path}: a TIFF of {num_slices} slices does not say its voxel size; write {sidecars_of(path)[-1].name} "
            'beside it: {"spacing": [slice, row, column]} in mm'
        )
    expected = 'write {"spacing": [slice, row, column]}, three numbers above zero (mm)'
    return affine * np.array([*read_record(sidecar, Sidecar, remedy=expected).spacing, 1.0])


class Sidecar(Record):
    """What stands beside a 3D TIFF; other keys are the user's own."""

    model_config = ConfigDict(extra="ignore")

    spacing: PositiveSpacing


def sidecars_of(path: Path) -> list[Path]:
    """Where the spacing of a TIFF may stand: <file>.json, or <case>.json for a channel's file <case>_0000.tif."""
    stem = path.name[: -len(ending_of(path, TIFF_ENDINGS) or "")]
    case = re.sub(r"_\d{4}$", "", stem)
    return [path.with_name(f"{name}.json") for name in dict.fromkeys((stem, case))]


def find_sidecar(path: Path) -> Path | None:
    """The file with a TIFF's spacing, if there is one."""
    if not ending_of(path, TIFF_ENDINGS):
        return None
    return next((sidecar for sidecar in sidecars_of(path) if sidecar.is_file()), None)


def files_of(path: Path) -> tuple[Path, ...]:
    """A file and those without which it says nothing: the voxels of an .mhd file, the spacing beside a TIFF."""
    beside = find_sidecar(path)
    if beside is not None:
        return path, beside
    if not ending_of(path, (".mhd",)) or not path.is_file():
        return (path,)
    names = voxel_files(path)
    found = sorted({file for name in names for file in path.parent.glob(name) if file.is_file() and file != path})
    return path, *found


def num_axes_of(path: Path) -> int:
    """2 of a picture or any other 2D file, else 3; a single DICOM slice lies in space, and has 3.

    Raises:
        InputError: if the header cannot be read.
    """
    return 3 if is_dicom(path) else min(open_reader(path).GetDimension(), 3)


def write_array(path: Path, array: np.ndarray, affine: np.ndarray, *, num_axes: int = 3) -> None:
    """Write (A0, A1, A2) in the format that the path's ending names, whole or not at all.

    Pictures lose origin and directions; a TIFF gets its spacing in a file beside it.

    Args:
        num_axes: 2 writes a single slice as a 2D image; pictures are 2D in any case.

    Raises:
        OutputError: if the disk is full, the folder cannot be written, or the format cannot hold the array.
    """
    is_picture = ending_of(path, PICTURE_ENDINGS) is not None
    is_flat = len(array) == 1 and (is_picture or num_axes == 2)
    image = sitk.GetImageFromArray(array[0] if is_flat else array)
    axes = image.GetDimension()
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if not is_picture:
        image.SetSpacing(spacing_mm[::-1][:axes].tolist())
        image.SetOrigin(affine[:axes, 3].tolist())
        image.SetDirection((affine[:3, :3] / spacing_mm)[:, ::-1][:axes, :axes].ravel().tolist())
    elif ending_of(path, TIFF_ENDINGS):
        write_text(sidecars_of(path)[0], json.dumps({"spacing": spacing_mm.tolist()}) + "\n")
    with atomic_path(path) as partial:
        try:
            with ITK_LOCK:
                sitk.WriteImage(image, str(partial), useCompression=True)
                written = sitk.GetArrayFromImage(sitk.ReadImage(str(partial)))
        except RuntimeError as error:
            raise OutputError(f"{path}: cannot be written; is the disk full or the folder read-only?") from error
        num_values = max(written.size // array.size, 1)  # three of a BMP: grey comes back as equal colours
        if not np.array_equal(written.ravel(), array.ravel().repeat(num_values)):  # ITK says nothing of a full disk
            raise OutputError(f"{path}: cannot be written; is the disk full or the folder read-only?")
