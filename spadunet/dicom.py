"""DICOM series: slices told apart by what they say of themselves and put in order by where they lie.

File names, instance numbers and the slice thickness say nothing sure of the order or the distance of slices; their
positions do (DICOM PS3.3, section C.7.6.2). Letters as in `image`.
"""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .itk import ITK_LOCK
from .record import shortened

SERIES_UID, SERIES_NUMBER, SERIES_DESCRIPTION = "0020|000e", "0020|0011", "0008|103e"
POSITION, ORIENTATION, PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
TELLING_APART = ("0020|0100", "0018|0081", "0018|0080", "0008|0008", "0020|0012")
"""Temporal position, echo time, repetition time, image type, acquisition number: what slices of one series that lie in
one place may differ in."""
DICOM_MAGIC = b"DICM"
STORAGE_CLASS = re.compile(rb"1\.2\.840\.10008\.(1\.3|5\.1\.4\.1\.1\.[0-9]+)")
NO_IMAGES = {b"1.3"} | {b"5.1.4.1.1." + number for number in (b"9", b"11", b"66", b"88", b"104", b"481")}
"""Directories, waveforms, presentation states, raw data, reports, documents, and what radiotherapy plans."""
GAP_TOLERANCE = 0.1
"""Share of the slice distance by which single distances may differ from it; more means that slices are missing."""
MAX_UNPACKING = 200
"""Times its size that a zip file may unpack to; slices pack to a half or a third, empty ones to a hundredth."""
DAMAGED_ZIP = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError)
"""What `zipfile` raises; RuntimeError where a damaged flag asks for a password or an unknown packer."""
UNIT_TOLERANCE = 0.01
MAX_PLACE_MM = 10_000
"""Further away, or larger, lies no scan; a damaged number does."""
TILT_TOLERANCE = 0.5
"""Pixels by which the stack may lean over its whole height (gantry tilt)."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One file's header, as far as it says where the slice belongs."""

    path: Path
    series: tuple[str, ...]
    """Series UID, number, description, and size, orientation and pixel spacing."""
    variant: tuple[str, ...]
    """Values of TELLING_APART."""
    position_mm: np.ndarray
    orientation: np.ndarray
    """Direction of rows and columns, (2, 3)."""
    pixel_spacing_mm: tuple[float, float]
    """Between rows, between columns."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices in the order of their positions along their normal."""

    name: str
    file_stem: str
    """Number and description as a part of a file's name, e.g. 3_T1; unique among the series of a folder."""
    slices: tuple[Slice, ...]
    problem: str | None = None
    """Why the slices are no volume, where two lie in one place."""


@contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder of a series; of a zip file, a temporary one with its content.

    Raises:
        InputError: if the zip file is damaged.
    """
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                require_room(path, archive, Path(folder))
                archive.extractall(folder)  # drops what would lead out of the folder; links become plain files
        except DAMAGED_ZIP as error:
            raise InputError(
                f"{path}: damaged zip file ({shortened(ascii(str(error)))}); copy it again from its source"
            ) from error
        try:
            yield Path(folder)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(path))) from error


def require_room(path: Path, archive: zipfile.ZipFile, folder: Path) -> None:
    """Raise InputError for a zip file that unpacks to far more than slices can, or than the disk has room for.

    No member unpacks to more than the archive's directory says: reading stops there, and its checksum fails.
    """
    num_bytes = sum(member.file_size for member in archive.infolist())
    if num_bytes > MAX_UNPACKING * path.stat().st_size:
        raise InputError(f"{path}: would unpack to {num_bytes / 1e9:.3g} GB; no DICOM series packs so closely")
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise InputError(
            f"{path}: unpacks to {num_bytes / 1e9:.3g} GB, but {folder} has {free / 1e9:.3g} GB; free some"
        )


def find_series(folder: Path) -> list[Series]:
    """All series in a folder and below it, by number and name; files that are no DICOM images are passed over.

    Slices of one series that lie in the same places are taken apart by echo, time or image type.

    Raises:
        InputError: if a file is damaged.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return in_series([found for path in paths if (found := read_slice(path)) is not None])


def in_series(members: Iterable[Slice]) -> list[Series]:
    """Slices of any number of series, as `find_series` puts them together."""
    groups: dict[tuple[str, ...], list[Slice]] = {}
    for member in members:
        groups.setdefault(member.series, []).append(member)
    series = []
    stems: set[str] = set()
    for key, slices in sorted(groups.items(), key=lambda item: (item[0][1].zfill(9), item[0])):
        (uid, number, description), problem = key[:3], None
        try:
            parts = take_apart(slices)
        except InputError as error:  # the other series of the folder are none the worse
            parts, problem = [slices], str(error)
        for index, part in enumerate(parts, start=1):
            name = description or f"series {number or uid}"
            stem = re.sub(r"[^\w-]+", "_", f"{number}_{description}").strip("_") or uid
            series.append(
                Series(
                    name=name if len(parts) == 1 else f"{name} {index}",
                    file_stem=unused_name(stem, stems),
                    slices=tuple(in_order(part)),
                    problem=problem,
                )
            )
    return series


