"""What a tokenizer does with held-out images: a sheet of reconstructions, the use of its codebook, and numbers.

After Luo et al. 2024, figures 3 and 4. Letters: K tokens of the codebook, D/H/W depth, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..network.tokenizer import NUM_TOKENS, SpadTokenizer
from ..record import FormatVersion, Record, write_record
from .corpus import Corpus, CorpusImage
from .losses import entropy, token_statistics
from .pictures import choose_images, save_figure, still_readable
from .sampling import CropRule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET_PNG, CODEBOOK_PNG, MEASURES_JSON = "reconstructions.png", "codebook.png", "held_out.json"
MAX_PAIRS = 24
"""In the sheet; all held-out images are measured."""
PAIRS_IN_ROW = 3
FEWEST_USES = 0.1
"""A token counts as used from this share of an even use on: within an order of magnitude."""
RANGE = 2.0
"""Of intensities, -1 … 1."""


class ReconstructionMeasures(Record):
    """How well one held-out image comes back; entropies in nats."""

    key: str
    modality: str
    da: int
    l1: float
    psnr_db: float
    """Peak signal-to-noise ratio, of the range -1 … 1."""
    mean_entropy: float
    divergence_from_uniform: float


class HeldOutMeasures(Record):
    """held_out.json: means over images, and use of the codebook over all their positions."""

    format_version: FormatVersion = 1
    step: int
    l1: float
    psnr_db: float
    mean_entropy: float
    divergence_from_uniform: float
    perplexity: float
    """Number of tokens that the mean distribution amounts to."""
    share_of_tokens_used: float
    """Share of tokens with at least a tenth of an even use."""
    images: tuple[ReconstructionMeasures, ...]


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A held-out crop and what came back of it."""

    measures: ReconstructionMeasures
    image: np.ndarray
    """(3, H, W) float32, the middle slice."""
    made: np.ndarray
    mean_probabilities: torch.Tensor
    """(K,) over the positions of the crop."""
    num_positions: int


def show_tokenizer(
    network: SpadTokenizer, corpus: Corpus, rule: CropRule, folder: Path, step: int, device: torch.device
) -> HeldOutMeasures | None:
    """Write the sheet, the codebook's use and the numbers; of some training images where none is held out.

    An image that is gone or damaged is named and left out; nothing is written where none is left.

    Raises:
        OutputError: if the folder cannot be written.
    """
    images = corpus.held_out or choose_images(corpus.training, MAX_PAIRS)
    found = still_readable(images, lambda image: reconstruct_middle(network, corpus, image, rule, device))
    if not found:
        return None
    positions = torch.tensor([float(one.num_positions) for one in found])
    mean = (torch.stack([one.mean_probabilities for one in found]) * positions[:, None]).sum(0) / positions.sum()
    own = [one.measures for one in found]
    measures = HeldOutMeasures(
        step=step,
        l1=fmean(one.l1 for one in own),
        psnr_db=fmean(one.psnr_db for one in own),
        mean_entropy=fmean(one.mean_entropy for one in own),
        divergence_from_uniform=fmean(one.divergence_from_uniform for one in own),
        perplexity=float(entropy(mean, 0).exp()),
        share_of_tokens_used=float((mean >= FEWEST_USES / NUM_TOKENS).float().mean()),
        images=tuple(own),
    )
    write_record(folder / MEASURES_JSON, measures)
    by_key = {one.measures.key: one for one in found}
    shown = choose_images([image for image in images if image.key in by_key], MAX_PAIRS)
    save_figure(draw_sheet([by_key[image.key] for image in shown]), folder / SHEET_PNG)
    save_figure(draw_codebook(mean.numpy(), measures), folder / CODEBOOK_PNG)
    return measures


@torch.no_grad()
def reconstruct_middle(
    network: SpadTokenizer, corpus: Corpus, image: CorpusImage, rule: CropRule, device: torch.device
) -> Reconstruction:
    """The middle of an image, at most as large as a training crop, through the tokenizer."""
    depth, height, width = (min(a, b) for a, b in zip(rule.size_of(image.da), image.shape, strict=True))
    size = (depth, height, width)
    first = [(whole - part) // 2 for whole, part in zip(image.shape, size, strict=True)]
    crop = torch.from_numpy(corpus.read_box(image, first, size)).expand(3, -1, -1, -1)[None].to(device)
    made, logits = network(crop, image.da)
    tokens = token_statistics(logits, lambda mean: mean)
    error = (made - crop).float()
    measures = ReconstructionMeasures(
        key=image.key,
        modality=image.modality,
        da=image.da,
        l1=float(error.abs().mean()),
        psnr_db=10 * math.log10(RANGE**2 / max(float(error.square().mean()), 1e-10)),
        mean_entropy=float(tokens.mean_entropy),
        divergence_from_uniform=float(tokens.divergence_from_uniform()),
    )
    middle = size[0] // 2
    return Reconstruction(
        measures=measures,
        image=crop[0, :, middle].cpu().numpy(),
        made=made[0, :, middle].float().cpu().numpy(),
        mean_probabilities=tokens.mean_probabilities.cpu(),
        num_positions=logits[0, 0].numel(),
    )


def draw_sheet(found: Sequence[Reconstruction]) -> Figure:
    """Input beside output, three pairs a row."""
    from matplotlib.figure import Figure

    num_rows = -(-len(found) // PAIRS_IN_ROW)
    figure = Figure(figsize=(4.2 * PAIRS_IN_ROW, 2.35 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, 2 * PAIRS_IN_ROW, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for number, one in enumerate(found):
        row, column = divmod(number, PAIRS_IN_ROW)
        pair = panels[row, 2 * column : 2 * column + 2]
        for panel, slice_ in zip(pair, (one.image, one.made), strict=True):
            panel.imshow(np.clip((slice_.transpose(1, 2, 0) + 1) / 2, 0, 1), interpolation="nearest")
        measures = one.measures
        pair[0].set_title(f"{measures.modality}, DA {measures.da}", fontsize=8)
        pair[1].set_title(f"{measures.psnr_db:.1f} dB", fontsize=8)
    return figure


def draw_codebook(mean: np.ndarray, measures: HeldOutMeasures) -> Figure:
    """How much each token is used, most used first: a flat line is the aim."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.stairs(np.sort(mean)[::-1] * 100, baseline=None)
    panel.axhline(100 / len(mean), color="black", linewidth=0.8, label="even use")
    panel.set_yscale("log")
    panel.set_xlim(0, len(mean))
    panel.set_xlabel("token, most used first")
    panel.set_ylabel("mean probability (%)")
    panel.set_title(
        f"step {measures.step}: {100 * measures.share_of_tokens_used:.0f} % of the tokens used, "
        f"perplexity {measures.perplexity:.0f}, mean divergence from uniform "
        f"{measures.divergence_from_uniform:.2f} nats",
        fontsize=9,
    )
    panel.legend(loc="lower left")
    return figure
