"""What a backbone guesses, as pictures: held-out images, masked, and completed by the tokenizer's decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..network.masked import cover, token_grid, voxels_of
from ..network.tokenizer import SpadTokenizer
from .corpus import Corpus, CorpusImage
from .pictures import choose_images, still_readable
from .sampling import CropRule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CROPS = 8
COLUMNS = ("image", "masked", "tokenizer's own", "tokens guessed", "voxels guessed")
"""The last only of a backbone that guesses voxels too."""
GREY = 0.0
"""In the place of masked patches, in pictures."""


@dataclass(frozen=True, kw_only=True)
class SheetCrop:
    """The middle of a held-out image."""

    key: str
    modality: str
    da: int
    image: Tensor
    """(1, 3, D, H, W) float32 in [-1, 1]."""

    @property
    def num_patches(self) -> int:
        """Patches that it is cut into."""
        depth, height, width = self.image.shape[2:]
        return math.prod(token_grid((depth, height, width), self.da))


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """Middle slices of one crop by column of the sheet, where guessed the masked patches only: (H, W, 3) in [0, 1]."""

    title: str
    pictures: tuple[np.ndarray, ...]


def choose_crops(corpus: Corpus, rule: CropRule) -> tuple[SheetCrop, ...]:
    """At most MAX_CROPS held-out images, spread over degrees of anisotropy and modalities.

    Training images stand in where none is held out. One that is gone or damaged is named and left out.
    """

    def read(image: CorpusImage) -> SheetCrop:
        depth, height, width = rule.size_of(image.da)
        size = (min(depth, image.shape[0]), height, width)  # slices that are not there would be half of a thin one
        first = [(n - s) // 2 for n, s in zip(image.shape, size, strict=True)]
        box = torch.from_numpy(corpus.read_box(image, first, size))
        return SheetCrop(key=image.key, modality=image.modality, da=image.da, image=box.expand(3, -1, -1, -1)[None])

    return tuple(still_readable(choose_images(corpus.held_out or corpus.training, MAX_CROPS), read))


@torch.no_grad()
def complete(
    crop: SheetCrop,
    masked: Tensor,
    guess: Callable[[Tensor, int, Tensor], tuple[Tensor, Tensor | None]],
    tokenizer: SpadTokenizer,
) -> SheetRow:
    """Let a network guess what is masked, and let the tokenizer draw it among the tokens that are seen.

    Args:
        masked: (1, L) bool, on the networks' device.
        guess: image (1, 3, D, H, W), degree of anisotropy and mask to logits (M, K), and to voxels as the image.
    """
    image, da = crop.image.to(masked.device), crop.da
    depth, height, width = image.shape[2:]
    size = (depth, height, width)
    own = tokenizer.encode(image, da).float().softmax(1)  # (1, K, d, h, w)
    logits, voxels = guess(image, da, masked)
    logits = logits.float()
    guessed = logits.softmax(1)
    tokens = own.flatten(2).transpose(1, 2).clone()  # (1, L, K)
    agreement = (guessed.argmax(1) == tokens[masked].argmax(1)).float().mean()
    kl = functional.kl_div(logits.log_softmax(1), tokens[masked], reduction="batchmean")
    tokens[masked] = guessed
    completed = tokens.transpose(1, 2).view_as(own)
    grey = torch.full((3,), GREY, device=image.device)
    volumes = [
        image,
        cover(image, da, masked, grey),
        tokenizer.decode(own, da, size),
        tokenizer.decode(completed, da, size),
    ]
    if voxels is not None:
        volumes.append(torch.where(voxels_of(masked, image, da), voxels.float(), image))
    return SheetRow(
        title=f"{crop.modality}, DA {da}\nKL {kl:.2f}, {100 * agreement:.0f} % agree",
        pictures=tuple(middle_slice(volume) for volume in volumes),
    )


def middle_slice(volume: Tensor) -> np.ndarray:
    """(1, 3, D, H, W) in [-1, 1] to (H, W, 3) in [0, 1]."""
    slice_ = volume[0, :, volume.shape[2] // 2].float()
    return (slice_.movedim(0, -1).cpu().numpy() / 2 + 0.5).clip(0, 1)


def draw_sheet(rows: Sequence[SheetRow], title: str) -> Figure:
    """A row of pictures for each image."""
    from matplotlib.figure import Figure

    columns = COLUMNS[: len(rows[0].pictures)]
    figure = Figure(figsize=(2 * len(columns) + 1, 2 * len(rows) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    figure.suptitle(title)
    for row, line in zip(rows, axes, strict=True):
        for picture, column, name in zip(row.pictures, line, columns, strict=True):
            column.imshow(picture)
            column.set_xticks([])
            column.set_yticks([])
            if row is rows[0]:
                column.set_title(name, fontsize=9)
        line[0].set_ylabel(row.title, fontsize=8)
    return figure
