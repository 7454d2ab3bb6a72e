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
from .augment import Augmentation, augment, draw_augmentation, drop_channels, mirror
from .respace import Respacing, draw_respacing, respace
from .variety import Variety

FOREGROUND_SHARE = 0.33
"""Share of patches centred on a foreground voxel (of a random class).

The rest lie anywhere; where voxels are ignored, centred on one that is labelled background, as nnU-Net keeps to what is
labelled.
"""

MIN_BATCH_SIZE, MAX_BATCH_SIZE = 2, 4


def choose_batch_size(plan: Plan, da: int) -> int:
    """Two patches a step, for which the plan's memory is meant; up to four where small images leave room."""
    room = 2 * plan.memory_gb * VOXELS_PER_GB
    return max(MIN_BATCH_SIZE, min(MAX_BATCH_SIZE, int(room / math.prod(plan.patch_sizes_voxels[da]))))


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """One dataset in a run: its plan, the cases to train on, patches a batch, and how often it is drawn.

    batch_size None: as many as `choose_batch_size` finds room for.
    """

    name: str
    plan: Plan
    cases: tuple[StoredCase, ...]
    batch_size: int | None
    weight: float = 1.0
    variety: Variety = Variety()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Patches of one task, one degree of anisotropy and one size."""

    task: str
    da: int
    image: Tensor
    """(B, C, D, H, W) float32 in [-1, 1]."""
    classes: Tensor
    """(B, D, H, W) int64."""
    augmentation: Augmentation | None = None
    """Still to be done; image and classes are then larger than the patch."""

    def finish(self, device: torch.device) -> Batch:
        """The batch on a device, augmented there if it is not yet."""
        image, classes = self.image.to(device), self.classes.to(device)
        if self.augmentation is not None:
            image, classes = augment(image, classes, self.augmentation)
        return replace(self, image=image, classes=classes, augmentation=None)


class BatchStream(Dataset):
    """Batch number `step` of a run, for any step.

    Args:
        augments: leaves nothing to be done; else `Batch.finish` augments, on the device that trains.
    """

    def __init__(self, tasks: Sequence[TrainingTask], seed: int, *, augments: bool = True):
        self.tasks, self.seed, self.augments = tuple(tasks), seed, augments
        weights = np.array([task.weight for task in self.tasks])
        self.shares = weights / weights.sum()
        self.foreground: dict[tuple[int, str], np.ndarray] = {}
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
        batch_size = task.batch_size or choose_batch_size(task.plan, da)
        others = [bucket[index] for index in generator.integers(len(bucket), size=batch_size - 1)]
        size, num_channels = task.plan.patch_sizes_voxels[da], len(task.plan.channel_names)
        augmentation = draw_augmentation(batch_size, num_channels, da, size, generator)
        samples = [self.read_patch(number, case, augmentation, respacing, generator) for case in (first, *others)]
        batch = Batch(
            task=task.name,
            da=da,
            image=torch.stack([image for image, _ in samples]),
            classes=torch.stack([classes for _, classes in samples]),
            augmentation=augmentation,
        )
        return batch.finish(batch.image.device) if self.augments else batch

    def read_patch(
        self,
        number: int,
        case: StoredCase,
        augmentation: Augmentation,
        respacing: Respacing,
        generator: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """What a patch is made from: image (C, *size) and classes (*size) of the augmentation's `read_size`."""
        task, key = self.tasks[number], (number, case.name)
        if key not in self.foreground:
            self.foreground[key] = case.foreground_voxels()
            self.mirrors[key] = mirror_axes(case.header.geometry, task.plan.labels, task.variety.mirror)
        larger = augmentation.read_size
        seen, read = respacing.source_size(augmentation.size), respacing.source_size(larger)
        corner = draw_corner(case.header.geometry.shape, seen, self.foreground[key], generator)
        first = [c - (r - s) // 2 for c, r, s in zip(corner, read, seen, strict=True)]
        image, classes = (torch.from_numpy(array) for array in case.read_patch(first, read))
        if not respacing.is_none:
            slices = torch.arange(first[0], first[0] + read[0])
            is_inside = (slices >= 0) & (slices < case.header.geometry.shape[0])
            is_late = bool(generator.integers(2))
            image, classes = respace(image, classes, respacing, larger, is_inside=is_inside, is_late=is_late)
        image = drop_channels(image, case.header.missing_channels, task.variety.channel_dropout, generator)
        return mirror(image, classes, self.mirrors[key], generator)


def draw_corner(shape: Shape, size: Shape, foreground: np.ndarray, generator: np.random.Generator) -> list[int]:
    """First voxel of a patch that lies inside the volume as far as it fits, and is centred on it where it does not.

    Args:
        foreground: (N, 4) class number and voxel, as `StoredCase.foreground_voxels`; background (0) only where
            voxels may be ignored.
    """
    room = [n - s for n, s in zip(shape, size, strict=True)]
    numbers = np.unique(foreground[:, 0])
    number = None
    if (numbers > 0).any() and generator.random() < FOREGROUND_SHARE:
        number = generator.choice(numbers[numbers > 0])
    elif 0 in numbers:
        number = 0
    if number is not None:
        voxels = foreground[foreground[:, 0] == number, 1:]
        centre = voxels[generator.integers(len(voxels))].tolist()
        corner = [c - s // 2 for c, s in zip(centre, size, strict=True)]
    else:
        corner = [int(generator.integers(min(r, 0), max(r, 0) + 1)) for r in room]
    return [min(max(c, 0), r) if r >= 0 else r // 2 for c, r in zip(corner, room, strict=True)]
