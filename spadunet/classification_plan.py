"""The plan of a classification: how images come to the network, and what they are told apart by."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from .classes import ClassSet
from .plan import MAX_PATCH_VOXELS, ImagePlan
from .record import PositiveShape, digest_of, is_unused
from .spacing import MAX_DA


class ClassificationPlan(ImagePlan):
    """Decisions for one dataset whose whole images are classified; human-readable, editable JSON."""

    kind: Literal["classification"] = "classification"
    input_size_voxels: PositiveShape | None = None
    """(depth, height, width) that every whole image is interpolated to; None: each has its own size.

    A single slice stays one whatever the depth."""
    brightness: float | None = Field(default=None, gt=0, exclude_if=is_unused)
    """What intensities, from 0 to 1, are multiplied by before a network sees them; None for not.

    Of a task that has learned from random brightness it is the mean of that: MedMNIST's regularisation."""
    classes: ClassSet
    fingerprint_digest: str

    @model_validator(mode="after")
    def check(self) -> ClassificationPlan:
        """Either a size or a spacing that images are brought to; one slice is two-dimensional."""
        size = self.input_size_voxels
        if size is None:
            return self
        if not self.is_native:
            raise ValueError(
                f"images are brought either to input_size_voxels {size} or to target_spacing_mm "
                f"{self.target_spacing_mm}; set one to null or the other to native"
            )
        if math.prod(size) > MAX_PATCH_VOXELS:
            raise ValueError(f"input_size_voxels {size}: an image has at most {MAX_PATCH_VOXELS} voxels")
        if size[0] == 1 and self.degree_of_anisotropy != MAX_DA:
            raise ValueError(f"input_size_voxels {size}: one slice has the degree of anisotropy {MAX_DA}")
        return self

    @property
    def is_planar(self) -> bool:
        """True if it was made for single slices."""
        size = self.input_size_voxels
        return self.degree_of_anisotropy == MAX_DA if size is None else size[0] == 1

    def preprocessing_digest(self) -> str:
        """Changes with what stored images depend on; classes are not among it."""
        included = {"channel_names", "intensity", "target_spacing_mm", "input_size_voxels"}
        return digest_of(self.model_dump_json(include=included))
