"""Soft Dice plus cross-entropy at every decoded level that has a head.

Of a patch in which only some classes were annotated, background means "background or any class that was not": their
probabilities are summed before they are compared, so that nothing is punished that may be there: the target adaptive
loss of Fang and Yan 2020 (https://doi.org/10.1109/TMI.2020.3001036), marginal loss of Shi et al. 2021 ("Marginal loss
and exclusion loss for partially supervised multi-organ segmentation", https://doi.org/10.1016/j.media.2021.101979).
Regions, which are learned one by one, are left out where they were not annotated.

Letters: B batch, K outputs (classes, or regions where a label set has them); D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What counts in a batch, and how much; None where all outputs count alike."""

    known: Tensor | None = None
    """(B, K, 1, 1, 1) float of 0 and 1: outputs that were annotated in each patch."""
    weights: Tensor | None = None
    """(1, K, 1, 1, 1) float: of each output, above 0."""
    total: Callable[[Tensor], Tensor] = itself
    """Sum over the processes that share a batch evenly, with a gradient through it."""

    def of(self, target: Tensor) -> Tensor:
        """How much each output of each patch counts: (B, K, 1, 1, 1).

        Args:
            target: (B, K, D, H, W).
        """
        ones = target.new_ones((*target.shape[:2], 1, 1, 1))
        return ones * (1 if self.known is None else self.known) * (1 if self.weights is None else self.weights)

    def foreground(self) -> Counting:
        """The same without the first output."""
        known, weights = (None if part is None else part[:, 1:] for part in (self.known, self.weights))
        return Counting(known=known, weights=weights, total=self.total)

    def mean(self, values: Tensor, weights: Tensor) -> Tensor:
        """Sum of this process's values over its share of the sum of all weights: their mean over processes is right."""
        sum_of_all, num_processes = self.total(torch.stack([weights.sum(), weights.new_ones(())]))
        return values.sum() / (sum_of_all / num_processes).clamp_min(LEAST_SHARE)

    @property
    def is_even(self) -> bool:
        """All outputs count alike."""
        return self.known is None and self.weights is None


EVEN = Counting()


def deep_loss(
    logits: list[Tensor],
    classes: Tensor,
    labels: LabelSet,
    total: Callable[[Tensor], Tensor] = itself,
    *,
    num_merged: int = 1,
    known: Tensor | None = None,
    class_weights: tuple[float, ...] | None = None,
) -> Tensor:
    """Weighted mean over levels, each half of the finer one: 8, 4, 2, 1 of 15, as in SPAD-Nets' released settings.

    A coarse voxel's target is the share of each class or region among the voxels that it covers, and its weight the
    share of them that is not ignored.

    Args:
        logits: (B, K, D_n, H_n, W_n), finest first.
        classes: (B, k·D, H, W) int64, as `LabelSet.to_classes` numbers them.
        total: sum of a tensor over the processes that share a batch evenly, with a gradient through it. The Dice is
            then of the whole batch, and the mean of their losses is the loss of one process with all of it.
        num_merged: k, slices of labels for each of the image; its voxels are then coarse ones too.
        known: (B, K) bool, outputs that were annotated in each patch, background always; None for all, in all
            processes.
        class_weights: how much each output counts, in the cross-entropy and in the mean of the Dice; None for alike.
    """
    table = torch.from_numpy(labels.targets()).to(classes.device)
    slices = classes.unflatten(1, (-1, num_merged)).unbind(2)  # k of (B, D, H, W)
    target = mean_of(functional.embedding(each, table) for each in slices).movedim(-1, 1)  # (B, K, D, H, W)
    ignored = labels.ignore_class
    labelled = None if ignored is None else mean_of((each != ignored).float() for each in slices)[:, None]
    counting = Counting(
        known=None if known is None else known.to(target)[:, :, None, None, None],
        weights=None if class_weights is None else target.new_tensor(class_weights)[None, :, None, None, None],
        total=total,
    )
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
                counting,
                has_regions=bool(labels.regions),
                is_merged=num_merged > 1,
            )
        )
    return sum(losses[1:], losses[0]) / sum(weights)


def mean_of(slices: Iterator[Tensor]) -> Tensor:
    """Of tensors of one shape, which are not kept: those of many classes are large."""
    total, number = next(slices), 1
    for each in slices:
        total, number = total.add_(each), number + 1
    return total if number == 1 else total.div_(number)