def unused_name(name: str, taken: set[str]) -> str:
    """The name, or with the first number from 2 that is free; added to `taken` in lower case, as file systems may."""
    candidate, number = name, 2
    while candidate.casefold() in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate.casefold())
    return candidate


def holds_slices(folder: Path) -> bool:
    """True if the files of a folder (not below it) are the slices of a volume, rather than an image each."""
    if any(path.is_dir() for path in folder.iterdir()):
        return False
    return any(len(series.slices) > 1 for series in find_series(folder))


def read_slice(path: Path) -> Slice | None:
    """Header of one file; None if it is no DICOM image that lies somewhere.

    Raises:
        InputError: if it is a damaged one.
    """
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        with ITK_LOCK:
            reader.ReadImageInformation()
    except RuntimeError as error:
        try:
            content = path.read_bytes()
        except OSError as reason:
            raise InputError(f"{path}: cannot be read ({reason}); allow it or take it out") from error
        kind = STORAGE_CLASS.search(content[:1024])
        is_whole = content[128:132] == DICOM_MAGIC and kind is not None and kind[1] in NO_IMAGES
        looks_so = content[128:132] == DICOM_MAGIC or path.suffix.lower() == ".dcm"
        if looks_so and not is_whole:
            raise InputError(f"{path}: damaged DICOM file; copy it again from its source") from error
        return None
    missing = [key for key in (POSITION, ORIENTATION, PIXEL_SPACING, SERIES_UID) if not reader.HasMetaDataKey(key)]
    if POSITION in missing and ORIENTATION in missing:
        return None
    if missing:
        raise InputError(f"{path}: damaged DICOM file: has no tag {missing[0]}; export it again")
    text = {key: printable(reader.GetMetaData(key)) if reader.HasMetaDataKey(key) else "" for key in ALL_KEYS}
    try:
        position = np.array(numbers(text[POSITION], 3))
        orientation = np.array(numbers(text[ORIENTATION], 6)).reshape(2, 3)
        rows, columns = numbers(text[PIXEL_SPACING], 2)
    except ValueError as error:
        raise InputError(f"{path}: damaged position, orientation or pixel spacing: {error}; export it again") from error
    lengths = orientation @ orientation.T  # (2, 2)
    if np.abs(lengths - np.eye(2)).max() > UNIT_TOLERANCE or min(rows, columns) <= 0:
        raise InputError(
            f"{path}: row and column directions {text[ORIENTATION]}, pixel spacing {text[PIXEL_SPACING]} mm; "
            "expected two unit vectors at a right angle, and numbers above zero: export it again"
        )
    shape = "×".join(map(str, reader.GetSize()))
    directions = " ".join(f"{value:.3f}" for value in orientation.ravel() + 0.0)
    spacings = f"{rows:.4g} {columns:.4g}"
    return Slice(
        path=path,
        series=(text[SERIES_UID], text[SERIES_NUMBER], text[SERIES_DESCRIPTION], shape, directions, spacings),
        variant=tuple(text[key] for key in TELLING_APART),
        position_mm=position,
        orientation=orientation,
        pixel_spacing_mm=(rows, columns),
    )


ALL_KEYS = (SERIES_UID, SERIES_NUMBER, SERIES_DESCRIPTION, POSITION, ORIENTATION, PIXEL_SPACING, *TELLING_APART)


def printable(text: str) -> str:
    """Without padding and what no terminal or file name can show."""
    return "".join(character for character in text if character.isprintable()).strip()


def numbers(text: str, count: int) -> list[float]:
    """A multi-valued decimal string.

    Raises:
        ValueError: if it holds another number of values, or one that is no number.
    """
    values = [float(part) for part in text.split("\\")]
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"expected {count} numbers, found {text}")
    return values


def normal_of(member: Slice) -> np.ndarray:
    """Unit vector across the slice."""
    normal = np.cross(member.orientation[0], member.orientation[1])
    return normal / np.linalg.norm(normal)


def height_mm(member: Slice) -> float:
    """Where the slice lies along its normal."""
    return float(normal_of(member) @ member.position_mm)


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """From the lowest to the highest along the normal."""
    return sorted(slices, key=height_mm)


