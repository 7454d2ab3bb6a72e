"""Additive 3D rotary position embedding: EVA-02's 2D one, with depth added to the angles of both halves.

Luo et al. 2024, appendix A; the 2D form is EVA-02's (Fang et al. 2023), after Su et al. 2021. A head's first half is
turned by the row, its second by the column; the depth's angle is added to both. So tokens of one slice attend to each
other as in 2D, and 2D weights stay what they are. Letters: B batch, L tokens, N heads, E channels of a head.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

Grid = tuple[int, int, int]
"""Number of tokens along (depth, height, width)."""

PLANE_BASE = 10000.0
DEPTH_BASE = 2333.0  # smaller than PLANE_BASE, so that slices turn faster than rows (appendix A.3)

Rotation = Tensor
"""Cosine and sine of each token's angles, (1 + L, 1, E/2, 2). The first row is the cls token's, which is not turned."""


def plane_frequencies(head_dim: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Radians a row or column, (E/4,): base^(-2i / (E/2)). The half-head, not the head, is the denominator, as in
    EVA-02; of the readings of the paper's formula only this one gives its figures."""
    half = head_dim // 2
    return 1 / PLANE_BASE ** (torch.arange(0, half, 2, dtype=dtype, device=device) / half)


def depth_frequencies(
    head_dim: int, dtype: torch.dtype, device: torch.device | None = None, base: float = DEPTH_BASE
) -> Tensor:
    """Radians a slice, (E/4,): base^(-(2i + 1) / (E/2)). Odd exponents: no ratio to the plane's is rational, so no two
    positions share their angles (theorem 1)."""
    half = head_dim // 2
    return 1 / base ** (torch.arange(1, half, 2, dtype=dtype, device=device) / half)


def rotation_angles(grid: Grid, head_dim: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Angles in radians by which each pair of channels is turned: (L, E/2), tokens row-major over (d, h, w)."""
    plane, depth = (f(head_dim, dtype, device) for f in (plane_frequencies, depth_frequencies))
    z, y, x = (torch.arange(size, dtype=dtype, device=device) for size in grid)
    of_depth = (z[:, None] * depth).view(-1, 1, 1, len(depth))
    of_row = (of_depth + (y[:, None] * plane).view(1, -1, 1, len(plane))).expand(*grid, -1)
    of_column = (of_depth + (x[:, None] * plane).view(1, 1, -1, len(plane))).expand(*grid, -1)
    return torch.cat([of_row, of_column], dim=-1).flatten(0, 2)  # (L, E/2)


def make_rotation(grid: Grid, head_dim: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    """Cosine and sine for a cls token and a grid of tokens, as `rotate` takes them."""
    angles = rotation_angles(grid, head_dim, dtype, device)
    angles = torch.cat([angles.new_zeros(1, angles.shape[1]), angles])  # (1 + L, E/2)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)[:, None]  # (1 + L, 1, E/2, 2)


@lru_cache(maxsize=64)
def remember_rotation(grid: Grid, head_dim: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    """`make_rotation`, once for each size. Plain tensors even where prediction makes them first."""
    with torch.inference_mode(False):
        return make_rotation(grid, head_dim, dtype, device)


def rotation_of(grid: Grid, head_dim: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    """Cosine and sine for a network of that dtype: never below float32, in which neighbouring angles still differ.

    In a compiled graph they are made anew, since the compiler does not look into a cache: they cost nothing there.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    make = make_rotation if torch.compiler.is_compiling() else remember_rotation
    return make(grid, head_dim, dtype, device)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair of neighbouring channels of queries or keys (B, 1 + L, N, E) by its token's angle.

    Computed in the rotation's dtype, returned in that of `x`. As a product of complex numbers, which takes a quarter of
    the time of the real one on a CPU; the compiler, which fuses the real one, does not know them.
    """
    pairs = x.to(rotation.dtype).unflatten(-1, (-1, 2))  # (B, 1 + L, N, E/2, 2)
    if torch.compiler.is_compiling():
        (cos, sin), (a, b) = rotation.unbind(-1), pairs.unbind(-1)
        turned = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)
    else:
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)
