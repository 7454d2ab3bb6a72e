"""What a dataset looks like: the facts from which a plan follows."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from .errors import InputError
from .record import FormatVersion, PositiveShape, PositiveSpacing, Record, read_record
from .spacing import MAX_DA, Spacing, degree_of_anisotropy

log = logging.getLogger("spadunet")


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


def read_current(path: Path, name: str, digest: Callable[[], str]) -> Fingerprint | None:
    """The stored fingerprint of a dataset; None if there is none that can be read, or files have changed since.

    Args:
        digest: of the files as they are now, which is asked for only where there is a stored one to compare.
    """
    if not path.is_file():
        return None
    try:
        stored = read_record(path, Fingerprint, remedy="")
    except InputError as error:
        log.warning("%s; it is made again", error)
        return None
    if stored.source_digest != digest():
        return None
    log.info("%s: fingerprint is up to date: %s", name, path)
    return stored
