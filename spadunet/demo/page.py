"""One self-contained page of overlay pictures: image, reference and prediction side by side with their scores."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files import write_text
from ..image import read_image, read_label_map
from ..preprocessing.orient import choose_axes, orient
from ..scores import CaseScore, Scores

COLOURS = ("#ffb000", "#648fff", "#dc267f", "#00c2a0", "#fe6100")  # told apart by colour-blind people too
STYLE = """
body { font-family: system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
img { max-width: 100%; display: block } figure { margin: 1.5rem 0 } figcaption { font-size: .9rem; color: #555 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left }
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The test cases of one dataset."""

    title: str
    image_folder: Path
    reference_folder: Path
    prediction_folder: Path
    scores: Scores


def write_page(path: Path, sections: list[Section], *, about: str) -> None:
    """Write an HTML page that needs no other file."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>spadunet demo</title><style>{STYLE}</style><h1>spadunet demo</h1><p>{html.escape(about)}</p>",
    ]
    for section in sections:
        parts += [f"<h2>{html.escape(section.title)}</h2>", table_of(section.scores)]
        parts += [figure_of(section, score) for score in section.scores.cases]
    write_text(path, "\n".join(parts) + "\n")


def table_of(scores: Scores) -> str:
    """Means by class."""
    rows = ["<table><tr><th>class<th>Dice<th>ASSD mm<th>HD mm<th>cases<th>missed</tr>"]
    for name, row in scores.summary().items():
        values = "".join(f"<td>{'–' if v is None else f'{v:.3f}'}" for v in (row.dice, row.assd_mm, row.hd_mm))
        rows.append(f"<tr><td>{html.escape(name)}{values}<td>{row.num_cases}<td>{row.num_missed}</tr>")
    return "".join(rows) + "</table>"


def figure_of(section: Section, score: CaseScore) -> str:
    """Three slices of a case with the outlines of reference and prediction."""
    dice = ", ".join(
        f"{name} {'–' if value.dice is None else f'{value.dice:.3f}'}" for name, value in score.classes.items()
    )
    picture = base64.b64encode(draw_case(section, score.case)).decode()
    caption = f"{html.escape(score.case)}: Dice {html.escape(dice)}. Reference dashed, prediction solid."
    alt = html.escape(f"{score.case} with outlines of reference and prediction")
    return f"<figure><img alt='{alt}' src='data:image/png;base64,{picture}'><figcaption>{caption}</figcaption></figure>"


def draw_case(section: Section, case: str) -> bytes:
    """PNG of the slices a quarter, half and three quarters through the reference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = read_image(sorted(section.image_folder.glob(f"{case}_0000.nii*"))[:1])
    axes, flips = choose_axes(image.shape, image.affine)
    volume = orient(image.array[0], axes, flips)  # (D, H, W)
    reference, prediction = (
        orient(read_label_map(folder / f"{case}.nii.gz").array, axes, flips)
        for folder in (section.reference_folder, section.prediction_folder)
    )
    low, high = np.percentile(volume, (0.5, 99.5))
    slices = np.flatnonzero(reference.any(axis=(1, 2)))
    chosen = np.quantile(slices if len(slices) else np.arange(len(volume)), (0.25, 0.5, 0.75)).astype(int)
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axis, number in zip(figure.subplots(1, 3), chosen.tolist(), strict=True):
        axis.imshow(volume[number], cmap="gray", vmin=low, vmax=high)
        for label in np.unique(reference)[1:].tolist():
            colour = COLOURS[(label - 1) % len(COLOURS)]
            for mask, line in ((reference, "dashed"), (prediction, "solid")):
                if (mask[number] == label).any():
                    axis.contour(mask[number] == label, [0.5], colors=colour, linestyles=line, linewidths=1.2)
        axis.set_axis_off()
        axis.set_title(f"slice {number}", fontsize=9)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
