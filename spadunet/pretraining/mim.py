"""Stage two: a backbone learns by guessing the visual tokens of masked patches.

Luo et al. 2024, section 5.2: 55 % of the patches are masked; the frozen tokenizer, which sees the whole image, gives
the soft tokens that are to be guessed. A U-Net's decoder guesses the voxels as well, which the paper, whose
U-Net is not pre-trained, has not. Letters: B samples, L patches of one, row-major; M masked ones; K tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model import Model, save_model
from ..network.decay import parameter_groups
from ..network.masked import MaskedUNet, MaskedViT, token_grid, voxels_of
from ..network.tokenizer import SpadTokenizer
from ..training.optimiser import take_step
from ..training.options import autocast
from ..training.ranks import Ranks, distribute, mean_over_ranks
from .losses import entropy, information
from .mim_sheet import SheetCrop, complete, draw_sheet
from .pictures import save_figure
from .probe import ProbeCurve
from .sampling import ImageBatch, generator_of

MASK_RATIO = 0.55
WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 0.5
"""The first as in Luo et al. 2024, section 5.1; the others as SPAD-Nets' released settings have them."""

TOKEN_WEIGHT = 0.1
"""Of the tokens' loss where voxels, whose weight is 1, are guessed too."""
SEEN_WEIGHT = 0.1
"""Of a voxel that is not masked: to give it back is easy, and needs the finest maps."""

SHEET_PNG = "guesses.png"

MaskedNetwork = MaskedViT | MaskedUNet


def draw_masks(numbers: Sequence[int], num_patches: int, seed: int) -> Tensor:
    """Which patches of each sample are masked: bool (B, L), round(0.55 L) in each row, anywhere.

    Args:
        numbers: of the samples' draws; a mask follows from its number, not from who works on it.
    """
    masks = np.zeros((len(numbers), num_patches), bool)
    for mask, number in zip(masks, numbers, strict=True):
        order = generator_of(seed, number, "mask").permutation(num_patches)
        mask[order[: round(MASK_RATIO * num_patches)]] = True
    return torch.from_numpy(masks)


@dataclass(frozen=True, kw_only=True)
class Guess:
    """How well tokens were guessed, means over masked patches, in nats."""

    loss: Tensor
    """Soft cross entropy, -Σ q log p; never below the entropy of q."""
    kl: Tensor
    """Of the target from the guess: the loss without that entropy; 0 for a perfect guess."""
    agreement: Tensor
    """Share of patches whose likeliest token is the target's."""


def judge(logits: Tensor, target: Tensor) -> Guess:
    """Compare guessed logits (M, K) with the tokenizer's distributions (M, K).

    Luo et al.'s equation 3 lacks the minus sign.
    """
    log_guess = functional.log_softmax(logits.float(), 1)
    loss = -(target * log_guess).sum(1).mean()
    agreement = (logits.argmax(1) == target.argmax(1)).float().mean()
    return Guess(loss=loss, kl=loss.detach() - entropy(target, 1).mean(), agreement=agreement)


def voxel_loss(guessed: Tensor, image: Tensor, masked: Tensor, da: int) -> tuple[Tensor, Tensor]:
    """Mean distance of guessed voxels (B, 3, D, H, W), and that of the masked ones alone, which is to be looked at.

    The mean of both over ranks is that of all their voxels, also where patches hang over the border.

    Args:
        masked: bool (B, L) patches.
    """
    guessed = guessed.to(torch.promote_types(guessed.dtype, torch.float32))
    distance = (guessed - image).abs().mean(1, keepdim=True)  # (B, 1, D, H, W)
    is_masked = voxels_of(masked, image, da)
    weight = torch.where(is_masked, 1.0, SEEN_WEIGHT).to(distance)
    total, num_masked = mean_over_ranks(torch.stack([weight.sum(), is_masked.sum()]))
    return (distance * weight).sum() / total, distance.detach()[is_masked].sum() / num_masked


def soft_tokens(tokenizer: SpadTokenizer, image: Tensor, da: int) -> Tensor:
    """The tokenizer's distributions (B, L, K) for an image (B, 3, D, H, W), without a gradient."""
    with torch.no_grad():
        return tokenizer.encode(image, da).float().softmax(1).flatten(2).transpose(1, 2)


