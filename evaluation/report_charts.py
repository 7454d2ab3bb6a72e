"""How the values of a metric are spread over the cases: a row a class, a box, and a dot for each case."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..page import COLOURS, Html, text
from ..scores import Scores
from .report_values import MetricColumn, classes_of, value_of

ROW_PIXELS = 34
AXIS_PIXELS = 22
MAX_DOTS = 300
"""In a row: of more cases, those that are shown further down have one, and the box is of all."""
GOLDEN = 0.618034
"""Dots of one value are spread by its multiples, which never come close to each other."""
NUM_TICKS = 5


def distribution(scores: Scores, column: MetricColumn, listed: Sequence[int]) -> Html:
    """A row for each class on one scale: quartiles as a box, the median as a line, whiskers to the extremes.

    Dots have their case's name, and lead to it.

    Args:
        listed: numbers of the cases that the page has a place for.
    """
    names = classes_of(scores)
    values = {name: [value_of(case.classes[name], column.name) for case in scores.cases] for name in names}
    defined = [value for row in values.values() for value in row if value is not None]
    if not defined:
        return Html("")
    low, high = limits(defined, column)
    dotted = list(range(len(scores.cases)))
    if len(dotted) > MAX_DOTS:
        dotted = sorted(listed[:MAX_DOTS])
    with_place = set(listed)
    rows = []
    for number, name in enumerate(names):
        shapes, median = box_shapes([value for value in values[name] if value is not None], low, high, number)
        for case in dotted:
            value = values[name][case]
            if value is not None:
                score = scores.cases[case].classes[name]
                is_wrong = score.is_missed or score.is_false_alarm
                words = f"{scores.cases[case].case}: {value:.{column.places}f}"
                link = case if case in with_place else None
                shapes.append(dot(position(value, low, high), case, words, number, is_wrong, link))
        shapes.append(median)
        label = f'<p class="row">{text(name)} <span class="pale">{text(remark(scores, name, column))}</span></p>'
        rows.append(f'{label}<svg class="dots" style="height:{ROW_PIXELS}px" role="img">{"".join(shapes)}</svg>')
    return Html(f'<div class="spread">{"".join(rows)}{axis(low, high)}</div>')


def remark(scores: Scores, name: str, column: MetricColumn) -> str:
    """How often a class is missed or a false alarm, in words, and how many of these have no value and so no dot."""
    found = [case.classes[name] for case in scores.cases]
    told = []
    for words, wrong in (
        ("missed", [score for score in found if score.is_missed]),
        ("false alarms", [score for score in found if score.is_false_alarm]),
    ):
        num_without = sum(value_of(score, column.name) is None for score in wrong)
        without = f" ({'' if num_without == len(wrong) else f'{num_without} of them '}without a value)"
        told += [f"{len(wrong)} {words}{without if num_without else ''}"] if wrong else []
    return ", ".join(told)


def limits(values: Sequence[float], column: MetricColumn) -> tuple[float, float]:
    """Where the scale begins and ends: fractions end at 1, all else holds 0, and round numbers all."""
    if column.better == "higher":
        low = math.floor(min(values) * 10 - 1e-9) / 10
        return max(0.0, min(low, 0.9)), max(1.0, max(values))
    least, most = max(0.0, -min(values)), max(0.0, *values)
    step = tick_step(max(least, most))
    below, above = (math.ceil(it / step - 1e-9) for it in (least, most))
    return 0.0 - step * below, step * max(above, 0 if below else 1)


def tick_step(highest: float) -> float:
    """A round number of which a few reach the highest value."""
    rough = highest / NUM_TICKS
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(it * power for it in (1, 2, 5, 10) if it * power >= rough * (1 - 1e-9))


def position(value: float, low: float, high: float) -> float:
    """Where a value lies between the two, in per cent with room for half a dot on either side."""
    return round(1.5 + 97 * (value - low) / (high - low), 2)


def box_shapes(values: Sequence[float], low: float, high: float, number: int) -> tuple[list[str], str]:
    """Whiskers and box, and the median, which many dots must not hide; nothing of no values."""
    if not values:
        return [], ""
    least, lower, median, upper, most = (
        position(float(it), low, high) for it in np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    )
    middle, line = ROW_PIXELS / 2, 'stroke="currentColor"'
    whiskers = f'<line x1="{least}%" x2="{most}%" y1="{middle}" y2="{middle}" {line} opacity=".35"/>'
    size = f'width="{max(0.0, round(upper - lower, 2))}%" height="{ROW_PIXELS - 10}"'
    box = f'<rect x="{lower}%" y="5" {size} rx="3" fill="{COLOURS[number % len(COLOURS)]}" opacity=".25"/>'
    place = f'x1="{median}%" x2="{median}%" y1="2" y2="{ROW_PIXELS - 2}"'
    return [whiskers, box], f'<line {place} {line} stroke-width="2" pointer-events="none"/>'


def dot(place: float, case: int, words: str, number: int, is_wrong: bool, link: int | None) -> str:
    """One case; hollow if it misses the class or has it wrongly."""
    height = round(6 + (ROW_PIXELS - 12) * (case * GOLDEN % 1), 1)
    colour = COLOURS[number % len(COLOURS)]
    fill = f'fill="none" stroke="{colour}" stroke-width="2"' if is_wrong else f'fill="{colour}" fill-opacity=".85"'
    shape = (
        f'<circle cx="{place}%" cy="{height}" r="4" {fill} pointer-events="all"><title>{text(words)}</title></circle>'
    )
    return shape if link is None else f'<a href="#case-{link}" aria-label="{text(words)}">{shape}</a>'


def axis(low: float, high: float) -> str:
    """A line with numbers below all rows."""
    step = tick_step(high - low)
    ticks = [low + step * number for number in range(math.floor((high - low) / step + 1e-9) + 1)]
    shapes = ['<line x1="1.5%" x2="98.5%" y1="1" y2="1" stroke="currentColor" opacity=".35"/>']
    for tick in ticks:
        place = position(tick, low, high)
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
        shapes.append(f'<line x1="{place}%" x2="{place}%" y1="1" y2="6" stroke="currentColor" opacity=".35"/>')
        shapes.append(f'<text x="{place}%" y="18" text-anchor="{anchor}">{tick:.6g}</text>')
    return f'<svg class="dots" style="height:{AXIS_PIXELS}px">{"".join(shapes)}</svg>'
