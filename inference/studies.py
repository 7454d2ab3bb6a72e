"""Studies as a network that classifies sees them, one after the other, from wherever they come."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ..channels import pick_channels
from ..classification_plan import ClassificationPlan
from ..dataset import RawCase
from ..errors import InputError
from ..image import Image
from ..medmnist import MedMNIST, read_images
from ..preprocessing.store import open_case
from ..preprocessing.views import View, read_view, view_of_array, views_of_study
from ..study import SplitName, Study
from .channels import ChannelOrder
from .fitting_images import tell_saturation

log = logging.getLogger("spadunet")


class Studies(Protocol):
    """A sequence of studies."""

    @property
    def names(self) -> Sequence[str]:
        """Of each study, as tables call it."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, number: int) -> tuple[View, ...]:
        """The views of one, at least one."""


@dataclass(frozen=True, kw_only=True)
class MedMNISTStudies:
    """The images of one split of a MedMNIST file, each a study of one view at its own size."""

    names: tuple[str, ...]
    images: np.ndarray
    """(N, C, D, H, W) uint8."""
    plan: ClassificationPlan
    split: SplitName

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[View, ...]:
        return (view_of_array(self.names[number], self.images[number], self.plan),)

    def view_names(self, number: int) -> tuple[str, ...]:
        """That of the study."""
        return (self.names[number],)


def studies_of_medmnist(dataset: MedMNIST, split: SplitName, plan: ClassificationPlan) -> MedMNISTStudies:
    """Read a split's images.

    Raises:
        InputError: if they are damaged.
    """
    images = read_images(dataset, split)
    names = tuple(dataset.study_name(split, number) for number in range(len(images)))
    return MedMNISTStudies(names=names, images=images, plan=plan, split=split)


@dataclass(frozen=True, kw_only=True)
class FileStudies:
    """Studies read from their image files, and preprocessed by a plan, each time that they are asked for."""

    studies: tuple[Study, ...]
    plan: ClassificationPlan
    order: ChannelOrder | None = None
    """Of the images' channels; None for that of the plan."""
    split: str = ""
    """Which was asked for; empty where the data have none."""
    told: set[str] = field(default_factory=set, compare=False)
    """Preprocessings of which a warning was given: of each once."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each study."""
        return tuple(study.name for study in self.studies)

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: int) -> tuple[View, ...]:
        return tuple(views_of_study(self.studies[number], self.plan, read=self.read if self.order else None))

    def view_names(self, number: int) -> tuple[str, ...]:
        """In the study's order."""
        return tuple(raw.name for raw in self.studies[number].views)

    def read(self, raw: RawCase) -> Image:
        """An image with the channels of the plan, in its order.

        Raises:
            InputError: if it cannot be read, or lacks one.
        """
        assert self.order is not None
        if raw.problem is not None:
            raise InputError(raw.problem)
        image, _ = read_view(raw, num_channels=len(self.order.names))
        try:
            picked = pick_channels(image, self.order.numbers)
        except InputError as error:
            raise InputError(f"{raw.name}: {error}") from error
        seen = self.plan.preprocessing_digest()
        if seen not in self.told and (what := tell_saturation(picked, self.plan)):
            self.told.add(seen)
            log.warning("%s: %s", raw.paths[0], what)
        return picked


@dataclass(frozen=True, kw_only=True)
class StoredStudies:
    """Studies whose preprocessed views lie in a folder."""

    studies: tuple[Study, ...]
    folder: Path
    """cases/ of a preprocessed dataset."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of each study."""
        return tuple(study.name for study in self.studies)

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, number: int) -> tuple[View, ...]:
        cases = [open_case(self.folder, view.name) for view in self.studies[number].views]
        return tuple(
            View(name=case.name, array=case.read_image(), da=case.da, geometry=case.header.geometry) for case in cases
        )
