"""From a source to its stored images: what a worker process does, and the journal by which nothing is done twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from ..dicom import in_series, read_series, read_slice
from ..errors import InputError
from ..files import write_text
from ..formats import MAX_COLOURS, files_of, may_be_colour
from ..image import MAX_VOXEL_BYTES, Image, read_image
from ..memory import available_bytes
from ..record import PositiveShape, PositiveSpacing, Record, digest_of
from ..sizes import BYTES_PER_DICOM_VALUE, count_values
from .corpus import SkippedImage, digest_of_voxels, image_path, store_image
from .sources import Source
from .standardise import bytes_to_standardise, frame_weight, standardise

JOURNAL = "sources.jsonl"
PREPROCESSING = "1"
"""Counts changes of what is stored, so that older images are made again."""
VOLUMES = ("CT", "CBCT", "MRI", "PET", "SPECT")
"""Modalities whose frames in one DICOM file are slices; those of others are pictures of a film."""


class StoredImage(Record):
    """An image that was stored: what only its voxels and header tell."""

    key: str
    source: str
    channel: int | None = None
    """Its number, of several channels or frames in one file."""
    shape: PositiveShape
    spacing_mm: PositiveSpacing
    num_channels: int
    weight: Annotated[float, Field(gt=0)] = 1.0
    """1, or that of a frame of a series."""
    num_bytes: int
    """Of its file."""
    sha256: str
    """Of its voxels."""


class Made(Record):
    """What became of one source; a line of the journal."""

    key: str
    """Of the source."""
    made_from: str
    """Digest of its files' sizes and times; it is made again when that changes."""
    images: tuple[StoredImage, ...]
    skipped: tuple[SkippedImage, ...] = ()


def make_images(source: Source, *, folder: Path) -> Made:
    """Read a source and store each of its images in a corpus folder; what cannot be used is named, not raised.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    made_from = digest_of_source(source)
    images: list[StoredImage] = []
    skipped: list[SkippedImage] = []
    try:
        for part in parts_of(source):
            try:
                standard = standardise(part.image)
            except InputError as error:
                skipped.append(SkippedImage(source=part.name, reason=f"{part.name}: {error}"))
                continue
            store_image(folder, part.key, standard.array)
            num_channels, depth, height, width = standard.array.shape
            images.append(
                StoredImage(
                    key=part.key,
                    source=part.name,
                    channel=part.channel,
                    shape=(depth, height, width),
                    spacing_mm=standard.spacing_mm,
                    num_channels=num_channels,
                    weight=part.weight,
                    num_bytes=image_path(folder, part.key).stat().st_size,
                    sha256=digest_of_voxels(standard.array),
                )
            )
    except InputError as error:
        skipped.append(SkippedImage(source=source.name, reason=str(error)))
    return Made(key=source.key, made_from=made_from, images=tuple(images), skipped=tuple(skipped))


@dataclass(frozen=True, kw_only=True)
class Part:
    """One image of a source, as read."""

    image: Image
    key: str
    name: str
    channel: int | None = None
    weight: float = 1.0


def parts_of(source: Source) -> Iterator[Part]:
    """The images of a source: one, or one for each channel of a multi-channel file or frame of a series.

    Raises:
        InputError: if it is gone, damaged or larger than the memory.
    """
    require_memory(source)
    image = read_source(source)
    array, is_colour = image.array, len(image.array) == MAX_COLOURS and may_be_colour(source.files[0])
    if source.is_film and array.shape[1] > 1:
        if source.modality.split("/")[0] in VOLUMES:
            raise InputError(
                f"{source.path}: holds {array.shape[1]} frames, whose places are not read; convert it, as dcm2niix does"
            )
        arrays = [array[:, number : number + 1] for number in range(array.shape[1])]
        weights = [frame_weight(len(arrays))] * len(arrays)
    elif len(array) == 1 or is_colour or source.series or source.is_film or source.slices:
        arrays, weights = [array], [1.0]
    else:
        arrays = [array[number : number + 1] for number in range(len(array))]
        weights = weights_of_channels(source, len(arrays))
    for number, (part, weight) in enumerate(zip(arrays, weights, strict=True)):
        is_one = len(arrays) == 1
        yield Part(
            image=Image(array=part, affine=image.affine),
            key=source.key if is_one else f"{source.key}+{number:03}",
            name=source.name if is_one else f"{source.name}#{number}",
            channel=None if is_one else number,
            weight=weight,
        )


def weights_of_channels(source: Source, num_channels: int) -> list[float]:
    """Weights of channels or frames: 1 of a channel that dataset.json names, and of a frame of b = 0 in a .bval file.

    All other frames together have the weight of one series.
    """
    if len(source.channel_names) == num_channels:
        return [1.0] * num_channels
    strengths = b_values(source.path, num_channels)
    if strengths is None:
        return [frame_weight(num_channels)] * num_channels
    num_directions = sum(value > 0 for value in strengths)
    return [frame_weight(num_directions) if value > 0 else 1.0 for value in strengths]


def b_values(path: Path, num_frames: int) -> list[float] | None:
    """Strengths of diffusion weighting, one a frame, of the .bval file beside an image; None without such a file."""
    beside = bval_beside(path)
    with contextlib.suppress(OSError, ValueError):
        values = [float(word) for word in beside.read_text(encoding="utf-8").split()]
        return values if len(values) == num_frames else None
    return None


def bval_beside(path: Path) -> Path:
    """Where FSL's b values of an image stand."""
    return path.with_name(f"{path.name.split('.nii')[0]}.bval")


