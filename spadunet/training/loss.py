"""Dice plus cross-entropy at every decoded level."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceCELoss
from monai.losses.ds_loss import DeepSupervisionLoss
from torch import Tensor

SMOOTH = 1e-5


def make_loss() -> DeepSupervisionLoss:
    """Soft Dice over the batch without background, plus cross-entropy; each level weighs half of the finer one.

    Levels are compared with the labels brought to their size by nearest neighbour.
    """
    loss = DiceCELoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        smooth_nr=SMOOTH,
        smooth_dr=SMOOTH,
    )
    return DeepSupervisionLoss(loss, weight_mode="exp")


def deep_loss(loss: DeepSupervisionLoss, logits: list[Tensor], classes: Tensor) -> Tensor:
    """Weighted mean over levels.

    Args:
        logits: (B, K, D_n, H_n, W_n), finest first.
        classes: (B, D, H, W) int64.
    """
    target = classes[:, None].to(torch.float32)  # (B, 1, D, H, W)
    total = sum(0.5**level for level in range(len(logits)))
    return loss([level.float() for level in logits], target) / total
