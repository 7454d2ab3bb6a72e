"""What gets one label: a study of one or several views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .classes import ClassSet
from .dataset import RawCase

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Study:
    """Images that share a label: one, or several views or series of one examination."""

    name: str
    patient: str
    split: SplitName | None
    """None where the table has no split."""
    views: tuple[RawCase, ...]
    """At least one, in the table's order; without label maps. Their names differ over a whole dataset."""
    labels: tuple[int, ...]
    """As `ClassSet` counts them; `UNKNOWN` for a finding that nobody looked for."""


@dataclass(frozen=True, kw_only=True)
class LabelledStudies:
    """A folder's studies, in the table's order."""

    name: str
    folder: Path
    channel_names: tuple[str, ...]
    classes: ClassSet
    studies: tuple[Study, ...]
    optional_channels: tuple[str, ...] = ()
    """Names of channels that a view may lack."""

    def of(self, split: SplitName | None) -> tuple[Study, ...]:
        """The studies of one split, or those of none."""
        return tuple(study for study in self.studies if study.split == split)

    @property
    def has_splits(self) -> bool:
        """True if the table says who trains, validates and tests."""
        return self.studies[0].split is not None
