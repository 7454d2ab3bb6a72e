"""Grey and colour pictures in one folder, told before any work."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .dataset import RawCase
from .errors import InputError
from .formats import MAX_COLOURS, PICTURE_ENDINGS, ending_of, read_channels, read_header

MAX_LOOKED_AT = 8
"""Colour pictures that are read, since some of them may be grey all the same."""

log = logging.getLogger("spadunet")


def require_colours(where: object, cases: Sequence[RawCase], num_channels: int, *, reason: str, remedy: str) -> None:
    """Refuse colour pictures where grey ones are expected, and tell of grey ones among colours, which are made such.

    Args:
        where: the folder, as messages call it.
        num_channels: of an image; where it is neither 1 nor 3, pictures are told in their turn.
        reason: why grey or colours are expected.

    Raises:
        InputError: in one line.
    """
    pictures = [case for case in cases if is_picture(case) and len(case.paths) == 1]
    if num_channels not in (1, MAX_COLOURS) or not pictures:
        return
    coloured = [case.paths[0] for case in pictures if is_colour_file(case.paths[0])]
    if num_channels == 1:
        shown = next((path for path in coloured[:MAX_LOOKED_AT] if shows_colour(path)), None)
        if shown is not None:
            raise InputError(
                f"{where}: {len(coloured)} of {len(cases)} images are colour pictures, such as {shown.name}, but "
                f"{reason}; {remedy}"
            )
    elif len(coloured) < len(pictures):
        grey = next(case.paths[0] for case in pictures if case.paths[0] not in set(coloured))
        log.warning(
            "%s: %d of %d images are grey pictures, such as %s, but %s: each channel gets the grey",
            *(where, len(pictures) - len(coloured), len(cases), grey.name, reason),
        )


def is_picture(case: RawCase) -> bool:
    """Whether an image is of a format of pictures."""
    return ending_of(case.paths[0], PICTURE_ENDINGS) is not None


def is_colour_file(path: Path) -> bool:
    """Whether a picture's header announces colours; not of one that cannot be read, which is told in its turn."""
    try:
        header = read_header(path)
    except InputError:
        return False
    return header is not None and header.num_channels == MAX_COLOURS


def shows_colour(path: Path) -> bool:
    """Whether the channels of a picture differ somewhere."""
    try:
        array, _ = read_channels(path)
    except InputError:
        return False
    return bool((array != array[:1]).any())
