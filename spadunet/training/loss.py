"""Soft Dice plus cross-entropy at every decoded level that has a head.

Letters: B batch, K outputs (classes, or regions where a label set has them); D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..labels import LabelSet

SMOOTH = 1e-5
LEAST_SHARE = 1e-8
"""Keeps a patch without a labelled voxel from a division by zero."""


def itself(tensor: Tensor) -> Tensor:
    """The sum over processes where there is one."""
    return tensor


def deep_loss(
    logits: list[Tensor], classes: Tensor, labels: LabelSet, total: Callable[[Tensor], Tensor] = itself
) -> Tensor:
    """Weighted mean over levels, each half of the finer one: 8, 4, 2, 1 of 15, as in SPAD-Nets' released settings.

    A coarse voxel's target is the share of each class or region among the voxels that it covers, and its weight the
    share of them that is not ignored.

    Args:
        logits: (B, K, D_n, H_n, W_n), finest first.
        classes: (B, D, H, W) int64, as `LabelSet.to_classes` numbers them.
        total: sum of a tensor over the processes that share a batch evenly, with a gradient through it. The Dice is
            then of the whole batch, and the mean of their losses is the loss of one process with all of it.
    """
    table = torch.from_numpy(labels.targets()).to(classes.device)
    target = functional.embedding(classes, table).movedim(-1, 1)  # (B, K, D, H, W)
    labelled = None if labels.ignore_class is None else (classes != labels.ignore_class).float()[:, None]
    weights = [0.5**level for level in range(len(logits))]
    losses = []
    for weight, level in zip(weights, logits, strict=True):
        size = list(level.shape[2:])
        losses.append(
            weight
            * level_loss(
                level.to(torch.promote_types(level.dtype, torch.float32)),
                functional.interpolate(target, size, mode="area"),
                None if labelled is None else functional.interpolate(labelled, size, mode="area"),
                has_regions=bool(labels.regions),
                total=total,
            )
        )
    return sum(losses[1:], losses[0]) / sum(weights)


def level_loss(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor | None,
    *,
    has_regions: bool,
    total: Callable[[Tensor], Tensor] = itself,
) -> Tensor:
    """Soft Dice plus cross-entropy of classes (softmax) or plus binary cross-entropy of regions (sigmoid).

    Both as nnU-Net (Isensee et al. 2021) weighs them. Zero, with gradients of zero, where nothing is labelled.

    Args:
        logits: (B, K, D, H, W).
        target: of the same shape, shares of what each voxel covers.
        labelled: (B, 1, D, H, W), the share of each voxel that is not ignored; None where all is labelled.
        total: as `deep_loss`.
    """
    target = target.to(logits.dtype)
    if has_regions:
        share = target if labelled is None else target / labelled.clamp_min(LEAST_SHARE)  # of what is labelled
        entropy = functional.binary_cross_entropy_with_logits(logits, share, weight=labelled)
        dice = soft_dice_loss(logits.sigmoid(), target, labelled, total)
    else:
        entropy = functional.cross_entropy(logits, target)  # an ignored share has no target and adds nothing
        dice = soft_dice_loss(logits.softmax(1)[:, 1:], target[:, 1:], labelled, total)
    if labelled is not None:
        known, all_voxels = total(torch.stack([labelled.mean(), labelled.new_ones(())]))
        entropy = entropy / (known / all_voxels).clamp_min(LEAST_SHARE)
    return dice + entropy


def soft_dice_loss(
    probabilities: Tensor,
    target: Tensor,
    labelled: Tensor | None,
    total: Callable[[Tensor], Tensor] = itself,
) -> Tensor:
    """One minus the soft Dice of each output over the whole batch (Milletari et al. 2016), averaged over outputs.

    Equal to MONAI's DiceLoss, which cannot weigh a voxel by the share of it that is labelled.

    Args: as `level_loss`.
    """
    axes = (0, 2, 3, 4)
    overlap = (probabilities * target).sum(axes)
    predicted = (probabilities if labelled is None else probabilities * labelled).sum(axes)
    overlap, both = total(torch.stack([overlap, predicted + target.sum(axes)]))
    return 1 - ((2 * overlap + SMOOTH) / (both + SMOOTH)).mean()
