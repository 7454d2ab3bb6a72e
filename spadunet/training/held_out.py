"""Patches of held-out cases, and how well they are predicted.

Letters: K outputs (classes, or regions where a label set has them); S structures, outputs without background; D, H, W
depth, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..labels import LabelSet
from ..preprocessing.store import StoredCase
from .patches import TrainingTask, keep_inside

PATCH_SEED = 20
"""The same patches in every run, whatever its seed, so that runs compare."""


@dataclass(frozen=True, kw_only=True)
class HeldOutPatch:
    """Where a held-out case is looked at."""

    task: int
    case: StoredCase
    corner: tuple[int, int, int]


def choose_patches(
    tasks: Sequence[TrainingTask], held_out: Sequence[Sequence[StoredCase]], num_patches: int
) -> list[HeldOutPatch]:
    """Patches spread over tasks, cases and classes, each centred on a voxel of a class; the same every time.

    Args:
        held_out: cases of each task; none gives none.
        num_patches: of all tasks together, at least one a task.
    """
    patches = []
    for number, (task, cases) in enumerate(zip(tasks, held_out, strict=False)):
        count = max(num_patches // len(tasks), 1) if cases else 0
        stride = max(len(cases) // max(count, 1), 1)
        for index in range(count):
            case = cases[index * stride % len(cases)]
            generator = np.random.default_rng([PATCH_SEED, number, index])
            shape, size = case.header.geometry.shape, task.plan.patch_sizes_voxels[case.da]
            foreground = case.foreground_voxels()
            classes = np.unique(foreground[foreground[:, 0] > 0, 0])
            if len(classes):
                chosen = classes[(index + index // len(cases)) % len(classes)]
                centre = generator.permutation(foreground[foreground[:, 0] == chosen, 1:])[0].tolist()
            else:
                centre = [side // 2 for side in shape]
            depth, height, width = keep_inside([c - s // 2 for c, s in zip(centre, size, strict=True)], shape, size)
            patches.append(HeldOutPatch(task=number, case=case, corner=(depth, height, width)))
    return patches


def count_voxels(logits: Tensor, classes: Tensor, labels: LabelSet) -> Tensor:
    """Voxels of each structure in both, in the prediction, and in the reference: float64 (3, S), on the processor.

    Args:
        logits: (K, D, H, W).
        classes: (D, H, W) int64, as `LabelSet.to_classes` numbers them; ignored voxels count nowhere.
    """
    table = torch.from_numpy(labels.targets()).to(classes.device) > 0
    reference = table[classes].movedim(-1, 0)  # (K, D, H, W)
    if labels.regions:
        predicted = logits > 0
    else:
        predicted = torch.arange(len(logits), device=logits.device)[:, None, None, None] == logits.argmax(0)
        reference, predicted = reference[1:], predicted[1:]
    if labels.ignore_class is not None:
        predicted = predicted & (classes != labels.ignore_class)
    counts = torch.stack([mask.flatten(1).sum(1) for mask in (predicted & reference, predicted, reference)])
    return counts.cpu().double()  # Apple's GPUs have no float64
