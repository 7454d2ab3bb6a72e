"""How far expected Dice can be believed, by references: numbers and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import atomic_path
from ..page import COLOURS
from ..record import FormatVersion, Record
from .risk import KEPT_SHARE, RiskCoverage, kept_mean, risk_coverage, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 130
GREY = "#707070"
PNG, JSON = "risk_coverage.png", "quality_check.json"


class CheckedCase(Record):
    """Mean over the classes of a case that the reference or the prediction has."""

    case: str
    expected_dice: float
    dice: float


class QualityCheck(Record):
    """quality_check.json."""

    format_version: FormatVersion = 1
    spearman: float | None
    """Of expected and true mean Dice of cases; None where one is constant."""
    error: float
    """Mean of |expected - true mean Dice|."""
    mean_dice: float
    """Of all cases."""
    kept_share: float
    kept_mean_dice: float
    """Of this share of the cases, those of the highest expected Dice."""
    area: float
    """Mean risk over all coverages; the lower the better."""
    oracle_area: float
    """The lowest that any order reaches."""
    chance_area: float
    """Of a random order."""
    cases: tuple[CheckedCase, ...]
    not_judged: tuple[str, ...]
    """Cases without an expected or a true Dice."""


def check_quality(pairs: Mapping[str, tuple[float, float]], not_judged: tuple[str, ...] = ()) -> QualityCheck:
    """Of expected and true mean Dice by case, at least one."""
    expected, dice = np.array(list(pairs.values())).T
    curve = risk_coverage(expected, dice)
    return QualityCheck(
        spearman=spearman(expected, dice),
        error=float(np.abs(expected - dice).mean()),
        mean_dice=float(dice.mean()),
        kept_share=KEPT_SHARE,
        kept_mean_dice=kept_mean(expected, dice),
        area=curve.area,
        oracle_area=curve.oracle_area,
        chance_area=curve.chance,
        cases=tuple(CheckedCase(case=case, expected_dice=one, dice=other) for case, (one, other) in pairs.items()),
        not_judged=not_judged,
    )


def summary_of(check: QualityCheck) -> list[str]:
    """Lines for the terminal."""
    correlation = "not defined" if check.spearman is None else f"{check.spearman:.3f}"
    lines = [
        f"Spearman of expected and true Dice: {correlation} ({len(check.cases)} cases)",
        f"mean |expected - true Dice|: {check.error:.4f}",
        f"mean Dice of all: {check.mean_dice:.4f}",
        f"mean Dice of the {check.kept_share:.0%} expected to be best: {check.kept_mean_dice:.4f}",
        f"area under the risk-coverage curve: {check.area:.4f} (oracle {check.oracle_area:.4f}, random order "
        f"{check.chance_area:.4f})",
    ]
    lines += [f"without expected or true Dice: {', '.join(check.not_judged)}"] if check.not_judged else []
    return lines


def draw_risk_coverage(path: Path, check: QualityCheck) -> Path:
    """Write the curve as PNG, whole or not at all.

    Raises:
        OutputError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    expected, dice = (np.array([getattr(it, field) for it in check.cases]) for field in ("expected_dice", "dice"))
    curve = risk_coverage(expected, dice)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    draw_lines(axes, curve)
    correlation = "not defined" if check.spearman is None else f"{check.spearman:.2f}"
    axes.set_title(f"{len(dice)} cases, Spearman of expected and true Dice {correlation}", fontsize=10)
    with atomic_path(path) as partial:
        FigureCanvasAgg(figure).print_figure(partial, format="png", dpi=DPI)
    return path


def draw_lines(axes: Axes, curve: RiskCoverage) -> None:
    """The three orders, and what each keeps."""
    shares = 100 * curve.coverage
    axes.plot(shares, curve.risk, color=COLOURS[0], linewidth=2, label="by expected Dice")
    axes.plot(shares, curve.oracle, color=COLOURS[1], linewidth=1.5, linestyle="--", label="by true Dice (oracle)")
    axes.axhline(curve.chance, color=GREY, linewidth=1.5, linestyle=":", label="in random order")
    axes.set_xlabel("cases kept (%)")
    axes.set_ylabel("mean error of those kept, 1 - Dice")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, max(float(curve.risk.max()), curve.chance, 0.01) * 1.1)
    axes.grid(color="#e0e0e0", linewidth=0.6)
    axes.legend(frameon=False)
