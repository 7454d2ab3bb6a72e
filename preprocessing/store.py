"""Preprocessed cases on disk: chunked and compressed, so that a patch is read without the volume.

A case is four files: `<name>.b2nd` (image), `<name>.classes.b2nd`, `<name>.foreground.npy` and, written last,
`<name>.json`. A case without its JSON file does not exist. An image that is classified as a whole has no label map, and
is the first and the last of these.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import blosc2
import numpy as np
from pydantic import Field
from scipy import ndimage

from ..case import Case, Geometry
from ..errors import InputError, OutputError
from ..files import atomic_path
from ..record import FormatVersion, Record, is_unused, read_record, write_record
from ..spacing import Shape

IMAGE_DTYPE = np.float16
"""Of stored images: finer than any scanner's steps within [-1, 1], and half the disk and reading of float32."""
COMPRESSION = {
    "codec": blosc2.Codec.LZ4,
    "clevel": 5,
    "filters": [blosc2.Filter.BITSHUFFLE],
    "filters_meta": [0],
}
"""Of CT in float16: six times faster to write than Blosc's default, half its time to read, and half as large again."""
MAX_CHUNK_VOXELS = 64
"""Per axis: a patch touches few chunks, and a chunk fits a processor's cache."""
MAX_FOREGROUND_VOXELS = 2000
"""Per class: as many places to centre a patch on as any training run uses."""


class CaseHeader(Record):
    """What is known of a stored case without opening its arrays."""

    format_version: FormatVersion = 1
    name: str
    made_from: str
    """Digest of the plan and of the raw files; a case is made again when it changes."""
    plan_digest: str
    num_channels: int
    geometry: Geometry
    missing_channels: tuple[int, ...] = Field(default=(), exclude_if=is_unused)
    annotated: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Names of the classes or regions that its label map tells of, where not of all."""
    is_labelled: bool = Field(default=True, exclude_if=bool)
    """False where there is no label map, but the image alone."""


@dataclass(frozen=True, kw_only=True)
class StoredCase:
    """A case on disk, read piece by piece."""

    folder: Path
    header: CaseHeader

    @property
    def name(self) -> str:
        """The case's name."""
        return self.header.name

    @property
    def da(self) -> int:
        """Degree of anisotropy of the arrays."""
        return self.header.geometry.da

    def foreground_voxels(self) -> np.ndarray:
        """(N, 4) int32: class number, depth, height, width of voxels as `sample_foreground` chose them; N may be 0.

        Of a labelled case.

        Raises:
            InputError: if the file is lost or damaged.
        """
        path = self.folder / f"{self.name}.foreground.npy"
        with naming(path):
            return np.load(path)

    def read_image(self) -> np.ndarray:
        """The whole image (C, D, H, W) float32; a missing channel is 0.

        Raises:
            InputError: if the file is lost or damaged.
        """
        path = image_path(self.folder, self.name)
        with naming(path):
            return np.asarray(blosc2.open(str(path), mode="r")[:], np.float32)

    def read_patch(self, first: Sequence[int], size: Shape, class_outside: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Image (C, *size) float32 and classes (*size) of the box at `first` of a labelled case.

        Outside the volume the image is -1, its darkest value. A missing channel is 0 everywhere.

        Args:
            class_outside: the class number outside the volume: background, or that of ignored voxels where a dataset
                has them, of which nothing is known there.

        Raises:
            InputError: if a file is lost or damaged.
        """
        inside, target = place_box(first, size, self.header.geometry.shape)
        image = np.full((self.header.num_channels, *size), -1, np.float32)
        classes = np.full(size, class_outside, np.int64)
        image_file, classes_file = image_path(self.folder, self.name), classes_path(self.folder, self.name)
        with naming(image_file):
            image[(slice(None), *target)] = blosc2.open(str(image_file), mode="r")[(slice(None), *inside)]
        image[list(self.header.missing_channels)] = 0
        with naming(classes_file):
            classes[target] = blosc2.open(str(classes_file), mode="r")[inside]
        return image, classes


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of a stored file that is read here that it is lost or damaged, and what to do.

    Raises:
        InputError: if it is.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        if not path.is_file():
            raise InputError(f"{path}: not found any more; run spadunet_preprocess") from error
        words = " ".join(str(error).split())
        raise InputError(
            f"{path}: damaged ({words}); free disk space if it is full, delete the file, and run spadunet_preprocess"
        ) from error


def place_box(
    first: Sequence[int], size: Shape, shape: Shape
) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
    """The part of a volume of `shape` that a box at `first` covers, and its place in the box; both may be empty."""
    sides = [(min(max(f, 0), n), min(max(f + s, 0), n)) for f, s, n in zip(first, size, shape, strict=True)]
    depth, height, width = (slice(start, stop) for start, stop in sides)
    d, h, w = (slice(start - f, stop - f) for (start, stop), f in zip(sides, first, strict=True))
    return (depth, height, width), (d, h, w)


def image_path(folder: Path, name: str) -> Path:
    """Where a case's image lies."""
    return folder / f"{name}.b2nd"


def classes_path(folder: Path, name: str) -> Path:
    """Where a case's class numbers lie."""
    return folder / f"{name}.classes.b2nd"


def store_case(
    folder: Path,
    case: Case,
    *,
    made_from: str,
    plan_digest: str,
    ignore_class: int | None = None,
    annotated: tuple[str, ...] = (),
) -> None:
    """Write a case, its JSON header last; one without classes is its image alone.

    Args:
        ignore_class: number of ignored voxels, if any are.
        annotated: names of the classes or regions that the label map tells of, where not of all.
    """
    write_array(image_path(folder, case.name), case.image.astype(IMAGE_DTYPE, copy=False))
    if case.classes is not None:
        write_array(classes_path(folder, case.name), case.classes)
        with atomic_path(folder / f"{case.name}.foreground.npy") as partial, partial.open("wb") as file:
            np.save(file, sample_foreground(case.classes, ignore_class))
    header = CaseHeader(
        name=case.name,
        made_from=made_from,
        plan_digest=plan_digest,
        num_channels=len(case.image),
        geometry=case.geometry,
        missing_channels=case.missing_channels,
        annotated=annotated,
        is_labelled=case.classes is not None,
    )
    write_record(folder / f"{case.name}.json", header)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one chunked array, whole or not at all.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    chunks = tuple(min(size, MAX_CHUNK_VOXELS) for size in array.shape)
    with atomic_path(path) as partial:
        partial.unlink(missing_ok=True)
        try:
            blosc2.asarray(
                np.ascontiguousarray(array), urlpath=str(partial), chunks=chunks, mode="w", cparams=COMPRESSION
            )
        except RuntimeError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}); is the disk full or the folder read-only?"
            ) from error


