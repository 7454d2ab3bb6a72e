"""Voxel spacing and the paper's one rule: the degree of anisotropy."""

from __future__ import annotations

import math

Spacing = tuple[float, float, float]
"""Voxel size in mm along (depth, height, width)."""

Shape = tuple[int, int, int]
"""Number of voxels along (depth, height, width)."""

MAX_DA = 6
"""From here on every depth kernel of every network is pending: five in-plane halvings and one kernel below them."""

RATIO_TOLERANCE = 1e-4
"""float32 headers turn a ratio of exactly 4 into 3.9999."""


def degree_of_anisotropy(spacing_mm: Spacing, num_slices: int | None = None) -> int:
    """Halvings in plane after which slices are as far apart as pixels: floor(log2(s_slice / s_plane)), 0 … 6.

    s_plane is the smaller in-plane spacing (Luo et al. 2024, section 3). A single slice has no neighbour to mix
    with: it gets the largest value whatever its spacing, so that a network treats it as a 2D image.

    Args:
        spacing_mm: (depth, height, width), each > 0.
        num_slices: size along depth, where known.

    Raises:
        ValueError: if a spacing is not positive and finite.
    """
    if not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise ValueError(f"spacing_mm must be positive and finite, not {spacing_mm}")
    if num_slices == 1:
        return MAX_DA
    ratio = spacing_mm[0] / min(spacing_mm[1:]) * (1 + RATIO_TOLERANCE)
    return min(max(math.floor(math.log2(ratio)), 0), MAX_DA)
