"""Where voxels come from when an image is turned, scaled or cut: for augmentation and for the crops of pre-training."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def rotation(turn: float, tilt_height: float, tilt_width: float) -> np.ndarray:
    """(3, 3) rotation over (depth, height, width) about the depth, then height, then width axis; angles in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate((turn, tilt_height, tilt_width)):
        first, second = ((1, 2), (2, 0), (0, 1))[axis]
        step = np.eye(3)
        step[first, first] = step[second, second] = math.cos(angle)
        step[second, first] = math.sin(angle)
        step[first, second] = -math.sin(angle)
        matrix = step @ matrix
    return matrix


def is_in_plane(matrix: np.ndarray) -> bool:
    """Whether each slice takes its voxels from one depth only."""
    return not (matrix[0, 1:].any() or matrix[1:, 0].any())


def grid_of(matrix: np.ndarray, centre: np.ndarray, shape: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """(1, *size, N) where to sample, as `grid_sample` has it: width first, -1 … 1 from edge to edge.

    As `affine_grid` would make it, but as a sum of one line for each axis: five times faster.

    Args:
        matrix: (N, N), voxels of the source a voxel of the result.
        centre: (N,), the middle of the result in voxels of the source.
        shape: of the source.
        size: of the result.
    """
    sides = np.array(shape)
    grid = torch.from_numpy(((2 * np.asarray(centre) + 1) / sides - 1)[::-1].astype(np.float32))
    for axis, side in enumerate(size):
        steps = 2 * (np.arange(side) - (side - 1) / 2)[:, None] * matrix[:, axis] / sides  # (side, N)
        line = torch.from_numpy(steps[:, ::-1].astype(np.float32))
        grid = grid + line.view(*(-1 if other == axis else 1 for other in range(len(size))), len(size))
    return grid[None]
