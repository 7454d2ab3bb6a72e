"""report.html: scores as a page that people read, with pictures of the worst cases."""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from ..formats import IMAGE_ENDINGS, LABEL_ENDINGS, strip_ending
from ..labels import LabelSet
from ..page import COLOURS, Html, heading, page, paragraph, text
from ..parallel import map_cases
from ..scores import Scores
from ..workers import THIS_PROCESS, Workers
from .pairs import Pair
from .report_cases import CaseFiles, Drawing, draw_case, memory_to_draw, show_case
from .report_charts import MAX_DOTS, distribution
from .report_tables import definitions_of, ledger_of, summary_of
from .report_values import (
    MetricColumn,
    case_mean,
    choose_cases,
    classes_of,
    columns_of,
    ranking_columns,
    value_of,
    worst_first,
)

REPORT_HTML = "report.html"
MAX_PICTURED = 40
"""Cases that are drawn."""
MAX_LISTED = 500
"""Cases that have a place on the page, and can be sorted."""
PICTURE_BYTES = 15_000_000
"""Of all slices on the page, as they are written there; a page must pass through mail."""
MAX_CASE_BYTES = 500_000

log = logging.getLogger("spadunet")


def write_report(
    path: Path,
    scores: Scores,
    labels: LabelSet,
    pairs: Sequence[Pair],
    *,
    predictions: Path,
    references: Path,
    name: str = "",
    images: Mapping[str, Path] | None = None,
    workers: Workers = THIS_PROCESS,
) -> Path:
    """Write a page that needs no other file; what cannot be drawn is said on it and logged. Returns its path.

    Args:
        pairs: files that were scored.
        predictions: folder that the page calls theirs.
        references: the same of the references.
        name: in the title; else that of the predictions' folder.
        images: by case name, what the outlines are drawn on; a dark ground where there is none.
        workers: who draws; one case a process is in memory.

    Raises:
        OutputError: if the page cannot be written.
    """
    columns = columns_of(scores)
    pictured = choose_cases(scores, MAX_PICTURED)
    drawings, problems = draw_cases(pictured, scores, labels, pairs, images, workers)
    listed = list(dict.fromkeys([*pictured, *worst_first(scores, ranking_columns(scores)[0])]))[:MAX_LISTED]
    parts = [
        *summary_of(scores, columns),
        *distributions_of(scores, columns, listed),
        *cases_of(scores, columns, listed, drawings, problems),
        *ledger_of(scores),
        *definitions_of(scores, labels, predictions, references, images),
        script_of(scores, listed),
    ]
    write_text(path, page(f"Evaluation of {name or predictions.resolve().name}", parts))
    return path


def find_report_images(folder: Path, pairs: Iterable[Pair]) -> dict[str, Path]:
    """The image of each case in a folder, by its name or that of its first channel: case.nii.gz or case_0000.nii.gz.

    A case is found by the name of its reference's file, too. Cases without an image are logged.

    Raises:
        InputError: if there is no such folder, or no image of any case.
    """
    if not folder.is_dir():
        raise InputError(f"--images {folder}: folder not found")
    known = {name: pair.name for pair in pairs for name in (pair.name, strip_ending(pair.reference, LABEL_ENDINGS))}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = strip_ending(path, (*IMAGE_ENDINGS, ".zip"))
        if path.name.startswith(".") or (stem == path.name and not path.is_dir()):
            continue
        for name in (stem, re.sub(r"_\d{4}$", "", stem)):
            if name in known:
                found.setdefault(known[name], path)
    if not found:
        example = min(known, default="case")
        raise InputError(f"--images {folder}: holds no image of any case; expected names such as {example}_0000.nii.gz")
    num_without = len(set(known.values()) - set(found))
    if num_without:
        log.warning("%s: no image of %d cases; they are drawn without", folder, num_without)
    return found


