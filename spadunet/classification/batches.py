"""Which studies make a batch, in real epochs. Everything follows from (seed, step), so a run can go on anywhere.

Letters: N studies in all, B of a batch, b of a group; L labels of a study; C channels; D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..inference.classify import layout_of, shape_of
from ..inference.studies import Studies
from ..preprocessing.views import View
from ..training.augment import Augmentation, draw_augmentation
from ..training.patch_recipes import PatchRecipe
from ..training.steps import ENDLESS
from ..training.workers import Drawn, make_ahead

ORDER, CHANGES, BRIGHTNESS = range(3)
"""Numbers of independent streams of random numbers."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Studies of one side of a split, with what is right for each."""

    names: tuple[str, ...]
    labels: np.ndarray
    """(N, L) int64, as `ClassSet` counts."""
    patients: tuple[str, ...]
    open: Callable[[], Studies]
    """Reads them, or makes ready to."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Studies of a batch that are alike in the sizes of their views."""

    places: tuple[int, ...]
    """Of its studies in the batch."""
    views: tuple[tuple[Tensor, int], ...]
    """(b, C, D, H, W) float32 in [-1, 1], at their own size, and the degree of anisotropy of each."""
    changes: tuple[tuple[Augmentation, ...], ...]
    """Of each view those of each study; empty for none."""

    def part(self, part: slice) -> list[tuple[Tensor, int]]:
        """The views of some of its studies."""
        return [(view[part], da) for view, da in self.views]


@dataclass(frozen=True, kw_only=True)
class StudyBatch:
    """Some studies of an epoch."""

    epoch: int
    """From 0."""
    names: tuple[str, ...]
    labels: Tensor
    """(B, L) int64."""
    groups: tuple[Group, ...]
    brightness: Tensor
    """(B,) factors of intensities in [0, 1]."""

    @property
    def da(self) -> int:
        """The largest degree of anisotropy."""
        return max(da for group in self.groups for _, da in group.views)

    @property
    def image(self) -> Sequence[str]:
        """A name for each study: nobody asks more of it than how many there are."""
        return self.names


class StudyStream(Dataset[StudyBatch]):
    """Batch number `step` of a run, for any step: every epoch goes through all studies in an order of its own.

    Args:
        recipe: how images are changed; None for not at all.
        is_dimmed: intensities, from 0 to 1, are multiplied by a number between 0 and 1.
    """

    def __init__(
        self,
        studies: Studies,
        labels: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        recipe: PatchRecipe | None,
        is_dimmed: bool,
    ):
        self.studies, self.labels = studies, torch.from_numpy(labels)
        self.batch_size, self.seed, self.recipe, self.is_dimmed = batch_size, seed, recipe, is_dimmed

    @property
    def num_steps(self) -> int:
        """Of an epoch; its last batch may be smaller."""
        return num_steps(len(self.studies), self.batch_size)

    def __getitem__(self, step: int) -> StudyBatch:
        epoch, place = divmod(step, self.num_steps)
        order = np.random.default_rng((self.seed, epoch, ORDER)).permutation(len(self.studies))
        numbers = order[place * self.batch_size : (place + 1) * self.batch_size].tolist()
        views = [self.studies[number] for number in numbers]
        members: dict[object, list[int]] = {}
        for index, study in enumerate(views):
            members.setdefault(layout_of(study), []).append(index)
        brightness = [self.generator(epoch, number, BRIGHTNESS).random() if self.is_dimmed else 1 for number in numbers]
        return StudyBatch(
            epoch=epoch,
            names=tuple(self.studies.names[number] for number in numbers),
            labels=self.labels[numbers],
            groups=tuple(self.group(epoch, numbers, views, places) for places in members.values()),
            brightness=torch.tensor(brightness, dtype=torch.float32),
        )

    def generator(self, epoch: int, number: int, stream: int) -> np.random.Generator:
        """Of one study in one epoch."""
        return np.random.default_rng((self.seed, epoch, stream, number))

    def group(
        self, epoch: int, numbers: Sequence[int], views: Sequence[tuple[View, ...]], places: Sequence[int]
    ) -> Group:
        """The studies at some places of a batch, which are of one layout."""
        together = list(zip(*(views[place] for place in places), strict=True))  # V times b views
        changes: list[tuple[Augmentation, ...]] = []
        if self.recipe is not None:
            generators = [self.generator(epoch, numbers[place], CHANGES) for place in places]
            for column in together:
                first = column[0]
                size, num_channels = shape_of(first), len(first.array)
                changes.append(
                    tuple(draw_augmentation(1, num_channels, first.da, size, it, self.recipe) for it in generators)
                )
        return Group(
            places=tuple(places),
            views=tuple(
                (
                    torch.from_numpy(np.stack([view.array.astype(np.float32, copy=False) for view in column])),
                    column[0].da,
                )
                for column in together
            ),
            changes=tuple(changes),
        )


def num_steps(num_studies: int, batch_size: int) -> int:
    """Of an epoch."""
    return -(-num_studies // batch_size)


def load_batches(stream: Dataset[Drawn], start_step: int, max_steps: int | None, num_workers: int) -> Iterator[Drawn]:
    """Batches from a step on, made ahead by worker processes, which end when this is closed."""
    return make_ahead(stream, range(start_step, ENDLESS if max_steps is None else max_steps), num_workers)
