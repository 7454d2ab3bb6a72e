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

MAX_PART_BYTES = 1 << 22
"""Of the logits looked at together: the processor's cache holds about as much (measured)."""
AROUND = (0.05, 0.95)
"""A voxel lies around a mask, on either side of its border, where the probability of its class is between these."""


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """In one class or region of one case."""

    soft_dice: float
    """Dice of the mask and the probabilities, 2 Σ p in the mask / (voxels of the mask + Σ p): 1 where p is 0 or 1."""
    entropy_in: float | None
    """Mean in the mask, in bits; None without a mask."""
    entropy_around: float | None
    """Mean around it, in bits; None where nothing is in between."""
    share_around: float
    """Of the mask and what lies around it, how much lies around it."""


class ConfidenceSums:
    """Sums over the voxels seen so far, float64, of each region, or of each class but background.

    A mask is where a class's logit is the largest or, of regions, above 0.
    """

    def __init__(self, num_structures: int, *, has_regions: bool) -> None:
        self.sums_of = sums_of_regions if has_regions else sums_of_classes
        self.sums = torch.zeros(len(SUMS), num_structures, dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """Take some voxels' logits, (K, D, H, W) of any real type, on any device."""
        if logits.device.type == "mps":  # knows no float64
            logits = logits.cpu()
        count, _, height, width = logits.shape
        num_rows = max(MAX_PART_BYTES // (4 * count * width), 1)
        found = torch.zeros(self.sums.shape, dtype=torch.float64, device=logits.device)
        for planes in logits.split(max(num_rows // height, 1), 1):
            for part in planes.split(num_rows, 2):
                found += self.sums_of(part.flatten(1).float())
        self.sums += found.cpu()

    def confidences(self) -> list[Confidence]:
        """Of each structure."""
        return [confidence_of(dict(zip(SUMS, column, strict=True))) for column in self.sums.T.tolist()]


SUMS = ("mask", "all_p", "mask_p", "mask_entropy", "around", "around_entropy", "mask_or_around")
"""Voxels of the mask, Σ p everywhere and in it, Σ entropy in it; voxels around it, Σ entropy there; voxels of both."""


def sums_of_classes(logits: Tensor) -> Tensor:
    """SUMS of all classes but background, float64 (len(SUMS), K - 1), of logits (K, V), background first.

    Where background is sure, the others' probabilities are added up and nothing else is looked at: in most images these
    are most voxels.
    """
    count = len(logits)
    shares = (logits - logits.amax(0)).exp_()  # (K, V), of the largest
    highest = 1 / shares.sum(0)
    all_p = shares @ highest
    (unsure,) = torch.nonzero(shares[0] * highest < AROUND[1], as_tuple=True)
    p = shares.index_select(1, unsure) * highest[unsure]
    entropy = torch.special.entr(p).sum(0).double() / math.log(2)
    winner = first_largest(p)
    outputs, voxels = torch.nonzero((p > AROUND[0]) & (p < AROUND[1]), as_tuple=True)

    def by_output(numbers: Tensor, weights: Tensor | None = None) -> Tensor:
        return torch.bincount(numbers, weights, minlength=count).double()

    mask, around = by_output(winner), by_output(outputs)
    both = by_output(outputs[winner[voxels] == outputs])
    sums = [
        mask,
        all_p.double(),
        by_output(winner, highest[unsure].double()),
        by_output(winner, entropy),
        around,
        by_output(outputs, entropy[voxels]),
        mask + around - both,
    ]
    return torch.stack(sums)[:, 1:]


def first_largest(values: Tensor) -> Tensor:
    """Number of the largest of K values (K, …), int64 (…), the first where several are.

    One after the other: on a processor, `argmax` over anything but the last axis takes ten times as long.
    """
    if values.device.type != "cpu":
        return values.argmax(0)
    best = values[0].clone()
    numbers = torch.zeros(best.shape, dtype=torch.int64)
    for number, others in enumerate(values[1:], start=1):
        numbers.masked_fill_(others > best, number)
        torch.maximum(best, others, out=best)
    return numbers


def sums_of_regions(logits: Tensor) -> Tensor:
    """SUMS of all regions, float64 (len(SUMS), K), of logits (K, V)."""
    lowest, highest = (math.log(share / (1 - share)) for share in AROUND)
    columns = []
    for values in logits:
        seen = values[values > lowest]
        p = seen.sigmoid()
        entropy = (torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)  # of yes and no
        mask, around = seen > 0, seen < highest
        sums = [
            mask.sum(),
            values.sigmoid().sum(),
            p[mask].sum(),
            entropy[mask].sum(),
            around.sum(),
            entropy[around].sum(),
            (mask | around).sum(),
        ]
        columns.append(torch.stack([it.double() for it in sums]))
    return torch.stack(columns, dim=1)


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
        numbers = first_largest(logits.movedim(dim, 0))
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
