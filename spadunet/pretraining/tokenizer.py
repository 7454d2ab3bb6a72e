"""Stage one: the tokenizer learns to bring images back through soft tokens.

L1, a perceptual term, the dual prior regularisation and a gated adversarial term (Luo et al. 2024, section 4.2;
numbers as SPAD-Nets was trained). Letters: B batch, D/H/W depth, height, width, d/h/w the token grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..network.build import build_discriminator, build_tokenizer
from ..network.decay import parameter_groups
from ..training.optimiser import take_step
from ..training.options import autocast
from ..training.ranks import Ranks, distribute, mean_over_ranks
from .corpus import Corpus
from .losses import GanGate, discriminator_loss, generator_loss, information, token_statistics
from .perceptual import Lpips, choose_slices, structural_dissimilarity, take_slices
from .sampling import CropRule, ImageBatch
from .tokenizer_file import save_tokenizer
from .tokenizer_pictures import show_tokenizer

LPIPS_WEIGHT = 2.0
"""As SPAD-Nets was trained."""
WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 1.0
LAYOUT = torch.channels_last_3d
"""Of images: in bfloat16 on a CPU a step takes half the time of channels first (measured)."""


@dataclass(frozen=True, kw_only=True)
class TokenizerRecipe:
    """Peak learning rates, and what the terms of the loss weigh beside L1 and the perceptual term."""

    learning_rate: float
    discriminator_learning_rate: float
    gan: float
    """Of the adversarial term; 0 leaves the discriminator out."""
    evenness: float
    """λ1 of the prior regularisation."""
    certainty: float
    """λ2 of the prior regularisation."""


class TokenizerStage:
    """The tokenizer and its discriminator, and how they learn from a batch: a `Stage` of `loop`."""

    def __init__(
        self,
        corpus: Corpus,
        preset: str,
        *,
        rule: CropRule,
        recipe: TokenizerRecipe,
        seed: int,
        ranks: Ranks,
        precision: torch.dtype,
        perceptual: Lpips | None = None,
        provenance: dict[str, str],
    ):
        torch.manual_seed(seed)
        self.corpus, self.preset, self.rule, self.recipe = corpus, preset, rule, recipe
        self.seed, self.ranks = seed, ranks
        self.precision, self.provenance = precision, provenance
        self.tokenizer = build_tokenizer(preset)
        self.learning_tokenizer = distribute(self.tokenizer, ranks)
        self.perceptual = None if perceptual is None else perceptual.to(ranks.device)
        self.networks: dict[str, nn.Module] = {"tokenizer": self.tokenizer}
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "tokenizer": make_optimiser(self.tokenizer, recipe.learning_rate)
        }
        self.numbers: dict[str, float] = {}
        if recipe.gan > 0:
            self.discriminator = build_discriminator(preset)
            self.learning_discriminator = distribute(self.discriminator, ranks)
            self.networks["discriminator"] = self.discriminator
            self.optimisers["discriminator"] = make_optimiser(self.discriminator, recipe.discriminator_learning_rate)
            self.remember(GanGate())

    def learn(self, batch: ImageBatch) -> dict[str, float]:
        """One step of the tokenizer against a discriminator at rest, then one of the discriminator on the same images.

        Measures are means over all ranks.
        """
        image = batch.image.to(self.ranks.device).contiguous(memory_format=LAYOUT)
        with autocast(self.ranks.device, self.precision):
            reconstruction, logits = self.learning_tokenizer(image, batch.da)
        reconstruction = reconstruction.float()
        tokens = token_statistics(logits, mean_over_ranks)
        l1 = functional.l1_loss(reconstruction, image)
        perceptual = self.perceptual_loss(reconstruction, image, batch.numbers)
        loss = l1 + perceptual + tokens.prior_regularisation(self.recipe.evenness, self.recipe.certainty)
        if self.gate().is_open():
            loss = loss + self.recipe.gan * self.adversarial_loss(reconstruction, batch.da)
        measures = {
            "loss": take_step(loss, self.tokenizer, self.optimisers["tokenizer"], MAX_GRADIENT_NORM),
            "l1": l1,
            "perceptual": perceptual,
            "entropy": tokens.mean_entropy,
            "divergence_from_uniform": tokens.divergence_from_uniform(),
            "perplexity": tokens.perplexity(),
            "codebook_use": share_of_tokens_used(logits),
            "information": information(logits.detach().softmax(1).flatten(2).transpose(1, 2)),
        }
        found = means_over_ranks(measures)
        return found | self.learn_to_judge(image, reconstruction.detach(), batch.da) if self.recipe.gan > 0 else found

    def adversarial_loss(self, reconstruction: Tensor, da: int) -> Tensor:
        """How unreal the discriminator finds it; none of its own parameters gets a gradient."""
        self.discriminator.requires_grad_(False)
        with autocast(self.ranks.device, self.precision):
            verdict = self.discriminator(reconstruction, da)
        self.discriminator.requires_grad_(True)
        return generator_loss(verdict.float())

    def learn_to_judge(self, image: Tensor, made: Tensor, da: int) -> dict[str, float]:
        """One step of the discriminator; its gate follows its loss."""
        with autocast(self.ranks.device, self.precision):
            verdicts = self.learning_discriminator(torch.cat([image, made]), da)
        of_image, of_made = verdicts.float().chunk(2)
        loss = discriminator_loss(of_image, of_made)
        loss = take_step(loss, self.discriminator, self.optimisers["discriminator"], MAX_GRADIENT_NORM)
        found = means_over_ranks({"gan": generator_loss(of_made), "discriminator": loss})
        gate = self.gate()
        if math.isfinite(found["discriminator"]):  # else nothing was learned, and the running loss would never recover
            self.remember(gate.after(found["discriminator"]))
        return found | {"gate_is_open": float(gate.is_open())}

    def gate(self) -> GanGate:
        """The gate as it is; always shut without a discriminator."""
        return GanGate(**self.numbers)

    def remember(self, gate: GanGate) -> None:
        """Keep a gate among the numbers of the checkpoint."""
        self.numbers.update(asdict(gate))

    def perceptual_loss(self, reconstruction: Tensor, image: Tensor, numbers: Sequence[int]) -> Tensor:
        """LPIPS, or what stands in for it, on some slices of each volume."""
        slices = choose_slices(image.shape[2], self.seed, numbers)
        made, real = take_slices(reconstruction, slices), take_slices(image, slices)
        if self.perceptual is None:
            return structural_dissimilarity(made, real)
        with autocast(self.ranks.device, self.precision):
            distance = self.perceptual(made, real)
        return LPIPS_WEIGHT * distance.float()

    def save(self, folder: Path, step: int) -> None:
        """Write the tokenizer as it is after so many steps."""
        save_tokenizer(folder, self.tokenizer, self.preset, self.provenance | {"steps": str(step)})

    def show(self, folder: Path, step: int) -> None:
        """Write pictures and measures of how the tokenizer does on held-out images."""
        show_tokenizer(self.tokenizer, self.corpus, self.rule, folder, step, self.ranks.device)


def make_optimiser(network: nn.Module, peak: float) -> torch.optim.AdamW:
    """AdamW, without decay for biases, norms and embeddings."""
    groups = [group | {"peak": peak} for group in parameter_groups(network, WEIGHT_DECAY)]
    return torch.optim.AdamW(groups, lr=peak, fused=True)


def means_over_ranks(measures: Mapping[str, Tensor]) -> dict[str, float]:
    """The measures of all ranks together, in one exchange."""
    means = mean_over_ranks(torch.stack([value.detach().float() for value in measures.values()]))
    return dict(zip(measures, means.tolist(), strict=True))


def share_of_tokens_used(logits: Tensor) -> Tensor:
    """Share of the codebook's tokens that are the likeliest somewhere in any rank's (B, K, d, h, w): a number, 0 … 1.

    At most the number of positions over K.
    """
    counts = torch.bincount(logits.argmax(1).flatten(), minlength=logits.shape[1]).float()  # (K,)
    return mean_over_ranks(counts).gt(0).float().mean()
