"""One augmented crop of a stored image: a place, one resampling, then intensities (Luo et al. 2024, appendix C).

All geometry (place, scale, rotation) is drawn first and composed, so that an image is interpolated once, from real
voxels wherever the image has them, and not at all where nothing is scaled or rotated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..spacing import Shape
from ..training.grids import grid_of, is_in_plane, rotation
from .corpus import Corpus, CorpusImage

ROTATION_SHARE = 0.3
MAX_TURN = math.pi / 2
"""About the depth axis."""
MAX_TILT = math.pi / 6
"""About the axes in plane, of images that are nearly isotropic."""
NEARLY_ISOTROPIC = 1.5
"""Slices at most this many times as far apart as pixels."""
FLIP_SHARE = 0.5
BRIGHTNESS_SHARE, BRIGHTNESS = 0.15, (0.75, 1.25)
CONTRAST_SHARE, CONTRAST = 0.15, (0.75, 1.25)
GAMMA_SHARE, GAMMA = 0.3, (0.7, 1.5)
INVERTED_SHARE = 0.5
"""Of the crops with gamma: inverted before and after, so that it acts on bright tissue."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where each voxel of a crop lies in the stored image: at `centre + matrix @ (voxel - middle of the crop)`."""

    size: Shape
    centre: np.ndarray
    """(3,) float64, the crop's middle in stored voxels; a voxel's own middle has whole numbers."""
    matrix: np.ndarray
    """(3, 3) float64, stored voxels a voxel of the crop, over (depth, height, width)."""
    flips: tuple[bool, bool, bool]

    @property
    def is_resampled(self) -> bool:
        """Whether voxels must be interpolated."""
        return not np.array_equal(self.matrix, np.eye(3))


def place_crop(
    image: CorpusImage, size: Shape, scales: tuple[float, float, float], generator: np.random.Generator
) -> Placement:
    """Draw where a crop lies: inside the image as far as it fits, in its middle where it does not.

    Rotations are about the crop's middle and in millimetres, so that nothing is sheared where voxels are no cubes.
    A crop of one slice stays within a slice.

    Args:
        scales: stored voxels a voxel of the crop along (depth, height, width).
    """
    extents = [(side - 1) * scale + 1 for side, scale in zip(size, scales, strict=True)]
    room = [n - extent for n, extent in zip(image.shape, extents, strict=True)]
    corner = [int(generator.integers(math.floor(r) + 1)) if r >= 0 else math.floor(r / 2) for r in room]
    chances, is_rotated = generator.uniform(-1, 1, 3), generator.random() < ROTATION_SHARE
    flips = generator.random(3) < FLIP_SHARE
    spacing = np.array(image.spacing_mm)
    is_tilted = size[0] > 1 and spacing[0] <= NEARLY_ISOTROPIC * spacing[1:].min()
    matrix = np.diag(scales)
    if is_rotated:
        angles = chances * (MAX_TURN, MAX_TILT, MAX_TILT) * (1, is_tilted, is_tilted)
        matrix = np.diag(1 / spacing) @ rotation(*angles) @ np.diag(spacing * scales)
    return Placement(
        size=size,
        centre=np.array([c + (extent - 1) / 2 for c, extent in zip(corner, extents, strict=True)]),
        matrix=matrix,
        flips=(bool(flips[0]), bool(flips[1]), bool(flips[2])),
    )


def read_crop(corpus: Corpus, image: CorpusImage, placement: Placement, max_slices: int) -> Tensor:
    """The voxels of a crop: (C, *size) float32 in [-1, 1], -1 outside the image.

    Only the box that the crop lies in is read, and at most `max_slices` slices of it, those around the crop's middle;
    beyond them it is as outside.

    Raises:
        InputError: if the stored image is gone or damaged.
    """
    half = (np.array(placement.size) - 1) / 2
    if placement.is_resampled:
        reach = np.abs(placement.matrix) @ half
        reach[0] = min(reach[0], max_slices / 2 - 1)
        first = np.maximum(np.floor(placement.centre - reach + 1e-6), 0).astype(int)
        last = np.minimum(np.ceil(placement.centre + reach - 1e-6), np.array(image.shape) - 1).astype(int)
        box = torch.from_numpy(corpus.read_box(image, first.tolist(), as_shape(last + 1 - first)))
        crop = resample(box.add_(1), placement, placement.centre - first).sub_(1).clamp_(-1, 1)  # outside is 0 here
    else:
        first = np.floor(placement.centre - half + 0.5).astype(int)
        crop = torch.from_numpy(corpus.read_box(image, first.tolist(), placement.size))
    return crop.flip([axis for axis, is_flipped in enumerate(placement.flips, start=1) if is_flipped])


