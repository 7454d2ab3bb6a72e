"""Predicting many classes, and what memory that takes, for processes that find it by name."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch
from bright_network import plan_of
from peak_memory import peak_bytes
from torch import Tensor, nn

from spadunet.image import Image
from spadunet.inference.budget import Budget
from spadunet.inference.predict import Engine, predict_image
from spadunet.labels import LabelSet
from spadunet.network.heads import SegmentationNetwork, SegmentationTask

SIDE, PATCH, WIDTH = 160, (32, 64, 64), 16
M_MMAP_THRESHOLD = -3
"""Of malloc.h."""


class Powers(nn.Module):
    """A backbone as wide as the smallest preset's: brightness, its square, and nothing else."""

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        features = x.new_zeros(len(x), WIDTH, *x.shape[2:])
        features[:, 0], features[:, 1] = x[:, 0], x[:, 0] ** 2
        return [features]


def levels_of(num_classes: int) -> SegmentationNetwork:
    """As many classes as wanted, each the largest at its own brightness x, by -(x - level)²."""
    levels = torch.linspace(-1, 1, num_classes)
    task = SegmentationTask(1, num_classes, (WIDTH,))
    with torch.no_grad():
        task.heads[0].weight.zero_()
        task.heads[0].weight[:, 0], task.heads[0].weight[:, 1] = 2 * levels, -1
        task.heads[0].bias.copy_(-(levels**2))
    return SegmentationNetwork(Powers(), task).eval()


def predict_waves(num_classes: int, host_bytes: int | None, folder: Path) -> int:
    """Peak of predicting an image in which every class is to be found."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)  # small arrays too leave memory at once, as large ones do
    names = ("background", *(f"organ {number}" for number in range(1, num_classes)))
    labels = LabelSet(names=names, ids=tuple(range(num_classes)))
    plan = plan_of("native").model_copy(update={"labels": labels, "patch_sizes_voxels": dict.fromkeys(range(7), PATCH)})
    engine = Engine(
        network=levels_of(num_classes),
        plan=plan,
        device=torch.device("cpu"),
        precision=torch.float32,
        budget=Budget(host_bytes=host_bytes, folder=folder),
    )
    axes = np.meshgrid(*[np.linspace(0, 6, SIDE, dtype=np.float32)] * 3, indexing="ij", sparse=True)
    image = Image(array=(50 + 16 * (np.sin(axes[0]) + np.sin(axes[1]) + np.sin(axes[2])))[None], affine=np.eye(4))
    found: set[int] = set()

    def predict() -> None:
        found.update(np.unique(predict_image(image, engine).array).tolist())

    peak = peak_bytes(predict)
    assert len(found) > 0.9 * num_classes
    return peak
