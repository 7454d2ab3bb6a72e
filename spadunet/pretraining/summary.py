"""A corpus in a table, and on one sheet of pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import atomic_path
from ..image import format_spacing
from .corpus import Corpus, CorpusImage, CorpusIndex
from .manifest import ManifestDataset

SHEET_PNG = "corpus.png"
MAX_PICTURES = 80
"""On the sheet; of more groups, the heaviest."""
COLUMNS = 6

Group = tuple[str, str]
"""Dataset and modality."""


def groups_of(images: Sequence[CorpusImage]) -> dict[Group, list[CorpusImage]]:
    """Images by dataset and modality, sorted."""
    groups: dict[Group, list[CorpusImage]] = defaultdict(list)
    for image in images:
        groups[image.dataset, image.modality].append(image)
    return dict(sorted(groups.items()))


def rows_of(index: CorpusIndex) -> list[list[str]]:
    """A header, a row for each dataset and modality, and one of all; a share is of the draws in training."""
    training = [image for image in index.images if not image.is_held_out]
    total = sum(image.weight for image in training)
    rows = [["dataset", "modality", "images", "slices", "DA: images", "held out", "share of draws"]]
    for (dataset, modality), members in [*groups_of(index.images).items(), (("all", ""), list(index.images))]:
        weight = sum(image.weight for image in members if not image.is_held_out)
        rows.append(
            [
                dataset,
                modality,
                str(len(members)),
                str(sum(image.shape[0] for image in members)),
                ", ".join(f"{da}: {number}" for da, number in counts_by_da(members).items()),
                str(sum(image.is_held_out for image in members)),
                f"{100 * weight / total:.1f} %",
            ]
        )
    return rows


def counts_by_da(images: Sequence[CorpusImage]) -> dict[int, int]:
    """How many images have each degree of anisotropy, ascending."""
    found = [image.da for image in images]
    return {da: found.count(da) for da in sorted(set(found))}


def compare(index: CorpusIndex, datasets: Sequence[ManifestDataset]) -> list[str]:
    """A line for each dataset of a manifest whose images or slices are not as many as it says."""
    lines = []
    for dataset in datasets:
        members = [image for image in index.images if image.dataset == dataset.name]
        slices = sum(image.shape[0] for image in members)
        if dataset.num_images is not None and len(members) != dataset.num_images:
            lines.append(f"{dataset.name}: {len(members):,} images, the manifest says {dataset.num_images:,}")
        elif dataset.num_slices is not None and slices != dataset.num_slices:
            lines.append(f"{dataset.name}: {slices:,} slices, the manifest says {dataset.num_slices:,}")
    return lines


def draw_sheet(corpus: Corpus) -> Path:
    """Write the middle slice of one image of each dataset and modality, the held-out one if there is any, as a PNG.

    Raises:
        InputError: if a stored image cannot be read.
        OutputError: if the picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = sorted(groups_of(corpus.index.images).items(), key=lambda item: -sum(it.weight for it in item[1]))
    shown = sorted(groups[:MAX_PICTURES])
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.7 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for number, ((dataset, modality), members) in enumerate(shown, start=1):
        image = next((member for member in members if member.is_held_out), members[len(members) // 2])
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(
            middle_slice(corpus, image), cmap="gray", vmin=0, vmax=1, aspect=image.spacing_mm[1] / image.spacing_mm[2]
        )
        size = f"{'×'.join(map(str, image.shape))}, DA {image.da}"
        axes.set_title(
            f"{dataset}\n{modality}, {len(members)} images\n{size}\n{format_spacing(image.spacing_mm)} mm",
            fontsize=6,
        )
        axes.set_axis_off()
    path = corpus.folder / SHEET_PNG
    with atomic_path(path) as partial:
        canvas.print_figure(partial, format="png", dpi=120)
    return path


def middle_slice(corpus: Corpus, image: CorpusImage) -> np.ndarray:
    """(H, W) or (H, W, 3) in [0, 1]."""
    depth, height, width = image.shape
    plane = (corpus.read_box(image, (depth // 2, 0, 0), (1, height, width))[:, 0] + 1) / 2  # (C, H, W)
    return plane[0] if len(plane) == 1 else np.moveaxis(plane, 0, -1)
