"""Pictures of a classification: ROC curves and reliability as SVG, the confusion matrix as a shaded table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..classes import UNKNOWN
from ..page import COLOURS, Html, text
from .reliability import Bin

SIDE = 200
"""Of a chart's square, in its own units."""
MARGIN = 34
MAX_POINTS = 300
"""Of a curve: more than a chart has places."""
SHADE_PERCENT = 70
"""Of colour in a cell of the confusion matrix that holds its whole row."""


def roc_points(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Corners of the ROC curve: the share of negative studies that are told, and that of positive ones, (corners, 2).

    Args:
        labels: (N,) of 1, 0 or `UNKNOWN`, which is left out; both must be there.
        scores: (N,); equal ones make one slanted step.
    """
    is_known = labels != UNKNOWN
    order = np.argsort(-scores[is_known], kind="stable")
    labels, scores = labels[is_known][order], scores[is_known][order]
    last = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])  # of each run of equal scores
    told = np.stack([np.cumsum(labels == 0), np.cumsum(labels == 1)], axis=1)[last]
    return np.concatenate([np.zeros((1, 2)), told / told[-1]])


def roc_chart(points: np.ndarray, name: str, colour: int) -> Html:
    """A ROC curve with the diagonal of chance; of many corners, those that make a visible difference.

    Args:
        colour: its place in COLOURS.
    """
    if len(points) > MAX_POINTS:
        # Evenly along the curve, which has length 2 in steps to the right and up.
        along = points.sum(axis=1)
        points = points[np.unique(np.searchsorted(along, np.linspace(0, 2, MAX_POINTS)).clip(max=len(points) - 1))]
    line = polyline(points, COLOURS[colour % len(COLOURS)])
    return square([line], f"ROC curve of {name}", "1 - specificity", "sensitivity")


def reliability_chart(bins: Sequence[Bin]) -> Html:
    """Shares that are true against what was said; dots are larger where more was said."""
    most = max((it.number for it in bins), default=1)
    points = np.array([(it.mean_probability, it.share_true) for it in bins]).reshape(-1, 2)
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 5 * (it.number / most) ** 0.5:.1f}" fill="{COLOURS[1]}">'
        f"<title>{it.number} at {it.mean_probability:.3f}: {it.share_true:.3f} true</title></circle>"
        for it, (x, y) in zip(bins, places(points), strict=True)
    ]
    return square([polyline(points, COLOURS[1]), *dots], "Reliability", "stated probability", "share true")


def square(shapes: Iterable[str], name: str, across: str, up: str) -> Html:
    """A chart from 0 to 1 both ways, with its diagonal."""
    ink = 'stroke="currentColor" fill="none"'
    low, high = MARGIN, MARGIN + SIDE
    ticks = "".join(
        f'<text x="{x:.0f}" y="{high + 14}" text-anchor="middle" fill="currentColor" font-size="10">{value:g}</text>'
        f'<text x="{low - 5}" y="{y + 3:.0f}" text-anchor="end" fill="currentColor" font-size="10">{value:g}</text>'
        for value, (x, y) in zip((0, 0.5, 1), places(np.array([(0, 0), (0.5, 0.5), (1, 1)])), strict=True)
    )
    middle = low + SIDE / 2
    set_as = 'text-anchor="middle" fill="currentColor" font-size="11"'
    words = (
        f'<text x="{middle}" y="{high + 28}" {set_as}>{text(across)}</text>'
        f'<text x="10" y="{middle}" {set_as} transform="rotate(-90 10 {middle})">{text(up)}</text>'
    )
    frame = f'<rect x="{low}" y="{low}" width="{SIDE}" height="{SIDE}" {ink} opacity=".4"/>'
    chance = f'<line x1="{low}" y1="{high}" x2="{high}" y2="{low}" {ink} opacity=".4" stroke-dasharray="4 4"/>'
    size = SIDE + 2 * MARGIN
    view = f"0 {MARGIN - 8} {size - 14} {size - MARGIN + 6}"
    return Html(
        f'<svg role="img" aria-label="{text(name)}" viewBox="{view}" style="max-width:{size}px">'
        f"{frame}{chance}{ticks}{words}{''.join(shapes)}</svg>"
    )


def polyline(points: np.ndarray, colour: str) -> str:
    """A line through points (corners, 2) of 0 to 1."""
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in places(points))
    return f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'


def places(points: np.ndarray) -> list[tuple[float, float]]:
    """Where points (corners, 2) of 0 to 1, upwards, lie in the chart."""
    return [(MARGIN + SIDE * float(x), MARGIN + SIDE * (1 - float(y))) for x, y in points]


def confusion_table(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Html:
    """Numbers of studies, shaded by their share of the row: a row a true class, a column a predicted one."""
    top = "".join(f"<th>{text(name)}</th>" for name in names)
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        cells = []
        for count in row:
            percent = SHADE_PERCENT * count / total if total else 0
            share = f"{count / total:.1%} of {total}" if total else "no such case"
            shade = f"color-mix(in srgb, {COLOURS[1]} {percent:.0f}%, transparent)"
            cells.append(f'<td style="background:{shade}" title="{share}">{count:,}</td>')
        rows.append(f"<tr><td>{text(name)}</td>{''.join(cells)}</tr>")
    return Html(f'<div class="scroll"><table><tr><th>true \\ predicted</th>{top}</tr>{"".join(rows)}</table></div>')