def read_source(source: Source) -> Image:
    """All that a source holds.

    Raises:
        InputError: if it is gone, damaged, no 2D or 3D image or holds NaN.
    """
    if not source.slices:
        return read_image([source.path], series=source.series) if source.series else read_image([source.path])
    members = [member for path in source.slices if (member := read_slice(path)) is not None]
    series = in_series(members)
    if len(members) < len(source.slices) or len(series) != 1:
        raise InputError(f"{source.path}: its DICOM files have changed since they were found; run the command again")
    array, affine = read_series(series[0])
    return Image(array=array.astype(np.float32) if array.dtype.itemsize > MAX_VOXEL_BYTES else array, affine=affine)


def num_values(source: Source) -> int:
    """Values that a source holds, told from headers; 0 where they cannot be read."""
    if not source.slices:
        return count_values([source.path])
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in source.slices) // BYTES_PER_DICOM_VALUE
    return 0


def memory_to_make(source: Source) -> int:
    """Bytes at the peak."""
    return bytes_to_standardise(num_values(source))


def require_memory(source: Source) -> None:
    """Refuse an image that does not fit into memory, before the system kills the process.

    Raises:
        InputError: if there is less memory.
    """
    values, free = num_values(source), available_bytes()
    if bytes_to_standardise(values) > free:
        raise InputError(
            f"{source.name}: {values:,} voxels take about {bytes_to_standardise(values) / 1e9:.3g} GB of memory, and "
            f"{free / 1e9:.3g} GB are free; cut or shrink it, or use a larger machine"
        )


def digest_of_source(source: Source) -> str:
    """Changes when a file of the source does, by its size or time: contents of terabytes are not read to tell."""
    facts = [PREPROCESSING, source.name, str(len(source.channel_names))]
    beside = bval_beside(source.path)
    for path in (*source.slices, *([] if source.slices else files_of(source.path)), beside):
        with contextlib.suppress(OSError):
            found = path.stat()
            facts.append(f"{path} {found.st_size} {found.st_mtime_ns}")
    return digest_of("\n".join(facts))


def read_journal(folder: Path) -> dict[str, Made]:
    """What became of each source, by its key, the last word of it; nothing where there is no journal.

    A line that a killed run left half-written is passed over.
    """
    made = {}
    with contextlib.suppress(OSError), (folder / JOURNAL).open(encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(InputError):
                entry = Made.from_json(line)
                made[entry.key] = entry
    return made


def write_journal(folder: Path, made: Sequence[Made]) -> None:
    """Write the journal anew, a line a source."""
    write_text(folder / JOURNAL, "".join(f"{entry.model_dump_json()}\n" for entry in made))


def is_kept(source: Source, made: Made | None, folder: Path) -> bool:
    """True if all images of a source are stored, of the files as they are now."""
    if made is None or made.made_from != digest_of_source(source):
        return False
    try:
        sizes = [image_path(folder, image.key).stat().st_size for image in made.images]
    except OSError:
        return False
    return sizes == [image.num_bytes for image in made.images]
