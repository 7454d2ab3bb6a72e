"""Predicting many classes, and what memory that takes, for processes that find it by name."""

from __future__ import annotations

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

SIDE, PATCH = 160, (32, 64, 64)


class Levels(nn.Module):
    """As many classes as wanted, each the brightest at its own brightness."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.levels = torch.linspace(-1, 1, num_classes)[:, None, None, None]

    def forward(self, x: Tensor, da: int) -> Tensor:
        return -((x - self.levels) ** 2)


def predict_waves(num_classes: int, host_bytes: int | None, folder: Path) -> int:
    """Peak of predicting an image in which every class is to be found."""
    names = ("background", *(f"organ {number}" for number in range(1, num_classes)))
    labels = LabelSet(names=names, ids=tuple(range(num_classes)))
    plan = plan_of("native").model_copy(update={"labels": labels, "patch_sizes_voxels": dict.fromkeys(range(7), PATCH)})
    engine = Engine(
        network=Levels(num_classes),
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
