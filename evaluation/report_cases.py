"""A case on the report: drawn by a worker, then set as a part of the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..labels import LabelSet
from ..overlay import read_overlay
from ..page import COLOURS, Html, details, figure, heading, inline_image, paragraph, table, text
from ..scores import CaseScore
from ..sizes import count_values
from .error_maps import NO_OTHER, ErrorMaps, draw_error_maps, palette
from .report_values import MetricColumn, format_value, value_of
from .slices import Stack, crop, draw_stacks

BYTES_TO_DRAW = 6
"""Per voxel of image and label maps. Measured as in preprocessing/memory.py: 2 to 3; wider types take some more."""
VIEW_REM, MAP_REM = 20.0, 11.0
"""Heights of a view and of a map on a wide screen."""
MAX_ROWS = 10
"""Of values that are shown without being asked for."""


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """What is drawn of a case."""

    name: str
    reference: Path
    prediction: Path | None
    image: Path | None
    annotated: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """Those that are there."""
        return tuple(path for path in (self.reference, self.prediction, self.image) if path is not None)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A case as it goes onto the page."""

    stacks: list[Stack]
    maps: ErrorMaps
    spacing_mm: tuple[float, ...]
    problem: str = ""
    """Why there is no image."""


def memory_to_draw(case: CaseFiles) -> int:
    """Bytes that a case takes at its peak, from its headers."""
    return count_values(case.paths) * BYTES_TO_DRAW


def draw_case(case: CaseFiles, labels: LabelSet, max_bytes: int) -> Drawing:
    """Read and draw one case; without its image where that cannot be used.

    Args:
        max_bytes: of its slices on the page.

    Raises:
        InputError: if a label map cannot be read, or they do not lie on one grid.
    """
    problem, image = "", case.image
    try:
        overlay = read_overlay(image, case.reference, case.prediction, labels)
    except InputError as error:
        if image is None:
            raise
        problem, image = str(error), None
        overlay = read_overlay(None, case.reference, case.prediction, labels)
    full_shape = overlay.reference.shape
    cropped, begins = crop(overlay)
    spacing_mm = overlay.spacing_mm
    del overlay
    structures = [it for it in labels.structures if not case.annotated or it.name in case.annotated]
    numbers = {it.name: number for number, it in enumerate(labels.structures)}
    stacks = draw_stacks(
        cropped,
        begins,
        full_shape,
        {numbers[it.name]: it for it in structures},
        has_image=image is not None,
        max_bytes=max_bytes,
    )
    maps = draw_error_maps(cropped, structures, full_shape)
    return Drawing(stacks=stacks, maps=maps, spacing_mm=spacing_mm, problem=problem)


def show_case(
    number: int, score: CaseScore, columns: Sequence[MetricColumn], drawing: Drawing | None, problem: str = ""
) -> Html:
    """A case that opens when asked for: its scores, slices through it, and maps of its errors.

    Args:
        number: of the case among the scores; links lead to it.
        drawing: None where it is not drawn.
        problem: why it could not be drawn.
    """
    missed = [name for name, found in score.classes.items() if found.is_missed]
    wrong = [name for name, found in score.classes.items() if found.is_false_alarm]
    flags = [f"missed: {', '.join(missed)}"] if missed else []
    flags += [f"false alarm: {', '.join(wrong)}"] if wrong else []
    summary = f'<b>{text(score.case)}</b> <span class="value"></span>'
    summary += f' <span class="bad">{text("; ".join(flags))}</span>' if flags else ""
    parts: list[Html] = []
    for words in (problem, drawing.problem if drawing else ""):
        parts += [paragraph(words, "bad")] if words else []
    if drawing is None:
        parts += [] if problem else [paragraph("Not among the cases that are drawn on this page.", "pale")]
    rows = score_rows(score, columns)
    slices = [] if drawing is None else [show_slices(drawing, score)]
    parts += [
        *slices,
        rows if len(score.classes) <= MAX_ROWS else details(f"values of {len(score.classes)} classes", rows),
    ]
    parts += [] if drawing is None else [show_maps(drawing)]
    return Html(f'<details class="case" id="case-{number}"><summary>{summary}</summary>{"".join(parts)}</details>')


def score_rows(score: CaseScore, columns: Sequence[MetricColumn]) -> Html:
    """Every value of a case."""
    rows = []
    for name, found in score.classes.items():
        values = [format_value(value_of(found, column.name), column) for column in columns]
        counts = [
            "–" if count is None else f"{count:,}"
            for count in (found.num_reference_voxels, found.num_prediction_voxels)
        ]
        rows.append([name, *values, *counts])
    return table(["class", *(column.title for column in columns), "reference voxels", "predicted voxels"], rows)


