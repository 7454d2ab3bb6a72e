"""Areas of surface elements: what marching cubes draws between eight neighbouring voxels.

The eight voxel centres are the corners of a cube; the surface cuts each edge between a corner inside the mask and one
outside at its middle. The table that surface-distance ships (Nikolov et al. 2021, doi:10.2196/26151) follows from
four rules, derived here instead of copied; a test compares all 256 values:

1. The fewer of inside and outside count as the corners to cut off; at four each, those inside.
2. Corners joined by edges are cut off together, by one loop through the middles of the edges that leave them.
3. Two middles follow each other in the loop where they lie on one face of the cube.
4. Loops that are not flat are filled with those triangles that have the largest area in a cube of side 1.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from ..spacing import Spacing

Corner = tuple[int, ...]
CORNERS: list[Corner] = list(itertools.product((0, 1), repeat=3))
"""(d, h, w) of the cube's corners; corner i is bit i of a code."""


@functools.lru_cache(maxsize=8)
def element_areas(spacing_mm: Spacing) -> np.ndarray:
    """Area in mm² of the surface within a cube of eight voxel centres, by code, float64 (256,).

    Bit i of a code tells whether the voxel at CORNERS[i] is in the mask; codes 0 and 255 have no area.
    """
    d, h, w = spacing_mm
    faces_mm2 = np.array([h * w, d * w, d * h])  # across each axis: how the parts of a normal scale
    return np.array([np.linalg.norm(normals * faces_mm2, axis=1).sum() for normals in normals_by_code()])


@functools.cache
def normals_by_code() -> list[np.ndarray]:
    """Normals of each code's triangles, as long as their areas in a cube of side 1, float64 (triangles, 3)."""
    found = []
    for code in range(256):
        corners = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
        if len(corners) > 4:
            corners = set(CORNERS) - corners
        normals = [normal for group in joined(corners) for normal in largest_filling(loop_around(group))]
        found.append(np.array(normals).reshape(-1, 3))
    return found


def joined(corners: set[Corner]) -> Iterator[list[Corner]]:
    """Groups of corners that edges of the cube join."""
    left = sorted(corners)
    while left:
        group = [left.pop()]
        for corner in group:  # grows as it goes
            neighbours = [other for other in left if is_edge(corner, other)]
            group += neighbours
            left = [other for other in left if other not in neighbours]
        yield group


def is_edge(corner: Corner, other: Corner) -> bool:
    """The two corners differ along one axis only."""
    return sum(a != b for a, b in zip(corner, other, strict=True)) == 1


def loop_around(group: list[Corner]) -> np.ndarray:
    """Middles of the edges that leave a group of corners, each on one face with the next, float64 (middles, 3)."""
    edges = [(a, b) for a in group for b in CORNERS if b not in group and is_edge(a, b)]
    middles = [(np.array(a) + b) / 2 for a, b in edges]
    loop = [middles.pop()]
    while middles:
        step = next(i for i, middle in enumerate(middles) if np.any((middle == loop[-1]) & (middle != 0.5)))
        loop.append(middles.pop(step))
    return np.array(loop)


def largest_filling(loop: np.ndarray) -> list[np.ndarray]:
    """Normals of the triangles that fill a loop (middles, 3) with the largest area."""
    return max(fillings(loop), key=lambda normals: sum(np.linalg.norm(normal) for normal in normals))


def fillings(loop: np.ndarray) -> Iterator[list[np.ndarray]]:
    """All ways to cut a loop (middles, 3) into triangles between its points, as normals as long as the areas."""
    if len(loop) < 3:
        yield []
        return
    first, last = loop[0], loop[-1]
    for tip in range(1, len(loop) - 1):  # of the triangle on the side from first to last
        normal = np.cross(loop[tip] - first, last - first) / 2
        for before in fillings(loop[: tip + 1]):
            for after in fillings(loop[tip:]):
                yield [normal, *before, *after]
