"""Which patches make a batch. Everything is drawn from (seed, step), so a run can resume anywhere and any number of
workers sees the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..plan import Plan
from ..plans.patch import VOXELS_PER_GB
from ..preprocessing.mirror import MirrorAxis, mirror_axes
from ..preprocessing.store import StoredCase
from ..spacing import Shape
from .augment import Augmentation, augment, draw_augmentation, drop_channels, join, mirror
from .patch_recipes import FOREGROUND_SHARE, PATCH_RECIPES
from .respace import Respacing, degrees_met, draw_respacing, respace
from .variety import Variety

MIN_BATCH_SIZE, MAX_BATCH_SIZE = 2, 4


def choose_batch_size(plan: Plan, da: int) -> int:
    """Two patches a step, for which the plan's memory is meant; up to four where small images leave room."""
    room = 2 * plan.memory_gb * VOXELS_PER_GB
    return max(MIN_BATCH_SIZE, min(MAX_BATCH_SIZE, int(room / math.prod(plan.patch_sizes_voxels[da]))))


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One dataset in a run: its plan, the cases to train on, patches a batch, and how often it is drawn.

    batch_size None: as many as `choose_batch_size` finds room for, and up to a multiple of `batch_multiple`.
    class_weights: how much each output counts in the loss; None for alike.
    """

    name: str
    plan: Plan
    cases: tuple[StoredCase, ...]
    batch_size: int | None
    batch_multiple: int = 1
    weight: float = 1.0
    variety: Variety = Variety()
    class_weights: tuple[float, ...] | None = None

    def num_patches(self, da: int) -> int:
        """In a batch of cases of this degree of anisotropy, over all processes."""
        if self.batch_size is not None:
            return self.batch_size
        return -(-choose_batch_size(self.plan, da) // self.batch_multiple) * self.batch_multiple

    def batch_sizes(self) -> list[int]:
        """Of all batches that may be drawn, respaced ones too."""
        merging, jitter = self.variety.slice_merging, self.variety.spacing_jitter
        geometries = [case.header.geometry for case in self.cases]
        das = [degrees_met(geometry, slice_merging=merging, spacing_jitter=jitter) for geometry in geometries]
        return sorted({self.num_patches(da) for da in set().union(*das)})


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Patches of one task, one degree of anisotropy and one size."""

    task: str
    da: int
    cases: tuple[str, ...]
    """Name of the case of each patch."""
    image: Tensor
    """(B, C, D, H, W) float32 in [-1, 1]."""
    classes: Tensor
    """(B, k·D, H, W) int64: of slices that were merged, k into one, each has its own."""
    known: Tensor | None = None
    """(B, K) bool: outputs that were annotated in each patch; None where all were in all cases of the task."""
    augmentation: Augmentation | None = None
    """Still to be done; image and classes are then larger than the patch."""

    @property
    def num_merged(self) -> int:
        """Slices of a case in one of the image's: k."""
        return self.classes.shape[1] // self.image.shape[2]

    def finish(self, device: torch.device) -> Batch:
        """The batch on a device, augmented there if it is not yet."""
        image, classes = self.image.to(device), self.classes.to(device)
        known = None if self.known is None else self.known.to(device)
        if self.augmentation is not None:
            image, classes = augment(image, classes, self.augmentation)
        return replace(self, image=image, classes=classes, known=known, augmentation=None)

    def patch(self, index: int) -> Batch:
        """A batch of the patch of this number alone, of one that is finished."""
        assert self.augmentation is None
        part = slice(index, index + 1)
        known = None if self.known is None else self.known[part]
        return replace(self, cases=self.cases[part], image=self.image[part], classes=self.classes[part], known=known)