def take_apart(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Slices of one series as stacks in which each lies in a place of its own.

    Raises:
        InputError: if two lie in one place and nothing tells them apart.
    """
    if is_stack(slices):
        return [list(slices)]
    for index in range(len(TELLING_APART)):
        stacks: dict[str, list[Slice]] = {}
        for member in slices:
            stacks.setdefault(member.variant[index], []).append(member)
        if len(stacks) > 1 and all(is_stack(stack) for stack in stacks.values()):
            return [stacks[key] for key in sorted(stacks)]
    ordered = in_order(slices)
    first = next(a for a, b in zip(ordered[:-1], ordered[1:], strict=True) if height_mm(b) - height_mm(a) < 1e-3)
    raise InputError(
        f"{first.path}: another slice of its series lies in the same place ({height_mm(first):.4g} mm), and neither "
        "time, echo nor image type tells them apart; keep one volume a folder"
    )


def is_stack(slices: Sequence[Slice]) -> bool:
    """True if no two slices lie in one place."""
    heights = np.sort([height_mm(member) for member in slices])
    return bool((np.diff(heights) > 1e-3).all())


def affine_of_series(series: Series) -> np.ndarray:
    """Affine (4, 4) of array indices (slice, row, column), from positions alone.

    A single slice is 1 mm thick by convention: it has no neighbour.

    Raises:
        InputError: if slices are missing, or the stack leans (gantry tilt).
    """
    first, last = series.slices[0], series.slices[-1]
    step = normal_of(first)
    if len(series.slices) > 1:
        heights = np.array([height_mm(member) for member in series.slices])
        gaps = np.diff(heights)
        distance = float(np.sort(gaps)[(len(gaps) - 1) // 2])
        wrong = np.flatnonzero(np.abs(gaps - distance) > GAP_TOLERANCE * distance)
        if wrong.size:
            index = int(wrong[0])
            raise InputError(
                f"{series.slices[index].path}: {gaps[index]:.4g} mm to the next slice of '{series.name}', but "
                f"{distance:.4g} mm between most; slices are missing or doubled: export the series again"
            )
        step = (last.position_mm - first.position_mm) / (len(series.slices) - 1)
        lean = np.linalg.norm(step - (step @ normal_of(first)) * normal_of(first)) * (len(series.slices) - 1)
        if lean > TILT_TOLERANCE * min(first.pixel_spacing_mm):
            raise InputError(
                f"{first.path}: the slices of '{series.name}' are shifted by {lean:.4g} mm against each other (gantry "
                "tilt); resample the series to an upright grid, as dcm2niix does"
            )
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.orientation[1] * first.pixel_spacing_mm[0]
    affine[:3, 2] = first.orientation[0] * first.pixel_spacing_mm[1]
    affine[:3, 3] = first.position_mm
    if np.abs(affine).max() > MAX_PLACE_MM:
        raise InputError(f"{first.path}: lies, or has pixels, further than {MAX_PLACE_MM} mm apart; export it again")
    return affine


def read_series(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Channels (C, A0, A1, A2) in stored units with rescale slope and intercept applied, and affine.

    Raises:
        InputError: if two slices lie in one place, one cannot be read, or as `affine_of_series`.
    """
    if series.problem:
        raise InputError(series.problem)
    affine = affine_of_series(series)
    planes = []
    for member in series.slices:
        try:
            with ITK_LOCK:
                image = sitk.ReadImage(str(member.path), imageIO="GDCMImageIO")
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].split("ERROR: ")[-1]
            raise InputError(f"{member.path}: cannot be read as a DICOM slice: {reason}") from error
        frames = sitk.GetArrayFromImage(image)  # (frames, A1, A2) or (frames, A1, A2, C)
        if len(frames) != 1:
            raise InputError(f"{member.path}: holds {len(frames)} frames; expected a slice a file: export it so")
        plane = frames[0]
        planes.append(plane[None] if plane.ndim == 2 else np.moveaxis(plane, -1, 0))
        if planes[-1].shape != planes[0].shape:
            raise InputError(f"{member.path}: has other channels than the first slice; keep one series a folder")
    return np.stack(planes, axis=1), affine


def read_dicom(path: Path, file_stem: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """As `read_series`, of a folder or a zip file.

    Args:
        file_stem: of the series, where there may be several.

    Raises:
        InputError: as `read_series` and `the_one_series`.
    """
    with opened(path) as folder:
        return read_series(the_one_series(path, folder, file_stem))


def the_one_series(path: Path, folder: Path, file_stem: str | None = None) -> Series:
    """The series of a case.

    Args:
        path: what the user calls it, for messages.
        folder: where its files lie.
        file_stem: which of several.

    Raises:
        InputError: if there is none, or more than one and no word which; lists them.
    """
    series = find_series(folder)
    if file_stem is not None:
        series = [member for member in series if member.file_stem == file_stem]
    if not series:
        raise InputError(f"{path}: holds no DICOM slices with a position; expected one series")
    if len(series) > 1:
        listed = "; ".join(f"{member.name} ({len(member.slices)} slices)" for member in series)
        raise InputError(f"{path}: holds {len(series)} series: {listed}; put each into a folder of its own")
    return series[0]
