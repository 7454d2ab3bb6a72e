"""One self-contained page of the demo: scores and pictures of every test case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.tables import LEDGER, class_means, ledger, titles
from ..files import write_text
from ..inference.overlays import draw_case
from ..labels import LabelSet
from ..overlay import quartile_planes
from ..page import Html, figure, heading, inline_image, legend, number, page, paragraph, table, text
from ..scores import CaseScore, Scores


@dataclass(frozen=True, kw_only=True)
class Section:
    """The test cases of one dataset."""

    title: str
    image_folder: Path
    reference_folder: Path
    prediction_folder: Path
    labels: LabelSet
    scores: Scores


def write_page(path: Path, sections: list[Section], *, about: str) -> None:
    """Write an HTML page that needs no other file."""
    parts = [paragraph(about), paragraph("Outlines: reference dashed, prediction solid.", "pale")]
    for section in sections:
        parts += [heading(section.title), table_of(section.scores), *figures_of(section)]
    write_text(path, page("spadunet demo", parts))


def table_of(scores: Scores) -> Html:
    """Means by class, and how many cases they count."""
    rows = [[name, *class_means(scores, row), *ledger(row)] for name, row in scores.summary().items()]
    return table(["class", *titles(scores), *LEDGER], rows)


def figures_of(section: Section) -> Iterator[Html]:
    """Three slices of each case with the outlines of reference and prediction."""
    for score in section.scores.cases:
        pictures = draw_case(
            image_of(section, score),
            section.reference_folder / f"{score.case}.nii.gz",
            section.prediction_folder / f"{score.case}.nii.gz",
            section.labels,
            quartile_planes,
        )
        alt = f"{score.case} with outlines of reference and prediction"
        dice = legend({name: number(value.dice) for name, value in score.classes.items()})
        caption = Html(f"<b>{text(score.case)}</b> Dice {dice}")
        yield figure([inline_image(picture, alt) for picture in pictures], caption, is_low=True)


def image_of(section: Section, score: CaseScore) -> Path:
    """The file of a case's first channel."""
    return sorted(section.image_folder.glob(f"{score.case}_0000.nii*"))[0]