def level_loss(
    logits: Tensor,
    target: Tensor,
    labelled: Tensor | None,
    counting: Counting = EVEN,
    *,
    has_regions: bool,
    is_merged: bool = False,
) -> Tensor:
    """Soft Dice plus cross-entropy of classes (softmax) or plus binary cross-entropy of regions (sigmoid).

    Both as nnU-Net (Isensee et al. 2021) weighs them. Zero, with gradients of zero, where nothing is labelled.

    Args:
        logits: (B, K, D, H, W).
        target: of the same shape, shares of what each voxel covers.
        labelled: (B, 1, D, H, W), the share of each voxel that is not ignored; None where all is labelled.
        is_merged: as `soft_dice_loss`.
    """
    target = target.to(logits.dtype)
    if has_regions:
        dice = soft_dice_loss(logits.sigmoid(), target, labelled, counting, is_merged=is_merged)
        return dice + region_entropy(logits, target, labelled, counting)
    foreground = logits.softmax(1)[:, 1:]
    dice = soft_dice_loss(foreground, target[:, 1:], labelled, counting.foreground(), is_merged=is_merged)
    return dice + class_entropy(logits, target, labelled, counting)


def class_entropy(logits: Tensor, target: Tensor, labelled: Tensor | None, counting: Counting) -> Tensor:
    """Mean cross-entropy of labelled voxels, each counting by the weight of its class.

    Args: as `level_loss`.
    """
    if counting.is_even:
        entropy = functional.cross_entropy(logits, target)  # an ignored share has no target and adds nothing
        return entropy if labelled is None else counting.mean(entropy, labelled.mean())
    logs = logits.log_softmax(1)
    if counting.known is not None:
        logs, target = merge_unknown(logs, target, counting.known)
    weighted = target if counting.weights is None else target * counting.weights
    return counting.mean(-(weighted * logs), weighted)


def merge_unknown(logs: Tensor, target: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Background and the classes that were not annotated, as one class in the place of background.

    Args:
        logs: (B, K, D, H, W), logarithms of probabilities.
        target: of the same shape.
        known: (B, K, 1, 1, 1) of 0 and 1; background is 1.
    """
    is_merged = known == 0
    is_merged[:, 0] = True
    together = logs.masked_fill(~is_merged, -torch.inf).logsumexp(1, keepdim=True)  # (B, 1, D, H, W)
    logs = torch.cat([together, logs[:, 1:]], dim=1)
    rest = (target * is_merged).sum(1, keepdim=True)
    return logs, torch.cat([rest, target[:, 1:] * known[:, 1:]], dim=1)


def region_entropy(logits: Tensor, target: Tensor, labelled: Tensor | None, counting: Counting) -> Tensor:
    """Mean binary cross-entropy of the regions that were annotated, each counting by its weight.

    Args: as `level_loss`.
    """
    share = target if labelled is None else target / labelled.clamp_min(LEAST_SHARE)  # of what is labelled
    if counting.is_even:
        entropy = functional.binary_cross_entropy_with_logits(logits, share, weight=labelled)
        return entropy if labelled is None else counting.mean(entropy, labelled.mean())
    weight = (counting.of(target) * (1 if labelled is None else labelled)).expand_as(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, share, weight=weight, reduction="sum")
    return counting.mean(entropy, weight)


def soft_dice_loss(
    probabilities: Tensor,
    target: Tensor,
    labelled: Tensor | None,
    counting: Counting = EVEN,
    *,
    is_merged: bool = False,
) -> Tensor:
    """One minus the soft Dice of each output over the whole batch (Milletari et al. 2016), averaged over outputs.

    Equal to MONAI's DiceLoss, which cannot weigh a voxel by the share of it that is labelled. An output is looked at in
    the patches in which it was annotated, and left out of the mean if there is none.

    Args: as `level_loss`, and
        is_merged: overlap is the smaller of probability and share, not their product. For shares of 0 and 1 these are
            the same; to others the best answer is then the share itself, where the product's is 0 or 1 (Wang et al.
            2023, "Dice semimetric losses", https://arxiv.org/abs/2303.16296).
    """
    axes = (0, 2, 3, 4)
    if counting.known is not None:
        probabilities, target = probabilities * counting.known, target * counting.known
    seen = probabilities if labelled is None else probabilities * labelled
    overlap = torch.minimum(seen, target) if is_merged else probabilities * target
    overlap, both = counting.total(torch.stack([overlap.sum(axes), (seen + target).sum(axes)]))
    dice = (2 * overlap + SMOOTH) / (both + SMOOTH)  # (K,)
    if counting.is_even:
        return 1 - dice.mean()
    is_told = (counting.total((counting.of(target) > 0).to(dice).sum(axes)) > 0).to(dice)  # of by some patch
    weights = is_told if counting.weights is None else is_told * counting.weights.flatten()
    return (weights * (1 - dice)).sum() / weights.sum().clamp_min(LEAST_SHARE)
