"""Pictures of a comparison: differences with their intervals and patients, and how stable the rankings are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...files import atomic_path
from ...metrics import metric_of
from ...page import COLOURS
from .comparison import Comparison, Difference
from .paired import Paired, PairedValues
from .ranking import Ranking
from .statistics import mean_where_defined
from .tables import interval_text, places_of, short_meaning, signed, verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = tuple[Sequence[Difference], Sequence[np.ndarray]]
"""Rows of a pair of models, and of each row the patients' differences (P,)."""

RANKING_PNG = "ranking.png"
MAX_COLUMNS, MAX_RANKINGS = 2, 3
"""Panels side by side."""
MAX_PAIRS, MAX_CLASSES = 6, 30
"""Panels of differences a picture, and classes a panel: more would be tens of thousands of pixels."""
GREY = "#707070"
DARK = 0.6
"""Share above which a cell is so dark that its number is white."""
SPREAD = 0.28
"""Of the dots around their line: rows are one apart."""
FAR = 3.0
MAX_BESIDE = 16
"""Letters of two names that fit on one line below a panel."""
DPI = 130
LEGEND = "dots: patients (triangles: beyond the axis)  ·  diamond and bar: mean and 95 % interval  ·  grey: no winner"


def difference_png(metric: str, page: int = 0) -> str:
    """Name of a picture of a metric; a number from 2 where it has several."""
    return f"differences_{metric}{f'_{page + 1}' if page else ''}.png"


def is_picture(name: str) -> bool:
    """A file's name is that of one of these pictures."""
    return name == RANKING_PNG or (name.startswith("differences_") and name.endswith(".png"))


