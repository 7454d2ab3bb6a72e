"""How a classification is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..task import AdapterRecord
from ..training.options import LoopOptions
from ..training.patch_recipes import PatchRecipe
from ..training.schedule import WARM_UP, learning_rate

Schedule = Literal["cosine", "steps"]
"""A short warm-up and a cosine to zero; or a tenth from 50 % of the run on, and a hundredth from 75 %."""
STEPS = (0.5, 0.75)
"""Of 100 epochs, as MedMNIST's own baselines (Yang et al. 2023) and Luo et al. 2024, Table 6."""

LIGHT = PatchRecipe(
    rotation_share=0.3,
    rotation=(math.pi / 18, math.pi / 18),
    rotation_thick=(math.pi / 18, 0.0),
    scaling_share=0.3,
    scaling=(0.9, 1.1),
    noise_share=0.0,
    blur_share=0.0,
    brightness=(0.9, 1.1),
    contrast=(0.9, 1.1),
    gamma_share=0.2,
    gamma=(0.8, 1.25),
)
"""Whole images are turned, scaled and changed in their intensities a little; nothing is mirrored, since a class may be
a side of the body."""


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions(LoopOptions):
    """Beside what every run can be told."""

    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: Schedule = "cosine"
    augmentation: PatchRecipe | None = LIGHT
    is_dimmed: bool = False
    """Training images are multiplied by U(0, 1), of intensities in [0, 1]: MedMNIST's regularisation."""
    freezes_backbone: bool = False
    adapter: AdapterRecord | None = None
    deterministic: bool = False
    recipe: str | None = None
    epochs: int | None = None
    """That `max_steps` was made of; only told."""

    def rate(self, share: float, peak: float) -> float:
        """Learning rate after a share of the run."""
        if self.schedule == "steps":
            return peak * 0.1 ** sum(share >= step for step in STEPS)
        return learning_rate(share, peak, warm_up=WARM_UP)
