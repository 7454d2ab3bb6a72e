"""A picture of what pre-training sees: augmented crops of each degree of anisotropy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from .corpus import Corpus
from .pictures import save_figure
from .sampling import CropMaker, CropRule, Draw, draw_batches

CROPS_A_ROW = 8
MAX_BATCHES = 2000
"""Looked through for a degree that is rarely drawn."""
INCHES, DOTS_AN_INCH = 1.6, 120
"""Of a crop with its caption."""


def save_crop_sheet(corpus: Corpus, rule: CropRule, seed: int, path: Path) -> None:
    """Write a PNG of the middle slices of the first crops that a run with this seed makes, a row for each DA.

    Under each crop stand its dataset and modality, and its scale in plane where it has one.

    Raises:
        InputError: if no image of the corpus can be read.
    """
    from matplotlib.figure import Figure

    maker = CropMaker(corpus, rule, seed)
    entries = {image.key: image for image in corpus.training}
    rows = first_draws(corpus, rule, seed)
    cell, side = rule.side + rule.side // 4, rule.side
    mosaic = np.ones((cell * len(rows), cell * CROPS_A_ROW, 3), np.float32)
    figure = Figure(figsize=(INCHES * CROPS_A_ROW, INCHES * len(rows)))
    axes = figure.add_axes((0.03, 0, 0.97, 1))  # one for all: an axes each takes seconds
    for row, (da, draws) in enumerate(rows.items()):
        top = row * cell + cell - side
        size = "×".join(str(length) for length in rule.size_of(da))
        axes.text(-0.05 * side, top + side / 2, f"DA {da}: {size}", fontsize=7, rotation=90, va="center", ha="right")
        for column, draw in enumerate(draws):
            crop = maker.make(draw)
            left = column * cell
            middle = crop.image[:, crop.image.shape[1] // 2].numpy()  # (1 or 3, H, W)
            mosaic[top : top + side, left : left + side] = (middle.transpose(1, 2, 0) + 1) / 2
            entry, scale = entries[crop.name], "" if draw.scale_plane == 1 else f" ×{draw.scale_plane:.2f}"
            axes.text(left, top, f"{entry.dataset}\n{entry.modality}{scale}", fontsize=5, va="bottom", parse_math=False)
    axes.imshow(mosaic.clip(0, 1), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    save_figure(figure, path, dpi=DOTS_AN_INCH)


def first_draws(corpus: Corpus, rule: CropRule, seed: int) -> dict[int, tuple[Draw, ...]]:
    """The first draws of each degree of anisotropy that comes early in a run, by DA."""
    rows: dict[int, tuple[Draw, ...]] = {}
    for batch in itertools.islice(draw_batches(corpus, rule, CROPS_A_ROW, seed), MAX_BATCHES):
        rows.setdefault(batch[0].da, batch)
    return dict(sorted(rows.items()))
