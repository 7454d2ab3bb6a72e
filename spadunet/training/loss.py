"""Dice plus cross-entropy at every decoded level that has a head."""

from __future__ import annotations

from monai.losses.dice import DiceCELoss
from torch import Tensor
from torch.nn import functional

SMOOTH = 1e-5


def make_loss() -> DiceCELoss:
    """Soft Dice over the batch without background, plus cross-entropy, of logits and shares (B, K, D, H, W)."""
    return DiceCELoss(include_background=False, softmax=True, batch=True, smooth_nr=SMOOTH, smooth_dr=SMOOTH)


def deep_loss(loss: DiceCELoss, logits: list[Tensor], classes: Tensor) -> Tensor:
    """Weighted mean over levels, each half of the finer one: 8, 4, 2, 1 of 15, as in SPAD-Nets' released settings.

    A coarse voxel's target is the share of each class among the voxels that it covers.

    Args:
        logits: (B, K, D_n, H_n, W_n), finest first.
        classes: (B, D, H, W) int64.
    """
    shares = functional.one_hot(classes, logits[0].shape[1]).movedim(-1, 1).float()  # (B, K, D, H, W)
    weights = [0.5**level for level in range(len(logits))]
    losses = [
        weight * loss(level.float(), functional.interpolate(shares, list(level.shape[2:]), mode="area"))
        for weight, level in zip(weights, logits, strict=True)
    ]
    return sum(losses[1:], losses[0]) / sum(weights)