def num_pages(num_pairs: int) -> int:
    """Pictures of a metric."""
    return -(-num_pairs // MAX_PAIRS)


def draw_comparison(folder: Path, comparison: Comparison, paired: Paired) -> list[Path]:
    """Write pictures of differences, MAX_PAIRS pairs of models each, and one of all rankings; their paths.

    Raises:
        OutputError: if they cannot be written.
    """
    files = []
    for values in paired.metrics:
        for page, figure in enumerate(pictures_of_differences(values, comparison, paired)):
            files.append(save(folder / difference_png(values.metric.name, page), figure))
    if comparison.rankings:
        files.append(save(folder / RANKING_PNG, figure_of_rankings(comparison.rankings)))
    return files


def save(path: Path, figure: Figure) -> Path:
    """Write a picture whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as partial:
        FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=DPI)
    return path


def pictures_of_differences(values: PairedValues, comparison: Comparison, paired: Paired) -> Iterator[Figure]:
    """Pictures of one metric, a panel a pair of models."""
    differences = [it for it in comparison.differences if it.metric == values.metric.name]
    pairs = list(itertools.combinations(range(len(paired.models)), 2))
    num_rows = len(paired.classes) + 1
    colours = {model.name: COLOURS[number % len(COLOURS)] for number, model in enumerate(paired.models)}
    legend = f"{LEGEND}\n{short_meaning(comparison, values.metric.name)}"
    if len(paired.classes) > MAX_CLASSES:
        legend += f"\nof {len(paired.classes)} classes the {MAX_CLASSES} with the smallest p; compare.csv has all"
    panels = []
    for number, pair in enumerate(pairs):
        of_pair = differences[number * num_rows : (number + 1) * num_rows]
        by_class = values.by_patient[pair[1]] - values.by_patient[pair[0]]  # (P, K)
        rows = [*clearest(of_pair[:-1]), num_rows - 1]
        by_patient = [*by_class.T, mean_where_defined(by_class, axis=-1)]
        panels.append(([of_pair[row] for row in rows], [by_patient[row] for row in rows]))
    for start in range(0, len(panels), MAX_PAIRS):
        yield figure_of_pairs(panels[start : start + MAX_PAIRS], colours, legend)


def clearest(differences: Sequence[Difference]) -> list[int]:
    """Which classes a panel has room for: those with the smallest p, in their order."""
    by_p = sorted(range(len(differences)), key=lambda row: 1.0 if (p := differences[row].p) is None else p)
    return sorted(by_p[:MAX_CLASSES])


def figure_of_pairs(panels: Sequence[Panel], colours: Mapping[str, str], legend: str) -> Figure:
    """A panel a pair of models."""
    from matplotlib.figure import Figure

    columns = min(MAX_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    height = 0.4 + (1.4 + 0.5 * len(panels[0][0])) * lines
    figure = Figure(figsize=(0.8 + 6.2 * columns, height), layout="constrained")
    for number, (differences, by_patient) in enumerate(panels, start=1):
        draw_pair(figure.add_subplot(lines, columns, number), differences, by_patient, colours)
    figure.supxlabel(legend, fontsize=8, color=GREY)
    return figure


def draw_pair(
    axes: Axes, differences: Sequence[Difference], by_patient: Sequence[np.ndarray], colours: Mapping[str, str]
) -> None:
    """A row a class, the mean last and apart, in the winner's colour, or grey without one.

    Args:
        by_patient: of each row (P,), NaN where left out.
    """
    total = differences[-1]
    heights = [-float(row) for row in range(len(differences) - 1)] + [-len(differences) + 0.8]
    low, high = axis_limits(differences, by_patient)
    rng = np.random.default_rng(0)
    axes.axvline(0, color="black", linewidth=0.8, zorder=1)
    for it, height, values in zip(differences, heights, by_patient, strict=True):
        colour = colours[it.winner] if it.winner else GREY
        there = values[~np.isnan(values)]
        jitter = height + rng.uniform(-SPREAD, SPREAD, len(there))
        for marker, chosen in (("o", (low <= there) & (there <= high)), ("<", there < low), (">", there > high)):
            axes.scatter(
                np.clip(there, low, high)[chosen], jitter[chosen], s=16, marker=marker, color=colour, alpha=0.4,
                linewidth=0, clip_on=False, zorder=2,
            )  # fmt: skip
        if it.mean_interval is not None:
            axes.plot(it.mean_interval, [height] * 2, color=colour, linewidth=3, solid_capstyle="butt", zorder=3)
        if it.mean is not None:
            axes.plot([it.mean], [height], "D", color=colour, markersize=5.5, markeredgecolor="white", zorder=4)
        beside = axes.get_yaxis_transform()  # of x a share of the panel's width, of y data
        weight = "bold" if it.winner else "normal"
        axes.text(
            1.04, height + 0.02, verdict_text(it), va="bottom", fontsize=9, fontweight=weight, color=colour,
            transform=beside,
        )  # fmt: skip
        axes.text(1.04, height - 0.04, numbers_text(it), va="top", fontsize=7.5, color=colour, transform=beside)
    axes.axhline((heights[-1] + heights[-2]) / 2, color=GREY, linewidth=0.6, linestyle="dotted")
    axes.set_yticks(heights, [f"{it.class_name} ({it.num_patients})" for it in differences])
    axes.set_ylim(heights[-1] - 0.5, 0.5)
    margin = 0.04 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    left, right = (total.first, total.second) if total.is_higher_better else (total.second, total.first)
    second_line = -36 if len(left) + len(right) > MAX_BESIDE else -24
    for place, side, below, words in (
        (0, "left", -24, f"← {left} better"),
        (1, "right", second_line, f"{right} better →"),
    ):
        axes.annotate(
            words, (place, 0), (0, below), xycoords="axes fraction", textcoords="offset points", ha=side, va="top",
            fontsize=9,
        )  # fmt: skip
    axes.set_title(f"{metric_of(total.metric).title}: {total.second} minus {total.first}", fontsize=11, loc="left")


def axis_limits(differences: Sequence[Difference], by_patient: Sequence[np.ndarray]) -> tuple[float, float]:
    """What holds 0, all means with their intervals, and of each row the patients that are no far outliers.

    Far is more than three times the height of the box beyond it (Tukey 1977): one missed organ would flatten all else.
    """
    ends = [0.0]
    for it, values in zip(differences, by_patient, strict=True):
        there = values[~np.isnan(values)]
        if len(there) and it.mean is not None:
            lower, upper = np.quantile(there, (0.25, 0.75))
            fence = FAR * (upper - lower)
            near = there[(there >= lower - fence) & (there <= upper + fence)]
            ends += [float(near.min()), float(near.max()), it.mean, *(it.mean_interval or ())]
    return (min(ends), max(ends)) if max(ends) > min(ends) else (-1.0, 1.0)


def numbers_text(it: Difference) -> str:
    """Mean difference and its interval."""
    if it.mean is None:
        return ""
    return f"{signed(it.mean, places_of(it))} ({interval_text(it.mean_interval, places_of(it))})"


def figure_of_rankings(rankings: Sequence[Ranking]) -> Figure:
    """A panel a metric: how often each model has each rank, the darker the more often."""
    from matplotlib.figure import Figure

    columns = min(MAX_RANKINGS, len(rankings))
    lines = -(-len(rankings) // columns)
    num_models = len(rankings[0].models)
    longest = max(len(name) for name in rankings[0].models)
    width, height = 1.2 + 0.75 * num_models + 0.08 * longest, 1.5 + 0.5 * num_models
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained")
    for number, ranking in enumerate(rankings, start=1):
        axes = figure.add_subplot(lines, columns, number)
        shares = np.array(ranking.shares)  # (models, ranks)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            ink = "white" if share > DARK else "black"
            if share > 0:
                axes.text(column, row, percent(share), ha="center", va="center", color=ink, fontsize=9)
        axes.set_xticks(range(num_models), [str(place) for place in range(1, num_models + 1)])
        axes.set_yticks(range(num_models), ranking.models)
        axes.set_xlabel("rank, in % of resamples")
        tau = "" if ranking.mean_tau is None else f" · tau {ranking.mean_tau:.2f}"
        axes.set_title(f"{metric_of(ranking.metric).title}{tau}", fontsize=11)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def percent(share: float) -> str:
    """Whole, but never 0 or 100 for what is between."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 < share < 1 else f"{100 * share:.0f}"
