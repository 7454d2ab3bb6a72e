"""A corpus: unlabelled images of every kind, preprocessed, in one folder that pre-training draws from.

`<data>/corpora/<name>/` holds `corpus.json` (the index, written last) and `images/<key>.b2nd`, one chunked array
(C, D, H, W) an image: float16 in [-1, 1], depth first.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import blosc2
import numpy as np
from pydantic import Field, computed_field, model_validator

from ..errors import InputError
from ..preprocessing.store import IMAGE_DTYPE, place_box, write_array
from ..record import FormatVersion, PositiveShape, PositiveSpacing, Record, is_unused, read_record
from ..spacing import Shape, degree_of_anisotropy

CORPUS_JSON, IMAGES_FOLDER = "corpus.json", "images"
ONE_AS_BITS = 0x3C00
"""Of float16, whose bits without the sign order as its values do; infinity and NaN come last."""
REMEDY = "run the spadunet_index command of this corpus again"

log = logging.getLogger("spadunet")


class CorpusImage(Record):
    """One entry of a corpus: a volume, a frame of a series, or a 2D picture (one slice)."""

    key: Annotated[str, Field(pattern=r"^[\w.+-]+$")]
    """Unique; the name of its array's file."""
    source: str
    """Path that it was read from, with `#` and a number where that holds several."""
    channel: int | None = Field(default=None, exclude_if=is_unused)
    """Its number, of several channels or frames in one file."""
    dataset: str
    modality: str
    shape: PositiveShape
    """(D, H, W), as stored."""
    spacing_mm: PositiveSpacing
    """(d, h, w), as stored."""
    num_channels: Literal[1, 3]
    weight: Annotated[float, Field(gt=0)]
    """How often it is drawn, relative to others: its own weight times its dataset's."""
    is_held_out: bool = False
    sha256: str | None = Field(default=None, exclude_if=is_unused)
    """Of its voxels, see `digest_of_voxels`; corpora made before it was kept have none."""

    @model_validator(mode="before")
    @classmethod
    def drop_da(cls, values: Any) -> Any:
        """It stands in corpus.json for readers, and follows from spacing and shape."""
        return {name: value for name, value in values.items() if name != "da"} if isinstance(values, dict) else values

    @computed_field  # type: ignore[prop-decorator]
    @property
    def da(self) -> int:
        """Degree of anisotropy; the largest for a single slice."""
        return degree_of_anisotropy(self.spacing_mm, self.shape[0])


class SkippedImage(Record):
    """A source that gave no image, and the line that says why."""

    source: str
    reason: str


class CorpusFilters(Record):
    """By what images were left out."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    """Patterns of paths within a dataset's folder."""
    min_side: int
    """Pixels in plane."""
    max_da: int | None = None


class CorpusIndex(Record):
    """What lies in a corpus, sorted by key."""

    format_version: FormatVersion = 1
    name: str
    filters: CorpusFilters | None = Field(default=None, exclude_if=is_unused)
    images: Annotated[tuple[CorpusImage, ...], Field(min_length=1)]
    skipped: tuple[SkippedImage, ...] = Field(default=(), exclude_if=is_unused)

    @model_validator(mode="after")
    def check(self) -> CorpusIndex:
        """Keys are unique, and something is left to train on."""
        keys = [image.key for image in self.images]
        if len(set(keys)) < len(keys):
            raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)} stands there twice")
        if all(image.is_held_out for image in self.images):
            raise ValueError("every image is held out; none is left to train on")
        return self


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus on disk, read box by box."""

    folder: Path
    index: CorpusIndex

    @cached_property
    def training(self) -> tuple[CorpusImage, ...]:
        """Images to draw from; never empty."""
        return tuple(image for image in self.index.images if not image.is_held_out)

    @cached_property
    def held_out(self) -> tuple[CorpusImage, ...]:
        """One image a dataset and modality, for pictures and measures; may be empty."""
        return tuple(image for image in self.index.images if image.is_held_out)

    def read_box(self, image: CorpusImage, first: Sequence[int], size: Shape) -> np.ndarray:
        """(C, *size) float32 in [-1, 1] of the box at `first` (depth, height, width); -1 outside the volume.

        Raises:
            InputError: if the stored array is gone, damaged or not that of the index.
        """
        path = image_path(self.folder, image.key)
        inside, target = place_box(first, size, image.shape)
        try:
            stored = blosc2.open(str(path), mode="r")
            shape, part = stored.shape, stored[(slice(None), *inside)]
        except Exception as error:  # a damaged header makes blosc2 raise anything, MemoryError too
            what = "cannot be read" if path.is_file() else "not found"
            raise InputError(f"{path}: {what} ({error}); {REMEDY}") from error
        if shape != (image.num_channels, *image.shape) or stored.dtype != IMAGE_DTYPE:
            raise InputError(
                f"{path}: is not the image of the index, which has shape {image.shape}; delete it and {REMEDY}"
            )
        if (part.view(np.uint16) & 0x7FFF).max(initial=0) > ONE_AS_BITS:  # ten times faster than comparing float16
            raise InputError(f"{path}: damaged: holds values outside [-1, 1]; delete it and {REMEDY}")
        box = np.full((image.num_channels, *size), -1, np.float32)
        box[(slice(None), *target)] = part
        return box


def image_path(folder: Path, key: str) -> Path:
    """Where an image of a corpus lies."""
    return folder / IMAGES_FOLDER / f"{key}.b2nd"


def store_image(folder: Path, key: str, array: np.ndarray) -> None:
    """Write one image of the corpus in `folder`, whole or not at all.

    Args:
        array: (C, D, H, W) in [-1, 1], depth first.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    write_array(image_path(folder, key), array.astype(IMAGE_DTYPE, copy=False))


def digest_of_voxels(array: np.ndarray) -> str:
    """SHA-256 of shape and values of an image (C, D, H, W) as it is stored: the same, whatever file it came in."""
    stored = np.ascontiguousarray(array, dtype=IMAGE_DTYPE)
    digest = hashlib.sha256(str(stored.shape).encode())
    digest.update(stored.data)
    return digest.hexdigest()


def load_corpus(folder: Path, *, may_lack_images: bool = False) -> Corpus:
    """Open a corpus.

    Args:
        may_lack_images: a run goes on although some are gone; they are named, and replaced as others that vanish.

    Raises:
        InputError: if there is none, its index is damaged, or stored images are missing.
    """
    index = read_record(folder / CORPUS_JSON, CorpusIndex, remedy="make it with spadunet_index")
    images = folder / IMAGES_FOLDER
    there = set(os.listdir(images)) if images.is_dir() else set()
    missing = [image.key for image in index.images if f"{image.key}.b2nd" not in there]
    if missing:
        number, total = len(missing), len(index.images)
        lack = f"{image_path(folder, missing[0])}: not found ({number} of {total} are missing)"
        if not may_lack_images or number == total:
            raise InputError(f"{lack}; {REMEDY}")
        log.warning("%s; other images take their place", lack)
    return Corpus(folder=folder, index=index)


def find_corpus(name: str, corpora: Path) -> Path:
    """The folder of a corpus that is given by its name or a path.

    Raises:
        InputError: if there is none; lists what there is.
    """
    for path in (Path(name), corpora / name):
        if (path / CORPUS_JSON).is_file():
            return path
    there = ", ".join(path.parent.name for path in sorted(corpora.glob(f"*/{CORPUS_JSON}"))) or "none"
    raise InputError(f"{name}: corpus not found; corpora in {corpora}: {there}; make one with spadunet_index")
