"""What a dataset looks like: the facts from which a plan follows."""

from __future__ import annotations

import statistics

from pydantic import Field

from .record import FormatVersion, PositiveShape, PositiveSpacing, Record
from .spacing import MAX_DA, Spacing, degree_of_anisotropy


class CaseFacts(Record):
    """One case after orientation and cropping: depth first."""

    name: str
    spacing_mm: PositiveSpacing
    shape: PositiveShape

    @property
    def da(self) -> int:
        """Its own degree of anisotropy."""
        return degree_of_anisotropy(self.spacing_mm, self.shape[0])


class IntensityFacts(Record):
    """Foreground intensities of one channel over the dataset (labelled voxels, sampled evenly over the cases)."""

    percentile_00_5: float
    percentile_50: float
    percentile_99_5: float
    mean: float
    std: float


class Fingerprint(Record):
    """Spacings, shapes and intensities of all training cases."""

    format_version: FormatVersion = 1
    dataset_name: str
    source_folder: str = ""
    """Where the raw dataset lay."""
    source_digest: str
    """Changes when a file of the dataset does."""
    cases: tuple[CaseFacts, ...] = Field(min_length=1)
    intensities: tuple[IntensityFacts, ...]
    """By channel."""

    def digest(self) -> str:
        """As for every record, wherever the raw dataset lies."""
        return super(Fingerprint, self.model_copy(update={"source_folder": ""})).digest()

    def volumes(self) -> tuple[CaseFacts, ...]:
        """The cases with more than one slice, or all if there is none."""
        volumes = tuple(case for case in self.cases if case.shape[0] > 1)
        return volumes or self.cases

    def median_spacing_mm(self) -> Spacing:
        """Median by axis; the depth spacing of single slices means nothing and is left out."""
        depth = statistics.median(case.spacing_mm[0] for case in self.volumes())
        height, width = (statistics.median(case.spacing_mm[axis] for case in self.cases) for axis in (1, 2))
        return depth, height, width

    def is_planar(self) -> bool:
        """True if every case is one slice."""
        return all(case.shape[0] == 1 for case in self.cases)

    def da_of(self, spacing_mm: Spacing) -> int:
        """Degree of anisotropy at a target spacing."""
        return MAX_DA if self.is_planar() else degree_of_anisotropy(spacing_mm)
