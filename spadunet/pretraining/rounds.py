"""Which images are drawn, and at which scale: thousands of draws at once (Luo et al. 2024, appendix C)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spacing import MAX_DA, RATIO_TOLERANCE
from .corpus import Corpus
from .crops import NEARLY_ISOTROPIC

ROUND_SIZE = 16384
"""Draws that are made at once."""
SCALE_PLANE_SHARE, SCALE_PLANE = 0.5, (0.75, 2.0)
"""Share of crops that are scaled in plane, and by how much; above 1 they see more of the image."""
SCALE_DEPTH_SHARE, SCALE_DEPTH = 0.3, (0.8, 1.25)
"""As in plane, of images that are nearly isotropic."""


@dataclass(frozen=True, kw_only=True)
class ImageTable:
    """What the draws need to know of N images."""

    shares: np.ndarray
    """(N,) float64, sum of the weights up to and including each image."""
    ratio: np.ndarray
    """(N,) float64, how many times as far apart slices are as pixels."""
    num_slices: np.ndarray
    """(N,) int64."""
    side: np.ndarray
    """(N,) int64, the smaller of height and width in voxels."""

    @classmethod
    def of(cls, corpus: Corpus) -> ImageTable:
        """The images to train on."""
        images = corpus.training
        weights = np.array([image.weight for image in images], float)
        shapes = np.array([image.shape for image in images])
        spacings = np.array([image.spacing_mm for image in images])
        return cls(
            shares=np.cumsum(weights),
            ratio=spacings[:, 0] / spacings[:, 1:].min(1),
            num_slices=shapes[:, 0],
            side=shapes[:, 1:].min(1),
        )


def draw_round(table: ImageTable, side: int, round_number: int, generator: np.random.Generator) -> np.ndarray:
    """(5, ROUND_SIZE) float64: number, image, DA, scale in plane and in depth of draws by weight, with replacement.

    The scale in plane lies between 0.75 and what the image fills, but 2 at most: a small image is enlarged.

    Args:
        side: height and width of crops in voxels.
        round_number: how many rounds came before.
    """
    chance, is_scaled, scale, is_scaled_deep, scale_deep = generator.random((5, ROUND_SIZE))
    image = np.minimum(np.searchsorted(table.shares, chance * table.shares[-1], side="right"), len(table.shares) - 1)
    ratio, is_flat = table.ratio[image], table.num_slices[image] == 1
    lowest, highest = SCALE_PLANE[0], np.minimum(table.side[image] / side, SCALE_PLANE[1])
    scale_plane = np.where(is_scaled < SCALE_PLANE_SHARE, lowest + scale * (highest - lowest), 1.0)
    scales_depth = (is_scaled_deep < SCALE_DEPTH_SHARE) & (ratio <= NEARLY_ISOTROPIC) & ~is_flat
    lowest, highest = SCALE_DEPTH
    scale_depth = np.where(scales_depth, lowest + scale_deep * (highest - lowest), 1.0)
    da = np.where(is_flat, MAX_DA, degrees_of_anisotropy(ratio * scale_depth / scale_plane))
    numbers = round_number * ROUND_SIZE + np.arange(ROUND_SIZE)
    return np.stack([numbers, image, da, scale_plane, scale_depth])


def degrees_of_anisotropy(ratio: np.ndarray) -> np.ndarray:
    """`spacing.degree_of_anisotropy` of many ratios s_slice / s_plane at once."""
    return np.clip(np.floor(np.log2(ratio * (1 + RATIO_TOLERANCE))), 0, MAX_DA).astype(int)
