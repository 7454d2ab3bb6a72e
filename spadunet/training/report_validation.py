"""The part of a run's page that shows how well it does on held-out cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from ..evaluation.tables import LEDGER, class_means, ledger, meaning, means, remarks, titles
from ..page import Html, details, figure, grid, heading, inline_image, legend, number, paragraph, table, text
from ..scores import ClassSummary, Scores
from .board import VALIDATION_FOLDER, DicePoint, read_final_scores, read_validation
from .charts import Line, draw_chart
from .samples import case_dice, choose_samples, overlay_paths, rank_cases
from .status import RunStatus

MAX_CASES = 300
"""In the list of all; the worst are shown."""
MAX_PICTURED = 8
"""Datasets whose samples are shown."""


def validation_of(folder: Path, status: RunStatus) -> Iterator[Html]:
    """Scores of held-out cases: while the run went on, and at its end."""
    scores = read_final_scores(folder, since=status.started.timestamp())
    points = read_validation(folder)
    plans = {plan.dataset_name: plan for plan in status.plans}
    if not plans:
        return
    yield heading("Validation")
    if status.request.get("fold") == "all":
        yield paragraph("No case was held out (fold all), so there is no validation.", "pale")
        return
    if not scores and not points:
        yield paragraph("Held-out cases are scored at the end of the run.", "pale")
    yield from dice_charts(points)
    for place, (name, found) in enumerate(scores.items()):
        yield heading(name, 3)
        summary = found.summary()
        yield score_table(found, summary)
        for remark in remarks(found, summary):
            yield paragraph(remark, "pale")
        if found.definitions:
            yield details("What the numbers mean", Html("".join(paragraph(it, "pale") for it in meaning(found))))
        if place < MAX_PICTURED:
            yield from samples_of(folder / VALIDATION_FOLDER / name, found)
        yield case_list(found)


def dice_charts(points: list[DicePoint]) -> Iterator[Html]:
    """Dice of each class by step, a chart a dataset."""
    charts = []
    for place, dataset in enumerate(dict.fromkeys(point.dataset for point in points)):
        own = [point for point in points if point.dataset == dataset]
        names = list(dict.fromkeys(point.name for point in own))
        lines = []
        for colour, name in enumerate(names):
            values = [(point.step, point.dice) for point in own if point.name == name and point.dice is not None]
            steps, dice = zip(*values, strict=True) if values else ((), ())
            lines.append(Line(steps=np.array(steps), values=np.array(dice), colour=colour, is_smoothed=False))
        latest = {name: number(next((p.dice for p in reversed(own) if p.name == name), None)) for name in names}
        caption = Html(f"<b>{text(f'Dice of patches while it trained, {dataset}')}</b>, latest: {legend(latest)}")
        charts.append(figure([draw_chart(f"dice {place}", lines, lowest=0, highest=1)], caption))
    if charts:
        yield grid(charts)


def score_table(scores: Scores, summary: Mapping[str, ClassSummary]) -> Html:
    """Means by class over held-out cases, and how many these are."""
    rows = [[name, *class_means(scores, row), *ledger(row)] for name, row in summary.items()]
    return table(
        ["class", *titles(scores), *LEDGER],
        [*rows, ["mean", *means(scores, summary), str(len(scores.cases)), "", "", ""]],
    )


def samples_of(folder: Path, scores: Scores) -> Iterator[Html]:
    """Pictures of the worst, the median and the best case."""
    samples = {word: (score, overlay_paths(folder, score.case)) for word, score in choose_samples(scores).items()}
    if any(paths for _, paths in samples.values()):
        yield paragraph("Reference dashed, prediction solid, in the slices that have most of the reference.", "pale")
    for word, (score, paths) in samples.items():
        if paths:
            alt = f"{score.case} with outlines of reference and prediction"
            dice = legend({name: number(value.dice) for name, value in score.classes.items()})
            caption = Html(f"<b>{text(f'{word.capitalize()}: {score.case}')}</b>, Dice {dice}")
            yield figure([inline_image(path.read_bytes(), alt) for path in paths], caption, is_low=True)


def case_list(scores: Scores) -> Html:
    """Every case with the Dice of each class, the worst first."""
    ranked = rank_cases(scores)
    names = scores.classes
    rows = [
        [score.case, number(case_dice(score)), *(number(score.classes[name].dice) for name in names)]
        for score in ranked[:MAX_CASES]
    ]
    summary = f"{len(ranked)} cases, the worst first"
    summary += f" (the first {MAX_CASES})" if len(ranked) > MAX_CASES else ""
    return details(summary, table(["case", "mean Dice", *names], rows))
