"""A picture of what pre-training sees: augmented crops of each degree of anisotropy."""

from __future__ import annotations

import itertools
from pathlib import Path

from ..files import atomic_path
from .corpus import Corpus
from .sampling import CropMaker, CropRule, Draw, draw_batches

CROPS_A_ROW = 8
MAX_BATCHES = 2000
"""Looked through for a degree that is rarely drawn."""
INCHES = 1.6


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
    figure = Figure(figsize=(INCHES * CROPS_A_ROW, (INCHES + 0.4) * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), CROPS_A_ROW, squeeze=False)
    for axis in grid.flat:
        axis.set_axis_off()
    for axes, (da, draws) in zip(grid, rows.items(), strict=True):
        for number, (axis, draw) in enumerate(zip(axes, draws, strict=False)):
            crop = maker.make(draw)
            middle = (crop.image[:, crop.image.shape[1] // 2].expand(3, -1, -1).permute(1, 2, 0) + 1) / 2  # (H, W, 3)
            axis.imshow(middle.numpy(), interpolation="nearest")
            entry = entries[crop.name]
            scale = "" if draw.scale_plane == 1 else f" ×{draw.scale_plane:.2f}"
            axis.set_title(f"{entry.dataset}\n{entry.modality}{scale}", fontsize=6)
            if number == 0:
                size = "×".join(str(side) for side in rule.size_of(da))
                axis.text(
                    -0.08, 0.5, f"DA {da}: {size}", rotation=90, va="center", ha="right", transform=axis.transAxes
                )
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def first_draws(corpus: Corpus, rule: CropRule, seed: int) -> dict[int, tuple[Draw, ...]]:
    """The first draws of each degree of anisotropy that comes early in a run, by DA."""
    rows: dict[int, tuple[Draw, ...]] = {}
    for batch in itertools.islice(draw_batches(corpus, rule, CROPS_A_ROW, seed), MAX_BATCHES):
        rows.setdefault(batch[0].da, batch)
    return dict(sorted(rows.items()))
