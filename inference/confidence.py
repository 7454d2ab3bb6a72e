"""How sure a network is of what it says, from logits that come some planes at a time.

Only sums over voxels are kept, so that nothing depends on where one slab ends and the next begins, and no probability
outlives its slab. All is counted on the network's grid, before post-processing.

Letters: K outputs (classes or regions); D, H, W depth, height, width; V voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MAX_PART_BYTES = 1 << 24
"""Of the logits looked at together: the processor's cache holds about as much (measured)."""
AROUND = (0.05, 0.95)
"""A voxel lies around a mask, on either side of its border, where the probability of its class is between these."""


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """Of one output in one case."""

    soft_dice: float
    """Dice of the mask and the probabilities, 2 Σ p in the mask / (voxels of the mask + Σ p): 1 where p is 0 or 1."""
    entropy_in: float | None
    """Mean in the mask, in bits; None without a mask."""
    entropy_around: float | None
    """Mean around it, in bits; None where nothing is in between."""
    share_around: float
    """Of the mask and what lies around it, how much lies around it."""


class ConfidenceSums:
    """Sums over the voxels seen so far, float64, of each output.

    A mask is where an output's logit is the largest or, of regions, above 0.
    """

    def __init__(self, num_outputs: int, *, has_regions: bool) -> None:
        self.has_regions = has_regions
        self.sums = torch.zeros(len(SUMS), num_outputs, dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """Take some voxels' logits, (K, D, H, W) of any real type, on any device."""
        flat = logits.flatten(1)  # (K, V)
        if flat.device.type == "mps":  # knows no float64
            flat = flat.cpu()
        step = max(MAX_PART_BYTES // (4 * len(flat)), 1)
        found = torch.zeros(self.sums.shape, dtype=torch.float64, device=flat.device)
        for start in range(0, flat.shape[1], step):
            found += sums_of(flat[:, start : start + step].float(), has_regions=self.has_regions)
        self.sums += found.cpu()

    def confidences(self) -> list[Confidence]:
        """Of each output."""
        return [confidence_of(dict(zip(SUMS, column, strict=True))) for column in self.sums.T.tolist()]


SUMS = ("mask", "all_p", "mask_p", "mask_entropy", "around", "around_entropy", "mask_or_around")
"""Voxels of the mask, Σ p everywhere and in it, Σ entropy in it; voxels around it, Σ entropy there; voxels of both."""


def sums_of(logits: Tensor, *, has_regions: bool) -> Tensor:
    """SUMS of logits (K, V), float64 (len(SUMS), K)."""
    count = len(logits)
    if has_regions:
        p = logits.sigmoid()
        entropy = (functional.softplus(logits) - p * logits) / math.log(2)  # (K, V), of yes and no
        mask = logits > 0
        around = (p > AROUND[0]) & (p < AROUND[1])
        return torch.stack(
            [
                mask.sum(1).double(),
                p.sum(1, dtype=torch.float64),
                (p * mask).sum(1, dtype=torch.float64),
                (entropy * mask).sum(1, dtype=torch.float64),
                around.sum(1).double(),
                (entropy * around).sum(1, dtype=torch.float64),
                (mask | around).sum(1).double(),
            ]
        )
    logs = logits.log_softmax(0)
    p = logs.exp()
    entropy = (p * logs.clamp(min=-1e4)).sum(0).neg().double() / math.log(2)  # (V,); no 0 times infinity
    highest, winner = p.max(0)
    outputs, voxels = torch.nonzero((p > AROUND[0]) & (p < AROUND[1]), as_tuple=True)  # few: most voxels are sure

    def by_output(numbers: Tensor, weights: Tensor | None = None) -> Tensor:
        return torch.bincount(numbers, weights, minlength=count).double()

    mask, around = by_output(winner), by_output(outputs)
    both = by_output(outputs[winner[voxels] == outputs])
    return torch.stack(
        [
            mask,
            p.sum(1, dtype=torch.float64),
            by_output(winner, highest.double()),
            by_output(winner, entropy),
            around,
            by_output(outputs, entropy[voxels]),
            mask + around - both,
        ]
    )


def confidence_of(sums: dict[str, float]) -> Confidence:
    """Means, of SUMS of one output."""
    total = sums["mask"] + sums["all_p"]
    return Confidence(
        soft_dice=2 * sums["mask_p"] / total if total else 0.0,
        entropy_in=sums["mask_entropy"] / sums["mask"] if sums["mask"] else None,
        entropy_around=sums["around_entropy"] / sums["around"] if sums["around"] else None,
        share_around=sums["around"] / sums["mask_or_around"] if sums["mask_or_around"] else 0.0,
    )


class Agreement:
    """Dice of the masks of each model, or of each mirror image, with those of their mean.

    Of windows, before they are put together: where these overlap, a voxel counts once in each.

    Args:
        num_outputs: of the models.
        kept: numbers of the outputs that are predicted, background first where it is one.
    """

    def __init__(self, num_outputs: int, kept: Sequence[int], *, has_regions: bool) -> None:
        self.has_regions, self.num_outputs = has_regions, num_outputs
        self.kept = torch.tensor(kept)
        self.numbers = torch.zeros(num_outputs, dtype=torch.int64)
        self.numbers[self.kept] = torch.arange(len(kept))
        self.both, self.sizes = (torch.zeros(len(kept), dtype=torch.int64) for _ in range(2))

    def masks(self, logits: Tensor, dim: int) -> Tensor:
        """Where each output is: of regions bool (K, …), else the number of the largest logit, (…), among the kept.

        Args:
            logits: of all outputs, or of those that are kept.
            dim: of the outputs.
        """
        is_whole = logits.shape[dim] == self.num_outputs
        if self.has_regions:
            rows = logits.movedim(dim, 0)
            return (rows[self.kept.to(rows.device)] if is_whole else rows) > 0
        numbers = logits.argmax(dim)
        return self.numbers.to(numbers.device)[numbers] if is_whole else numbers

    def add(self, members: Sequence[Tensor], mean: Tensor) -> None:
        """Take `masks` of members and of their mean, of the same voxels."""
        for member in members:
            for total, found in zip((self.both, self.sizes), self.counts(member, mean), strict=True):
                total += found.cpu()

    def counts(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Voxels of each output in both masks, and in the one plus in the other; (K,) each."""
        if self.has_regions:
            one, other = one.flatten(1), other.flatten(1)
            return (one & other).sum(1), one.sum(1) + other.sum(1)

        def count(numbers: Tensor) -> Tensor:
            return torch.bincount(numbers.flatten(), minlength=len(self.sizes))

        return count(other[one == other]), count(one) + count(other)

    def dice(self) -> list[float | None]:
        """Of each output; None where no one saw it."""
        pairs = zip(self.both.tolist(), self.sizes.tolist(), strict=True)
        return [2 * both / sizes if sizes else None for both, sizes in pairs]