class BatchStream(Dataset):
    """Batch number `step` of a run, for any step: this process's part of it, which are equal.

    Every patch is drawn from its own number, so that the whole batch is the same however many processes share it.

    Args:
        augments: leaves nothing to be done; else `Batch.finish` augments, on the device that trains.
    """

    def __init__(
        self,
        tasks: Sequence[TrainingTask],
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        augments: bool = True,
    ):
        self.tasks, self.seed, self.augments = tuple(tasks), seed, augments
        self.rank, self.world_size = rank, world_size
        weights = np.array([task.weight for task in self.tasks])
        self.shares = weights / weights.sum()
        self.mirrors: dict[tuple[int, str], tuple[MirrorAxis, ...]] = {}

    def __getitem__(self, step: int) -> Batch:
        generator = np.random.default_rng([self.seed, step])
        number = int(generator.choice(len(self.tasks), p=self.shares))
        task = self.tasks[number]
        first = task.cases[generator.integers(len(task.cases))]
        respacing = draw_respacing(
            first.header.geometry,
            slice_merging=task.variety.slice_merging,
            spacing_jitter=task.variety.spacing_jitter,
            generator=generator,
        )
        da = respacing.da_of(first.header.geometry)
        assert da is not None
        bucket = [case for case in task.cases if respacing.da_of(case.header.geometry) == da]
        batch_size = task.num_patches(da)
        others = [bucket[index] for index in generator.integers(len(bucket), size=batch_size - 1)]
        share, rest = divmod(batch_size, self.world_size)
        assert rest == 0
        own = slice(self.rank * share, (self.rank + 1) * share)
        cases = [first, *others][own]
        generators = [np.random.default_rng([self.seed, step, 1 + index]) for index in range(batch_size)]
        size, num_channels = task.plan.patch_sizes_voxels[da], len(task.plan.channel_names)
        recipe = PATCH_RECIPES[task.variety.patches]
        drawn = [draw_augmentation(1, num_channels, da, size, generator, recipe) for generator in generators]
        read_size = join(drawn).read_size  # of the whole batch: what is read must not depend on who shares it
        samples = [
            self.read_patch(number, case, size, read_size, respacing, generator)
            for case, generator in zip(cases, generators[own], strict=True)
        ]
        batch = Batch(
            task=task.name,
            da=da,
            cases=tuple(case.name for case in cases),
            image=torch.stack([image for image, _ in samples]),
            classes=torch.stack([classes for _, classes in samples]),
            known=known_outputs(task, cases),
            augmentation=join(drawn[own]),
        )
        return batch.finish(batch.image.device) if self.augments else batch

    def read_patch(
        self,
        number: int,
        case: StoredCase,
        size: Shape,
        read_size: Shape,
        respacing: Respacing,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """What a patch of this size is made from: image (C, *read_size) and classes (k·D, H, W) of k merged slices."""
        task, key = self.tasks[number], (number, case.name)
        if key not in self.mirrors:
            known = task.plan.labels.known_outputs(case.header.annotated)
            self.mirrors[key] = tuple(
                axis  # a swap must not make a class known that was not annotated
                for axis in mirror_axes(case.header.geometry, task.plan.labels, task.variety.mirror)
                if (known[list(axis.labels.outputs)] == known).all()
            )
        seen, read = respacing.source_size(size), respacing.source_size(read_size)
        foreground_share = PATCH_RECIPES[task.variety.patches].foreground_share
        # Read again for each patch, in a tenth of a millisecond: those of all cases are gigabytes in every worker.
        foreground = case.foreground_voxels()
        ignore_class = task.plan.labels.ignore_class
        corner = draw_corner(
            case.header.geometry.shape,
            seen,
            foreground,
            generator,
            foreground_share,
            has_ignored=ignore_class is not None,
        )
        first = [c - (r - s) // 2 for c, r, s in zip(corner, read, seen, strict=True)]
        image, classes = (torch.from_numpy(array) for array in case.read_patch(first, read, ignore_class or 0))
        if not respacing.is_none:
            slices = torch.arange(first[0], first[0] + read[0])
            is_inside = (slices >= 0) & (slices < case.header.geometry.shape[0])
            image, classes = respace(image, classes, respacing, read_size, is_inside=is_inside)
        image = drop_channels(image, case.header.missing_channels, task.variety.channel_dropout, generator)
        return mirror(image, classes, self.mirrors[key], generator)


def known_outputs(task: TrainingTask, cases: Sequence[StoredCase]) -> Tensor | None:
    """(B, K) bool: the outputs that each case of a batch tells of; None where every case of the task tells of all."""
    if not any(case.header.annotated for case in task.cases):
        return None
    return torch.from_numpy(np.stack([task.plan.labels.known_outputs(case.header.annotated) for case in cases]))


def draw_corner(
    shape: Shape,
    size: Shape,
    foreground: np.ndarray,
    generator: np.random.Generator,
    foreground_share: float = FOREGROUND_SHARE,
    *,
    has_ignored: bool = False,
) -> list[int]:
    """First voxel of a patch that lies inside the volume as far as it fits, and is centred on it where it does not.

    Args:
        foreground: (N, 4) class number and voxel, as `StoredCase.foreground_voxels`; background (0) only where
            voxels may be ignored.
        has_ignored: voxels may be ignored; without labelled background every patch is then centred on foreground,
            since one anywhere else could hold nothing to learn from.
    """
    room = [n - s for n, s in zip(shape, size, strict=True)]
    numbers = np.unique(foreground[:, 0])
    number, lacks_background = None, has_ignored and 0 not in numbers
    if (numbers > 0).any() and (generator.random() < foreground_share or lacks_background):
        number = generator.choice(numbers[numbers > 0])
    elif 0 in numbers:
        number = 0
    if number is not None:
        voxels = foreground[foreground[:, 0] == number, 1:]
        centre = voxels[generator.integers(len(voxels))].tolist()
        corner = [c - s // 2 for c, s in zip(centre, size, strict=True)]
    else:
        corner = [int(generator.integers(min(r, 0), max(r, 0) + 1)) for r in room]
    return keep_inside(corner, shape, size)


def keep_inside(corner: Sequence[int], shape: Shape, size: Shape) -> list[int]:
    """The nearest first voxel of a patch inside the volume; where it does not fit, of one that is centred on it."""
    room = [n - s for n, s in zip(shape, size, strict=True)]
    return [min(max(c, 0), r) if r >= 0 else r // 2 for c, r in zip(corner, room, strict=True)]