def as_shape(sides: np.ndarray) -> Shape:
    """Three whole numbers."""
    depth, height, width = (int(side) for side in sides)
    return depth, height, width


def resample(box: Tensor, placement: Placement, centre: np.ndarray) -> Tensor:
    """Interpolate a crop (C, *size) from a box (C, d, h, w) of stored voxels, linearly along each axis; 0 outside.

    Where nothing is tilted, plane and depth are interpolated one after the other: the same, and ten times faster.

    Args:
        centre: of the crop, in voxels of the box.
    """
    matrix, (depth, height, width) = placement.matrix, placement.size
    if not is_in_plane(matrix):
        grid = grid_of(matrix, centre, box.shape[1:], placement.size)
        return functional.grid_sample(box[None], grid, align_corners=False)[0]
    slices = box.flatten(0, 1)[None]  # (1, C*d, h, w)
    grid = grid_of(matrix[1:, 1:], centre[1:], box.shape[2:], (height, width))
    slices = functional.grid_sample(slices, grid, align_corners=False)  # (1, C*d, H, W)
    places = centre[0] + matrix[0, 0] * (np.arange(depth) - (depth - 1) / 2)
    return interpolate_depth(slices.view(*box.shape[:2], height, width), places)


def interpolate_depth(box: Tensor, places: np.ndarray) -> Tensor:
    """(C, D, h, w) slices of a box (C, d, h, w) at depths that need not be whole; 0 outside."""
    num_slices = box.shape[1]
    places = places.round(6)  # millimetres and back leave no whole number whole
    below = np.floor(places).astype(int)
    result = torch.zeros(len(box), len(places), *box.shape[2:])
    for number, (index, upper) in enumerate(zip(below.tolist(), (places - below).tolist(), strict=True)):
        for source, weight in ((index, 1 - upper), (index + 1, upper)):
            if weight > 0 and 0 <= source < num_slices:
                result[:, number].add_(box[:, source], alpha=weight)
    return result


@dataclass(frozen=True, kw_only=True)
class Intensities:
    """How the values of a crop are changed; 1 changes nothing."""

    brightness: float = 1.0
    """Factor."""
    contrast: float = 1.0
    """Factor about the mean of each channel."""
    gamma: float = 1.0
    """Power."""
    is_inverted: bool = False
    """Whether the power acts on what is missing to the brightest value."""


def draw_intensities(generator: np.random.Generator) -> Intensities:
    """Each now and then."""
    chances = generator.random(4)
    brightness, contrast, gamma = (generator.uniform(*limits) for limits in (BRIGHTNESS, CONTRAST, GAMMA))
    return Intensities(
        brightness=brightness if chances[0] < BRIGHTNESS_SHARE else 1.0,
        contrast=contrast if chances[1] < CONTRAST_SHARE else 1.0,
        gamma=gamma if chances[2] < GAMMA_SHARE else 1.0,
        is_inverted=bool(chances[3] < INVERTED_SHARE),
    )


def change_intensities(crop: Tensor, changes: Intensities) -> Tensor:
    """The changed crop (C, D, H, W) in [-1, 1].

    Changed in [0, 1], where a factor leaves air black, and kept there by each step.
    """
    if changes.brightness == changes.contrast == changes.gamma == 1:
        return crop
    x = (crop + 1).mul_(0.5).clamp_(0, 1)  # interpolation may round beyond 1, of which no power is taken
    x.mul_(changes.brightness).clamp_(0, 1)
    if changes.contrast != 1:
        mean = x.mean((1, 2, 3), keepdim=True)
        x.sub_(mean).mul_(changes.contrast).add_(mean).clamp_(0, 1)
    if changes.gamma != 1:
        x = 1 - (1 - x).pow_(changes.gamma) if changes.is_inverted else x.pow_(changes.gamma)
    return x.mul_(2).sub_(1)
