"""Which images of a corpus pictures show, and how a picture is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import InputError
from ..files import atomic_path
from .corpus import CorpusImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

log = logging.getLogger("spadunet")


def choose_images(images: Sequence[CorpusImage], count: int) -> list[CorpusImage]:
    """At most so many images, spread over degrees of anisotropy and modalities, and in their order; none of none."""
    ordered = sorted(images, key=lambda image: (image.da, image.modality, image.key))
    count = min(len(ordered), count)
    return [ordered[number * len(ordered) // count] for number in range(count)]


def still_readable(images: Iterable[CorpusImage], read: Callable[[CorpusImage], T]) -> list[T]:
    """What is read of each image; one that is gone or damaged is named and left out."""
    found = []
    for image in images:
        try:
            found.append(read(image))
        except InputError as error:
            log.warning("%s; left out of the pictures", error)
    return found


def save_figure(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=dpi, format="png")