def sample_foreground(classes: np.ndarray, ignore_class: int | None = None) -> np.ndarray:
    """(N, 4) int32: class number and (depth, height, width) of at most MAX_FOREGROUND_VOXELS a class, at random.

    Of background too where some voxels may be ignored: a patch anywhere else could hold nothing to learn from.
    """
    generator = np.random.default_rng(0)
    rows = [np.zeros((0, 4), np.int32)]
    boxes = dict(enumerate(ndimage.find_objects(classes), start=1))
    if ignore_class is not None:
        boxes[0] = tuple(slice(0, size) for size in classes.shape)
        boxes.pop(ignore_class, None)
    for number, box in sorted(boxes.items()):
        if box is None:
            continue
        mask = classes[box] == number
        places = np.flatnonzero(mask)
        if len(places) > MAX_FOREGROUND_VOXELS:  # a stride would follow rows and columns
            places = places[generator.integers(len(places), size=MAX_FOREGROUND_VOXELS)]
        voxels = np.column_stack(np.unravel_index(places, mask.shape)) + [side.start for side in box]
        rows.append(np.column_stack([np.full(len(voxels), number), voxels]).astype(np.int32))
    return np.concatenate(rows)


def open_case(folder: Path, name: str) -> StoredCase:
    """Open one case.

    Raises:
        InputError: if it is not there or its header is damaged.
    """
    header = read_record(folder / f"{name}.json", CaseHeader, remedy="run spadunet_preprocess")
    arrays = [image_path(folder, name), *([classes_path(folder, name)] if header.is_labelled else [])]
    for path in (*arrays, *([folder / f"{name}.foreground.npy"] if header.is_labelled else [])):
        if not path.is_file():
            raise InputError(f"{path}: not found; run spadunet_preprocess")
    shape, num_channels = header.geometry.shape, header.num_channels
    try:
        stored = [blosc2.open(str(path), mode="r").shape for path in arrays]
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{folder / name}: damaged arrays ({error}); run spadunet_preprocess") from error
    if header.name != name or stored != [(num_channels, *shape), shape][: len(arrays)]:
        raise InputError(f"{folder / name}.json: is not that of the arrays beside it; run spadunet_preprocess")
    if any(not 0 <= number < num_channels for number in header.missing_channels):
        raise InputError(f"{folder / name}.json: missing_channels {header.missing_channels}; run spadunet_preprocess")
    return StoredCase(folder=folder, header=header)
