"""Channels go by their names, not by their order; how names are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .errors import InputError
from .image import Image


def plain_name(name: str) -> str:
    """`Left_Kidney` and `left kidney`, `T1-Gd` and `t1 gd` are one name."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


COLOURS = ("red", "green", "blue")


def are_colours(names: Sequence[str]) -> bool:
    """Whether channels are the colours of one picture, which a backbone sees as they are, and not contrasts."""
    return tuple(map(plain_name, names)) == COLOURS


def usual_names(num_channels: int, *, may_be_colour: bool) -> tuple[str, ...]:
    """Of channels that nobody has named.

    Args:
        may_be_colour: they come from one file, of a format that holds colours so.
    """
    if may_be_colour and num_channels == len(COLOURS):
        return COLOURS
    return tuple(f"channel {number}" for number in range(num_channels))


def match_names(wanted: Sequence[str], given: Sequence[str]) -> tuple[int | None, ...]:
    """The number among the given names of each wanted one, as `plain_name` has them; None where it is not there.

    Of a name that occurs several times, the first means the first, the second the second.
    """
    places: dict[str, list[int]] = {}
    for number, name in enumerate(given):
        places.setdefault(plain_name(name), []).append(number)
    numbers: list[int | None] = []
    for name in wanted:
        there = places.get(plain_name(name), [])
        numbers.append(there.pop(0) if there else None)
    return tuple(numbers)


def pick_channels(image: Image, numbers: Sequence[int | None]) -> Image:
    """An image with these channels in this order; None stands for one that is missing.

    Raises:
        InputError: if none is left.
    """
    if tuple(numbers) == tuple(range(len(image.array))):
        return image
    missing = tuple(place for place, number in enumerate(numbers) if number is None or number in image.missing_channels)
    if len(missing) == len(numbers):
        raise InputError("the image has none of the channels that the model knows")
    nothing = np.zeros_like(image.array[0])
    array = np.stack([nothing if number is None else image.array[number] for number in numbers])
    return replace(image, array=array, missing_channels=missing)
