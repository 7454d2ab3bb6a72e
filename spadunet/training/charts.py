"""Curves as SVG that stands within a page: lines keep their colour, all else takes the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..page import COLOURS, Html
from .curves import plot_smooth, smoothing_width

MAX_POINTS = 400
"""Of a line: more than a chart has pixels that one could tell apart."""
MAX_MARKED = 40
"""Points of a line that are marked, one by one."""
INK = "#010203"
"""Stands for the page's colour of text; no line has it."""
STYLE: dict[Any, Any] = {  # any, for matplotlib's own type is a list of all its hundreds of names
    "svg.fonttype": "none",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "xtick.color": INK,
    "ytick.color": INK,
}
OUTLIERS_PERCENT = 1.0
"""Of single values above which a chart ends: the first losses would flatten all others."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values by step."""

    steps: np.ndarray
    values: np.ndarray
    colour: int = 0
    """Its place in COLOURS."""
    is_smoothed: bool = True
    """Drawn with its running mean."""


def running_mean(values: np.ndarray) -> float | None:
    """Mean of the last values, where a smoothed line ends; None of none."""
    return float(values[-smoothing_width(len(values)) :].mean()) if len(values) else None


def draw_chart(key: str, lines: Sequence[Line], *, lowest: float | None = None, highest: float | None = None) -> Html:
    """A chart of values against steps.

    Args:
        key: of the chart, the only one of its name on a page.
        lowest, highest: where the chart ends, where that is known.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            colour = COLOURS[line.colour % len(COLOURS)]
            if line.is_smoothed:
                plot_smooth(axes, line.steps, line.values, "", colour=colour, max_points=MAX_POINTS)
            else:
                stride = len(line.values) // MAX_POINTS + 1
                marker = "." if len(line.values) <= MAX_MARKED else ""
                axes.plot(line.steps[::stride], line.values[::stride], color=colour, marker=marker)
        smoothed = [line.values for line in lines if line.is_smoothed and len(line.values)]
        if smoothed and highest is None:
            low = min(values.min() for values in smoothed)
            high = max(np.percentile(values, 100 - OUTLIERS_PERCENT) for values in smoothed)
            margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
            axes.set_ylim(low - margin if lowest is None else lowest, high + margin)
        else:
            axes.set_ylim(lowest, highest)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("step")
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return as_inline(text.getvalue())


def as_inline(svg: str) -> Html:
    """The drawing alone, in the page's colours and font, without names that another on the page may have."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r" font-family: [^;\"]*;", "", svg).replace(INK, "currentColor")
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+|\s*\n", r"\1", path[0]), svg)
    referred = set(re.findall(r"[\"(]#([^\")]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in referred else "", svg)
    return Html(re.sub(r"\s*\n\s*", "\n", svg))
