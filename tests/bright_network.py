"""A network that finds what is bright, and images to find it in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from spadunet.image import Image
from spadunet.inference.predict import Engine
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan

BRIGHT, ORGAN_ID = 100.0, 5


class Threshold(nn.Module):
    """Organ where the image is brighter than the middle of its range."""

    def forward(self, x: Tensor, da: int) -> Tensor:
        return torch.cat([-x[:, :1], x[:, :1]], dim=1)


def plan_of(spacing_mm, da: int = 0) -> Plan:
    """One channel, whose intensities 0 … 100 become -1 … 1; one organ with an id of its own."""
    return Plan(
        dataset_name="Dataset001_A",
        channel_names=("CT",),
        intensity=(IntensityRule(kind="window", low=0, high=BRIGHT),),
        target_spacing_mm=spacing_mm,
        degree_of_anisotropy=da,
        patch_sizes_voxels=dict.fromkeys(range(7), (4, 8, 8)) | {6: (1, 8, 8)},
        labels=LabelSet(names=("background", "organ"), ids=(0, ORGAN_ID)),
        memory_gb=1,
        fingerprint_digest="0",
    )


def engine_of(plan: Plan) -> Engine:
    """The threshold on the CPU."""
    return Engine(network=Threshold(), plan=plan, device=torch.device("cpu"), precision=torch.float32)


def image_with_box(shape, affine: np.ndarray) -> tuple[Image, np.ndarray]:
    """Dim tissue in air, so that air is cropped away, and a bright box in it."""
    array = np.zeros(shape, np.float32)
    array[tuple(slice(min(1, n - 1), n) for n in shape)] = 10
    box = tuple(slice(n // 4, max(3 * n // 4, n // 4 + 1)) for n in shape)
    array[box] = BRIGHT
    return Image(array=array[None], affine=affine), array == BRIGHT