class MaskedImageModelling:
    """The stage that `loop.pretrain` runs: a masked network learns from a frozen tokenizer.

    Args:
        network: trained in place.
        tokenizer: frozen, in evaluation mode.
        crops: held-out ones to show.
        probe: where to measure the representation; None not to.
    """

    def __init__(
        self,
        network: MaskedNetwork,
        tokenizer: SpadTokenizer,
        ranks: Ranks,
        *,
        learning_rate: float,
        seed: int,
        precision: torch.dtype,
        crops: Sequence[SheetCrop] = (),
        probe: ProbeCurve | None = None,
    ):
        self.network, self.ranks, self.seed, self.precision = network, ranks, seed, precision
        self.crops, self.probe = tuple(crops), probe
        self.parallel = distribute(network, ranks).train()
        self.tokenizer = tokenizer.to(ranks.device)
        groups = [group | {"peak": learning_rate} for group in parameter_groups(network, WEIGHT_DECAY)]
        self.networks: dict[str, nn.Module] = {"masked": network}
        self.optimisers: dict[str, torch.optim.Optimizer] = {"masked": torch.optim.AdamW(groups, lr=learning_rate)}
        self.numbers = {"steps": 0.0}

    def learn(self, batch: ImageBatch) -> dict[str, float]:
        """One step; means of loss, divergences, distance of masked voxels and agreement over ranks.

        Every rank holds as many masked patches as the others, so that the mean of their means is that of all.
        """
        if self.numbers["steps"] == 0:
            self.measure_probe()  # random weights: what is to be improved on
        image = batch.image.to(self.ranks.device, non_blocking=True)
        depth, height, width = image.shape[2:]
        num_patches = math.prod(token_grid((depth, height, width), batch.da))
        masked = draw_masks(batch.numbers, num_patches, self.seed).to(self.ranks.device)
        with autocast(self.ranks.device, self.precision):
            tokens = soft_tokens(self.tokenizer, image, batch.da)  # (B, L, K)
            logits, voxels = self.parallel(image, batch.da, masked)
        guess = judge(logits, tokens[masked])
        total, seen = guess.loss, {"loss": guess.loss, "kl": guess.kl, "information": information(tokens)}
        if voxels is not None:
            loss, seen["voxels"] = voxel_loss(voxels, image, masked, batch.da)
            total = TOKEN_WEIGHT * guess.loss + loss
        [optimiser] = self.optimisers.values()
        seen["loss"] = take_step(total, self.network, optimiser, MAX_GRADIENT_NORM)
        self.numbers["steps"] += 1
        if self.probe is not None and self.numbers["steps"] % self.probe.every_steps == 0:
            self.measure_probe()
        seen["agreement"] = guess.agreement
        return dict(zip(seen, mean_over_ranks(torch.stack([*seen.values()])).tolist(), strict=True))

    def show(self, folder: Path, step: int) -> None:
        """Draw held-out images, masked and completed; their masks are always the same."""
        if not self.crops:
            return
        rows = []
        for number, crop in enumerate(self.crops):
            masked = draw_masks([number], crop.num_patches, self.seed).to(self.ranks.device)
            rows.append(complete(crop, masked, self.network, self.tokenizer))
        save_figure(draw_sheet(rows, f"after {step} steps"), folder / SHEET_PNG)

    def finish_probe(self) -> None:
        """Measure after the last step, where that is not done."""
        if self.probe is not None and self.numbers["steps"] % self.probe.every_steps:
            self.measure_probe()

    def measure_probe(self) -> None:
        """Measure the representation as it is now; the first rank does, the others wait at their next step."""
        if self.probe is not None and self.ranks.is_first:
            self.probe.measure(int(self.numbers["steps"]), self.feature_maps)

    @torch.no_grad()
    def feature_maps(self, image: Tensor, da: int) -> list[Tensor]:
        """Maps of the unmasked image, for the probe."""
        with autocast(self.ranks.device, self.precision):
            return self.network.features(image.to(self.ranks.device), da)


def save_backbone(folder: Path, network: MaskedNetwork, backbone: str, preset: str, provenance: dict[str, str]) -> None:
    """Write a model folder without a task: the tensors of the backbone by the names that they have in it.

    The mask token and what only guesses are left out.
    """
    kept = ("vit.", "encoder.", "decoder.")
    state = {name: value for name, value in network.state_dict().items() if name.startswith(kept)}
    save_model(folder, Model(backbone=backbone, preset=preset, backbone_state=state, tasks={}, provenance=provenance))
