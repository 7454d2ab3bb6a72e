"""Patches as a scanner of another spacing would have given them: thicker slices, pixels of another size.

So a model meets several degrees of anisotropy, and either side of the boundary between two, whatever the spacing of
its training cases. Letters: C channels; D, H, W depth, height, width; k merged slices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..case import Geometry
from ..spacing import MAX_DA, Shape, degree_of_anisotropy

MAX_MERGED = 6
MIN_SLICES = 2
"""That merging leaves of a case: a single one would be a 2D image."""
MAX_PLANE_CHANGE = 2**0.5
"""Of a pixel's side: half a degree of anisotropy to either side."""


@dataclass(frozen=True, kw_only=True)
class Respacing:
    """How many neighbouring slices become one, and a pixel's side over that of the case."""

    num_merged: int = 1
    plane_factor: float = 1.0

    @property
    def is_none(self) -> bool:
        """True if patches keep their case's spacing."""
        return self == Respacing()

    def da_of(self, geometry: Geometry) -> int | None:
        """Degree of anisotropy that a case's patches get; None if the case has too few slices."""
        if self.is_none:
            return geometry.da
        if geometry.shape[0] < MIN_SLICES * self.num_merged or geometry.shape[0] == 1:
            return None
        depth, height, width = geometry.spacing_mm
        return degree_of_anisotropy((depth * self.num_merged, height * self.plane_factor, width * self.plane_factor))

    def source_size(self, size: Shape) -> Shape:
        """Voxels of a case that become a patch of this size."""
        depth, height, width = size
        return (
            depth * self.num_merged,
            max(round(height * self.plane_factor), 1),
            max(round(width * self.plane_factor), 1),
        )


def draw_respacing(
    geometry: Geometry, *, slice_merging: float, spacing_jitter: float, generator: np.random.Generator
) -> Respacing:
    """A change of spacing that leaves a volume a volume; none for a single slice.

    Nothing is drawn where both probabilities are 0.
    """
    respacing = Respacing()
    if slice_merging and generator.random() < slice_merging:
        numbers = range(2, min(MAX_MERGED, geometry.shape[0] // MIN_SLICES) + 1)
        respacing = Respacing(num_merged=int(generator.choice(numbers)) if numbers else 1)
    if spacing_jitter and generator.random() < spacing_jitter:
        exponent = generator.uniform(-1, 1)
        respacing = Respacing(num_merged=respacing.num_merged, plane_factor=MAX_PLANE_CHANGE**exponent)
    return respacing if respacing.da_of(geometry) not in (None, MAX_DA) else Respacing()


def degrees_met(geometry: Geometry, *, slice_merging: float, spacing_jitter: float) -> set[int]:
    """All degrees of anisotropy that patches may get from a case whose changes are drawn by `draw_respacing`."""
    found = {geometry.da}
    change = MAX_PLANE_CHANGE if spacing_jitter else 1.0
    for num_merged in range(1, (MAX_MERGED if slice_merging else 1) + 1):
        lowest = Respacing(num_merged=num_merged, plane_factor=change).da_of(geometry)
        highest = Respacing(num_merged=num_merged, plane_factor=1 / change).da_of(geometry)
        if lowest is not None and highest is not None:
            found |= set(range(lowest, highest + 1)) - {MAX_DA}
    return found


def respace(
    image: Tensor, classes: Tensor, respacing: Respacing, size: Shape, *, is_inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Bring the voxels that were read for a patch to its size.

    Args:
        image: (C, k·D, H', W') float32, of `Respacing.source_size(size)`.
        classes: (k·D, H', W') int64.
        is_inside: (k·D,) bool, slices that lie in the volume.

    Returns:
        Image (C, *size) and classes (k·D, H, W): labels keep the case's own slices, so that the loss can compare what
        is said of a merged slice with the share of each class in it.
    """
    if respacing.num_merged > 1:
        image = merge_slices(image, respacing.num_merged, is_inside)
        classes = classes[nearest_inside(respacing.num_merged, is_inside)]
    if image.shape[2:] != size[1:]:
        plane = list(size[1:])
        image = functional.interpolate(image, plane, mode="bilinear", antialias=True)
        classes = functional.interpolate(classes[None].float(), plane, mode="nearest-exact")[0].long()
    return image, classes


def merge_slices(image: Tensor, num_merged: int, is_inside: Tensor) -> Tensor:
    """Mean (C, D, H, W) of every k neighbouring slices that lie in the volume; of none, of all, which are dark.

    Args: as `respace`.
    """
    inside = is_inside.view(-1, num_merged)  # (D, k)
    weights = inside.float() / inside.sum(1, keepdim=True).clamp_min(1)
    weights[~inside.any(1)] = 1 / num_merged
    return torch.einsum("cdkhw,dk->cdhw", image.unflatten(1, (-1, num_merged)), weights)


def nearest_inside(num_merged: int, is_inside: Tensor) -> Tensor:
    """(k·D,) int64: numbers of the slices that labels are taken from.

    A merged slice that lies partly in the volume is told of by its slices inside: those beyond are as the nearest.

    Args: as `respace`.
    """
    numbers = torch.arange(len(is_inside))
    if not is_inside.any():
        return numbers
    inside = numbers[is_inside]
    is_partly = is_inside.view(-1, num_merged).any(1).repeat_interleave(num_merged)
    return torch.where(is_partly, numbers.clamp(inside.min(), inside.max()), numbers)
