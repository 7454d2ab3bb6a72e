"""Pairs of masks that make trouble for surface metrics: drawn ones, and real organs of the embedded datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

import spadunet
from spadunet.image import read_label_map
from spadunet.spacing import Spacing

DEMO = Path(spadunet.__file__).parent / "demo/data"
ANISOTROPIC: Spacing = (5.0, 0.7, 0.8)


class MaskPair(NamedTuple):
    """Two bool masks (D, H, W) on one grid."""

    name: str
    prediction: np.ndarray
    reference: np.ndarray
    spacing_mm: Spacing


def voxel_at(position: tuple[int, int, int], shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    """A bool mask of one voxel."""
    mask = np.zeros(shape, bool)
    mask[position] = True
    return mask


def blob(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Smooth random islands that cover a share of the array and touch its faces."""
    noise = gaussian_filter(rng.normal(size=shape), 1.5)
    return noise >= np.quantile(noise, 1 - share)


def drawn_pairs() -> Iterator[MaskPair]:
    """Islands, dust, single voxels, halves, slices, sheets and far corners."""
    rng = np.random.default_rng(4)
    for number, spacing_mm in enumerate([(1.0, 1.0, 1.0), ANISOTROPIC, (0.3, 2.5, 1.1)]):
        blobs = (blob(rng, (12, 17, 15), share) for share in (0.3, 0.4))
        yield MaskPair(f"blobs {number}", *blobs, spacing_mm)
        dust = (rng.random((9, 8, 7)) < share for share in (0.05, 0.1))
        yield MaskPair(f"dust {number}", *dust, spacing_mm)
        noise = (rng.random((5, 6, 7)) < 0.5 for _ in range(2))
        yield MaskPair(f"noise {number}", *noise, spacing_mm)
    shape, spacing_mm = (6, 7, 8), ANISOTROPIC
    yield MaskPair("one voxel each", voxel_at((0, 0, 0), shape), voxel_at((5, 6, 7), shape), spacing_mm)
    yield MaskPair("the same voxel", voxel_at((2, 3, 4), shape), voxel_at((2, 3, 4), shape), spacing_mm)
    yield MaskPair("one voxel in a full array", voxel_at((3, 3, 3), shape), np.ones(shape, bool), spacing_mm)
    half = np.zeros(shape, bool)
    half[:3] = True
    yield MaskPair("touching the faces, disjoint", half, ~half, spacing_mm)
    yield MaskPair("identical", half, half, spacing_mm)
    sheet, line = np.zeros((2, *shape), bool)
    sheet[2, 1:6, 1:7], line[4, 1:6, 3] = True, True
    yield MaskPair("a sheet and a line", sheet, line, spacing_mm)
    corners = np.zeros((2, 4, 40, 50), bool)
    corners[0, :2, :5, :5], corners[1, 2:, 35:, 45:] = True, True
    yield MaskPair("far apart", *corners, spacing_mm)
    for number in range(3):
        slices = (blob(rng, (20, 30), share)[None] for share in (0.3, 0.4))
        yield MaskPair(f"one slice {number}", *slices, (8.0, 0.7, 1.3))


def real_pairs() -> Iterator[MaskPair]:
    """Organs of one person against those of the next, and against themselves shifted by a voxel."""
    for folder, labels in (("Dataset004_Hippocampus", (1, 2)), ("Dataset101_SunnybrookLV", (1,))):
        maps = [read_label_map(path) for path in sorted((DEMO / folder / "labelsTs").glob("*.nii.gz"))[:3]]
        assert maps, folder
        shape = tuple(min(sizes) for sizes in zip(*(it.array.shape for it in maps), strict=True))
        crops = [it.array[tuple(slice(size) for size in shape)] for it in maps]
        for label in labels:
            for index, (crop, it) in enumerate(zip(crops, maps, strict=True)):
                mask, other = crop == label, crops[index - 1] == label
                corners = [np.argwhere(mask | other).min(axis=0) - 3, np.argwhere(mask | other).max(axis=0) + 4]
                box = tuple(slice(max(start, 0), stop) for start, stop in zip(*corners, strict=True))
                mask, other = mask[box], other[box]
                name = f"{folder[11:]} {label}"
                yield MaskPair(f"{name}, people {index}", mask, other, it.spacing_mm)
                yield MaskPair(f"{name}, shift {index}", mask, np.roll(mask, 1, axis=1), ANISOTROPIC)


ALL_PAIRS = [*drawn_pairs(), *real_pairs()]
NAMES = [pair.name for pair in ALL_PAIRS]
