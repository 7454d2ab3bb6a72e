"""Outlines of what a slice of a label map holds, as short as a page needs them.

Letters: h, w rows and columns of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from ..labels import Region, ids_in

STEPS = ((2, 0), (1, 1), (0, 2), (-1, 1), (-2, 0), (-1, -1), (0, -2), (1, -1))
"""Of an outline, (columns, rows) in half pixels; a letter of base64 holds two. The page's script knows them, too."""
LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
Outlines = list[list[tuple[int, str]]]
"""By slice, the number of a structure and its outline, as `trace` writes it."""


def outline_slice(ids: np.ndarray, structures: Mapping[int, Region]) -> list[tuple[int, str]]:
    """Outlines of the structures that a slice of label ids (h, w) has."""
    present = set(ids_in(ids))
    return [
        (number, trace(structure.mask_in(ids)))
        for number, structure in structures.items()
        if not present.isdisjoint(structure.ids)
    ]


def trace(mask: np.ndarray) -> str:
    """Outlines of a bool mask (h, w) midway between its pixels and the others: "x,y,steps" of each, spaces between.

    x and y are in half pixels from the picture's upper left corner; two of STEPS make a letter, the first times eight
    plus the second. An outline ends at most a step before it began. Holes have outlines of their own. Nothing of an
    empty mask.
    """
    from contourpy import contour_generator

    there = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(there[0]):
        return ""
    top, left = int(there[0][0]), int(there[1][0])
    part = mask[top : int(there[0][-1]) + 1, left : int(there[1][-1]) + 1]
    lines = cast("list[np.ndarray]", contour_generator(z=np.pad(part, 1).astype(np.float32)).lines(0.5))
    # A pixel's middle is an odd number of half pixels from the corner; padding has moved all by a pixel.
    return " ".join(encode(np.rint(2 * line).astype(int) + (2 * left - 1, 2 * top - 1)) for line in lines)


def encode(points: np.ndarray) -> str:
    """A closed outline (N + 1, 2) of x and y in half pixels, its first point repeated at the end."""
    steps = np.diff(points, axis=0)
    if len(steps) % 2:
        steps = steps[:-1]
    code_of = np.zeros((5, 5), int)
    for code, (across, down) in enumerate(STEPS):
        code_of[across + 2, down + 2] = code
    codes = code_of[steps[:, 0] + 2, steps[:, 1] + 2].reshape(-1, 2)
    return f"{points[0, 0]},{points[0, 1]},{LETTERS[codes[:, 0] * 8 + codes[:, 1]].tobytes().decode()}"