def draw_cases(
    numbers: Sequence[int],
    scores: Scores,
    labels: LabelSet,
    pairs: Sequence[Pair],
    images: Mapping[str, Path] | None,
    workers: Workers,
) -> tuple[dict[int, Drawing], dict[int, str]]:
    """Drawings of these cases by their numbers, and why others could not be drawn."""
    number_of = {scores.cases[number].case: number for number in numbers}
    files = [
        CaseFiles(
            name=pair.name,
            reference=pair.reference.absolute(),
            prediction=pair.prediction and pair.prediction.absolute(),
            image=(images or {}).get(pair.name),
            annotated=pair.annotated,
        )
        for pair in pairs
        if pair.name in number_of
    ]
    max_bytes = min(MAX_CASE_BYTES, PICTURE_BYTES // max(1, len(files)))
    draw = functools.partial(draw_case, labels=labels, max_bytes=max_bytes)
    drawings, problems = {}, {}
    for outcome in map_cases(draw, files, title="Drawing", workers=workers, memory_of=memory_to_draw):
        number = number_of[outcome.item.name]
        if outcome.result is not None:
            drawings[number] = outcome.result
        problem = outcome.problem or (outcome.result and outcome.result.problem)
        if problem:
            log.warning("%s", problem)
        if outcome.problem:
            problems[number] = f"cannot be drawn: {outcome.problem}"
    return drawings, problems


def distributions_of(scores: Scores, columns: Sequence[MetricColumn], listed: Sequence[int]) -> Iterator[Html]:
    """Each metric's values by class, the first metric at once and the others when asked for."""
    yield heading("Distributions")
    words = "A dot is a case: its name is told when it is pointed at, and it leads to the case. Hollow: the class is "
    words += "missed or a false alarm; where it then has no value, as no distance, it has no dot and is in no box, and "
    words += "the row says how many there are. Box: quartiles and median; line: smallest to largest."
    if len(scores.cases) > MAX_DOTS:
        words += f" Of {len(scores.cases):,} cases, the boxes show all and the dots {MAX_DOTS} of the worst."
    yield paragraph(words, "pale")
    for place, column in enumerate(columns):
        chart = distribution(scores, column, listed)
        if chart:
            opened = " open" if place == 0 else ""
            told = '<p class="pale" aria-live="polite">&nbsp;</p>'
            yield Html(f"<details{opened}><summary>{text(column.title)}</summary>{chart}{told}</details>")


def cases_of(
    scores: Scores,
    columns: Sequence[MetricColumn],
    listed: Sequence[int],
    drawings: Mapping[int, Drawing],
    problems: Mapping[int, str],
) -> Iterator[Html]:
    """Every case that has a place, to be sorted and opened."""
    yield heading("Cases, the worst first")
    metrics = ranking_columns(scores)
    yield Html(
        '<div class="tools">'
        f"{choice('by-metric', 'Sort by', [column.title for column in metrics])}"
        f"{choice('by-class', 'of', ['all classes (mean)', *classes_of(scores)])}</div>"
    )
    if metrics[0] not in columns:
        yield paragraph("No metric here tells the worse of two cases: they are sorted by Dice of the counts.", "pale")
    words = (
        "Opened at the slices with the largest error. Slider: arrow keys or drag. A click in a view moves the others "
    )
    words += "to that place. Slices are numbered as in the file, from 1. R L A P S I: the patient's right, left, front "
    words += "(anterior), back, head (superior) and feet (inferior)."
    yield paragraph(words, "pale")
    if len(drawings) < len(scores.cases):
        words = f"{len(drawings)} of {len(scores.cases):,} cases are drawn: the worst over all, and of each class and "
        words += "metric."
        if len(listed) < len(scores.cases):
            words += f" {len(listed)} are listed; scores.csv has all."
        yield paragraph(words, "pale")
    cards = (
        show_case(number, scores.cases[number], columns, drawings.get(number), problems.get(number, ""))
        for number in listed
    )
    yield Html(
        f'<div id="cases">{"".join(cards)}</div><noscript>{text("Pictures and sorting need JavaScript.")}</noscript>'
    )


def choice(key: str, words: str, entries: Sequence[str]) -> Html:
    """One of several, by number."""
    options = "".join(f'<option value="{number}">{text(entry)}</option>' for number, entry in enumerate(entries))
    return Html(f'<label>{text(words)} <select id="{key}">{options}</select></label>')


def script_of(scores: Scores, listed: Sequence[int]) -> Html:
    """What makes the page live, and the orders of the cases by metric and class."""
    metrics = ranking_columns(scores)
    names = classes_of(scores)
    place_of = {number: place for place, number in enumerate(listed)}

    def values(column: MetricColumn, name: str | None) -> list[float | None]:
        found = [
            case_mean(scores.cases[number], column.name)
            if name is None
            else value_of(scores.cases[number].classes[name], column.name)
            for number in listed
        ]
        return [None if value is None else round(value, column.places) for value in found]

    data = {
        "cases": list(listed),
        "metrics": [{"title": column.title, "places": column.places} for column in metrics],
        "values": [[values(column, name) for name in (None, *names)] for column in metrics],
        "orders": [
            [[place_of[it] for it in worst_first(scores, column, name) if it in place_of] for name in (None, *names)]
            for column in metrics
        ],
    }
    source = resources.files(__package__).joinpath("report.js").read_text(encoding="utf-8")
    blobs = {"colours": COLOURS, "scores": data}
    inner = "".join(
        f'<script type="application/json" id="{name}">{json.dumps(blob, separators=(",", ":"))}</script>'
        for name, blob in blobs.items()
    )
    return Html(f"{inner}<script>\n{source}</script>")
