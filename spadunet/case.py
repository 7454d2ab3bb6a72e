"""A preprocessed case: what the network sees, and the way back to the image it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import model_validator

from .image import spacing_of
from .record import PositiveShape, PositiveSpacing, Record
from .spacing import Shape, Spacing, degree_of_anisotropy

Affine = tuple[
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
]


class Geometry(Record):
    """All that was done to a grid, in the order it was done; enough to undo it.

    Storage order → transpose by `axes` → flip the axes in `flips` → crop to `crop` → resample to `shape`.
    """

    stored_shape: PositiveShape
    stored_affine: Affine
    axes: tuple[int, int, int]
    """Array axes of the storage that become (depth, height, width)."""
    flips: tuple[bool, bool, bool]
    """Whether depth, height, width run against the storage."""
    crop: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    """First and past-the-last voxel kept, by (depth, height, width)."""
    shape: PositiveShape
    """Of the preprocessed array."""
    spacing_mm: PositiveSpacing
    """Of the preprocessed array."""

    @model_validator(mode="after")
    def check(self) -> Geometry:
        """Axes are a permutation; the crop lies inside the array."""
        if sorted(self.axes) != [0, 1, 2]:
            raise ValueError(f"axes must be 0, 1 and 2 in some order, not {self.axes}")
        if any(
            not 0 <= first < last <= size for (first, last), size in zip(self.crop, self.oriented_shape, strict=True)
        ):
            raise ValueError(f"crop {self.crop} does not lie inside the array of shape {self.oriented_shape}")
        return self

    @property
    def cropped_shape(self) -> Shape:
        """Shape after orientation and cropping, before resampling."""
        (a, b), (c, d), (e, f) = self.crop
        return b - a, d - c, f - e

    @property
    def cropped_spacing_mm(self) -> Spacing:
        """Spacing after orientation and cropping, before resampling."""
        spacing_mm = spacing_of(np.array(self.stored_affine))
        depth, height, width = (spacing_mm[axis] for axis in self.axes)
        return depth, height, width

    @property
    def oriented_shape(self) -> Shape:
        """Shape after orientation, before cropping."""
        a, b, c = (self.stored_shape[axis] for axis in self.axes)
        return a, b, c

    @property
    def da(self) -> int:
        """Degree of anisotropy of the preprocessed array."""
        return degree_of_anisotropy(self.spacing_mm, self.shape[0])


@dataclass(frozen=True, kw_only=True)
class Case:
    """Image (C, D, H, W) in [-1, 1], class numbers (D, H, W) where labelled, and their geometry."""

    name: str
    image: np.ndarray
    classes: np.ndarray | None
    geometry: Geometry
    missing_channels: tuple[int, ...] = ()
    """Numbers of optional channels that it lacks; 0 in the image, which adds nothing to a network's channel map."""

    def __post_init__(self) -> None:
        if self.image.shape[1:] != self.geometry.shape:
            raise ValueError(f"case {self.name}: image {self.image.shape} does not have shape {self.geometry.shape}")
        if self.classes is not None and self.classes.shape != self.geometry.shape:
            raise ValueError(f"case {self.name}: classes {self.classes.shape} do not have shape {self.geometry.shape}")
