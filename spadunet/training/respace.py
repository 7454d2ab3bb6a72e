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
    image: Tensor,
    classes: Tensor,
    respacing: Respacing,
    size: Shape,
    *,
    is_inside: Tensor,
    is_late: bool,
    ignore_class: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Bring the voxels that were read for a patch to its size.

    Args:
        image: (C, k·D, H', W') float32, of `Respacing.source_size(size)`.
        classes: (k·D, H', W') int64.
        is_inside: (k·D,) bool, slices that lie in the volume; those beyond it neither count nor vote.
        is_late: which of the two middle slices decides where k is even and classes have as many votes.
        ignore_class: number of ignored voxels, if any are; they vote only where nothing else does.

    Returns:
        Image (C, *size) and classes (*size).
    """
    if respacing.num_merged > 1:
        image, classes = merge_slices(
            image, classes, respacing.num_merged, is_inside, is_late=is_late, ignore_class=ignore_class
        )
    if image.shape[2:] != size[1:]:
        plane = list(size[1:])
        image = functional.interpolate(image, plane, mode="bilinear", antialias=True)
        classes = functional.interpolate(classes[None].float(), plane, mode="nearest-exact")[0].long()
    return image, classes


def merge_slices(
    image: Tensor,
    classes: Tensor,
    num_merged: int,
    is_inside: Tensor,
    *,
    is_late: bool,
    ignore_class: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean of k neighbouring slices, and their most frequent class; of equally many, that nearest to the middle slice.

    Args: as `respace`.
    """
    inside = is_inside.view(-1, num_merged)  # (D, k)
    parts = image.unflatten(1, (-1, num_merged))  # (C, D, k, H, W)
    weights = inside.float() / inside.sum(1, keepdim=True).clamp_min(1)
    weights[~inside.any(1)] = 1 / num_merged  # all beyond the volume, and dark
    merged = torch.einsum("cdkhw,dk->cdhw", parts, weights)
    members = classes.unflatten(0, (-1, num_merged)).unbind(1)  # k of (D, H, W)
    voters = inside.unbind(1)  # k of (D,)
    middle = (num_merged - 1 + is_late) // 2
    most = torch.full_like(members[0], -1)
    winner = members[0]
    for number in sorted(range(num_merged), key=lambda number: abs(number - middle)):
        votes = torch.zeros_like(most)
        for other, is_voter in zip(members, voters, strict=True):
            votes += (members[number] == other) & is_voter[:, None, None]
        if ignore_class is not None:  # else strokes on single slices would be lost to what nobody has looked at
            votes[members[number] == ignore_class] = 0
        votes[~voters[number]] = -1
        is_more = votes > most
        most, winner = torch.where(is_more, votes, most), torch.where(is_more, members[number], winner)
    return merged, winner