def show_slices(drawing: Drawing, score: CaseScore) -> Html:
    """Three views with sliders, and what is to be seen in them."""
    views = []
    for axis, stack in enumerate(drawing.stacks):
        views.append(
            f'<div class="pane" data-axis="{axis}" {width_of(stack, VIEW_REM)}>'
            f"{show_view(stack, VIEW_REM, '<canvas></canvas><svg></svg>')}"
            f'<label>{text(stack.name)} <span class="pale"></span><input type="range" min="0" '
            f'max="{len(stack.numbers) - 1}" value="{stack.shown_first}" aria-label="{text(stack.name)}"></label></div>'
        )
    chips = ['<label class="chip"><input type="checkbox" data-line="prediction" checked> prediction (solid)</label>']
    chips += ['<label class="chip"><input type="checkbox" data-line="reference" checked> reference (dashed)</label>']
    for number, (name, found) in enumerate(score.classes.items()):
        if found.num_reference_voxels or found.num_prediction_voxels:
            colour = f'<i style="background:{COLOURS[number % len(COLOURS)]}"></i>'
            box = f'<input type="checkbox" data-class="{number}" checked>'
            chips.append(f'<label class="chip">{box} {colour}{text(name)}</label>')
    chips.insert(2, '<label class="chip"><input type="checkbox" data-all checked> all classes</label>')
    if drawing.stacks[0].strip:
        for words in ("brightness", "contrast"):
            slider = f'<input type="range" data-{words} min="-1" max="1" step="0.05" value="0">'
            chips.append(f'<label class="chip">{words} {slider}</label>')
    blob = json.dumps([stack_record(stack) for stack in drawing.stacks], separators=(",", ":"))
    data = f'<script type="application/json">{blob}</script>'
    return Html(f'<div class="slices"><div class="planes">{"".join(views)}</div><p>{" ".join(chips)}</p>{data}</div>')


def stack_record(stack: Stack) -> dict[str, object]:
    """What the page's script needs of a stack."""
    return {
        "shape": stack.shape_pixels,
        "axes": stack.axes,
        "strip": stack.strip,
        "numbers": stack.numbers,
        "of": stack.num_in_file,
        "places": stack.places,
        "reference": stack.references,
        "prediction": stack.predictions,
    }


def width_of(stack: Stack, height_rem: float) -> str:
    """As wide as a view of this height is, and at least so wide that its slider can be used."""
    height, width = stack.size_mm
    return f'style="flex:0 1 {min(max(height_rem * width / height, 9.0), 38.0):.1f}rem"'


def show_view(stack: Stack, height_rem: float, inner: str) -> Html:
    """A frame of a slice's true proportions, with the sides of the patient."""
    height, width = stack.size_mm
    sides = zip(("left", "right", "top", "bottom"), stack.sides or (), strict=False)
    letters = "".join(f'<i class="{place}">{text(side)}</i>' for place, side in sides)
    ratio = f"aspect-ratio:{width:.4g}/{height:.4g};max-width:{height_rem * width / height:.1f}rem"
    return Html(f'<div class="view" style="{ratio}">{inner}{letters}</div>')


def show_maps(drawing: Drawing) -> Html:
    """Maps of surface errors in three directions, of both borders, with a colour bar."""
    maps = drawing.maps
    if not (maps.largest_mm is not None or maps.has_no_other):
        return paragraph("Neither label map has a class here, so there is no surface to compare.", "pale")
    parts = [heading("Surface errors", 3)]
    if maps.largest_mm is not None:
        shades = ",".join(f"rgb({','.join(map(str, colour))})" for colour in palette(6))
        bar = f'<i style="background:linear-gradient(90deg,{shades})"></i>'
        parts.append(Html(f'<div class="bar">0 {bar} {maps.scale_mm:g} mm</div>'))
    for whose, words, pictures in (
        ("prediction", "Prediction's border, by distance to the reference's: bright is too much.", maps.predictions),
        ("reference", "Reference's border, by distance to the prediction's: bright was not found.", maps.references),
    ):
        frames = [show_map(stack, it, words) for stack, it in zip(drawing.stacks, pictures, strict=False)]
        parts.append(figure(frames, text(words if frames else f"The {whose} has nothing here."), is_low=True))
    notes = [] if maps.largest_mm is None else [f"Largest distance: {maps.largest_mm:.2f} mm."]
    notes.append("All classes together; of what lies behind each other, the largest distance is seen.")
    chip = ""
    if maps.has_no_other:
        colour = ",".join(map(str, NO_OTHER))
        chip = f' <span class="chip"><i style="background:rgb({colour})"></i>class missed or false alarm</span>'
    parts.append(Html(f'<p class="pale">{text(" ".join(notes))}{chip}</p>'))
    return Html("".join(parts))


def show_map(stack: Stack, picture: bytes, words: str) -> Html:
    """A map in the frame of its plane."""
    view = show_view(stack, MAP_REM, inline_image(picture, f"{stack.name}: {words}"))
    return Html(f'<div class="pane" {width_of(stack, MAP_REM)}>{view}</div>')
