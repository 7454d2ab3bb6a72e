"""Spacing metadata of one dataset: all that training and prediction need to know of it. Never a layer or a width."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from .labels import LabelSet
from .record import FormatVersion, PositiveShape, PositiveSpacing, Record, digest_of, is_unused
from .spacing import MAX_DA, Shape

MAX_PATCH_VOXELS = 1 << 30
"""More than any device trains on: 1024³."""


class IntensityRule(Record):
    """How one channel is brought to [-1, 1].

    `window`: low and high are intensities, the same for every image (CT). `percentiles`: low and high are percentiles
    of each image's own non-zero voxels (MR and all else, whose scale differs from scan to scan).
    """

    kind: Literal["window", "percentiles"]
    low: float
    high: float

    @model_validator(mode="after")
    def check(self) -> IntensityRule:
        """Low below high; percentiles between 0 and 100."""
        if not self.low < self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.kind == "percentiles" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles lie between 0 and 100, not {self.low} and {self.high}")
        return self


class ImagePlan(Record):
    """What brings the images of a dataset to a network, whatever the task makes of them."""

    format_version: FormatVersion = 1
    dataset_name: str
    channel_names: tuple[str, ...]
    optional_channels: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Names of channels that a case may lack."""
    intensity: tuple[IntensityRule, ...]
    """By channel."""
    target_spacing_mm: PositiveSpacing | Literal["native"]
    """(depth, height, width), or native: no resampling, each case keeps its own."""
    degree_of_anisotropy: int = Field(ge=0, le=MAX_DA)
    """Of the target spacing, or of the median spacing where native."""

    @model_validator(mode="after")
    def check_channels(self) -> ImagePlan:
        """One rule a channel; only channels are optional."""
        if len(self.intensity) != len(self.channel_names):
            raise ValueError(f"{len(self.intensity)} intensity rules for {len(self.channel_names)} channels")
        if not set(self.optional_channels) <= set(self.channel_names):
            raise ValueError(f"optional_channels {self.optional_channels} are not all among {self.channel_names}")
        return self

    @property
    def is_native(self) -> bool:
        """True if images keep their own spacing."""
        return self.target_spacing_mm == "native"


class Plan(ImagePlan):
    """Decisions for one dataset that is segmented; human-readable, editable JSON."""

    patch_sizes_voxels: dict[int, PositiveShape]
    """Patch (depth, height, width) by the degree of anisotropy of the case; every degree has one."""
    labels: LabelSet
    memory_gb: float = Field(gt=0)
    fingerprint_digest: str

    @model_validator(mode="after")
    def check(self) -> Plan:
        """One patch a degree of anisotropy, none too large."""
        if sorted(self.patch_sizes_voxels) != list(range(MAX_DA + 1)):
            raise ValueError(f"patch_sizes_voxels needs a patch for each degree 0 … {MAX_DA}")
        if max(math.prod(patch) for patch in self.patch_sizes_voxels.values()) > MAX_PATCH_VOXELS:
            raise ValueError(f"a patch has at most {MAX_PATCH_VOXELS} voxels")
        return self

    def preprocessing_digest(self) -> str:
        """Changes with what stored cases depend on; patch sizes, memory and mirror images are not among it."""
        included = {"channel_names", "intensity", "target_spacing_mm", "labels"}
        return digest_of(self.model_dump_json(include=included, exclude={"labels": {"mirror_pairs"}}))

    @property
    def patch_size_voxels(self) -> Shape:
        """Patch at the plan's own degree of anisotropy."""
        return self.patch_sizes_voxels[self.degree_of_anisotropy]
