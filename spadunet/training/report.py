"""report.html: one page that shows a run, made from what lies in its folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import write_text
from ..page import Html, figure, grid, heading, inline_image, legend, number, page, paragraph, text, tiles
from .board import read_class_scores, read_final_scores
from .charts import Line, draw_chart, running_mean
from .curves import CSV_FILE, read_rows
from .report_classes import classes_of
from .report_description import description_of
from .report_validation import validation_of
from .status import RunStatus, read_status

REPORT_HTML = "report.html"
REFRESH_SECONDS = 60
TITLES = {
    "train": "Training",
    "classification": "Training of a classification",
    "tokenizer": "Pre-training of a tokenizer",
    "mim": "Masked image modelling",
}
FACTS = ("step", "minutes", "task", "da", "epoch")
PACE = {
    "learning_rate": "Learning rate",
    "samples_per_second": "Throughput (samples per second)",
    "waiting_share": "Data-loading stall (share of a step spent waiting for its batch)",
}
"""Columns of the curves that are no measure of what was learned."""
SHEETS = {
    "guesses.png": "Held-out images: masked, and as guessed",
    "reconstructions.png": "Held-out images and their reconstructions",
    "codebook.png": "Use of the codebook",
    "probe.png": "Linear probe of the features",
    "crops.png": "Crops of each degree of anisotropy, as the network sees them",
}
"""Pictures that pre-training leaves in its folder."""
MAX_SHEET_BYTES = 2_000_000

SCRIPT = Html("""<script>
const news = document.getElementById("news"), minutes = (Date.now() / 1000 - news.dataset.time) / 60;
if (minutes > 3 * news.dataset.every + 5) {
  news.className = "bad";
  news.textContent = "No news for " + Math.round(minutes) + " minutes: the run was probably killed. " +
    "spadunet_runs tells; the same command goes on from its last checkpoint.";
}
</script>""")

log = logging.getLogger("spadunet")


def write_report(folder: Path) -> Path:
    """Write the page of a run; what of it cannot be shown is said on the page and logged.

    Raises:
        InputError: if the folder has no status of a run, or a damaged one.
        OutputError: if the page cannot be written.
    """
    status = read_status(folder)
    if status is None:
        raise InputError(f"{folder}: no state/run.json, so no run that a page could show")
    rows = read_rows(folder / CSV_FILE)
    sections: list[tuple[str, Callable[[], Iterator[Html]]]] = [
        ("summary", lambda: summary_of(folder, status, rows)),
        ("validation", lambda: validation_of(folder, status)),
        ("classes", lambda: classes_of(folder, status)),
        ("curves", lambda: curves_of(folder, status, rows)),
        ("pictures", lambda: sheets_of(folder)),
        ("description", lambda: description_of(folder, status)),
    ]
    parts: list[Html] = []
    for name, make in sections:
        try:
            parts += list(make())
        except Exception as error:  # a run is worth more than its page
            log.warning("%s: no %s on the page (%s: %s)", folder, name, type(error).__name__, error)
            parts.append(paragraph(f"The {name} cannot be shown: {error}", "bad"))
    refresh = REFRESH_SECONDS if status.state == "running" else None
    path = folder / REPORT_HTML
    write_text(path, page(title_of(status), parts, refresh_seconds=refresh))
    return path


def title_of(status: RunStatus) -> str:
    """What is trained on what."""
    plans = [*status.plans, *([status.classification] if status.classification else [])]
    names = ", ".join(plan.dataset_name for plan in plans) or status.request.get("corpus", "")
    fold = status.request.get("fold")
    return f"{TITLES[status.kind]}: {names}{f', fold {fold}' if fold is not None else ''}"


def summary_of(folder: Path, status: RunStatus, rows: list[dict[str, str]]) -> Iterator[Html]:
    """How the run stands, in a line and a few numbers."""
    kind = {"finished": "good", "failed": "bad"}.get(status.state, "")
    yield paragraph(f"{status.state.capitalize()}", f"state {kind}")
    for line in status.reason.splitlines():
        yield paragraph(line, "bad")
    if status.state == "running":
        every, updated = status.checkpoint_minutes, status.updated.timestamp()
        words = (
            f"As of {status.updated:%Y-%m-%d %H:%M} UTC; written anew with each checkpoint, every {every:g} minutes."
        )
        yield Html(
            f'<p id="news" class="pale" data-time="{updated:.0f}" data-every="{every}">{text(words)}</p>{SCRIPT}'
        )
    elif status.state != "finished":
        yield paragraph("The same command goes on from its last checkpoint.", "pale")
    values = {"steps": steps_text(status, rows), "minutes of training": minutes_text(status, rows)}
    values |= latest_of(rows)
    scores = read_final_scores(folder, since=status.started.timestamp())
    for name, found in scores.items():
        values[f"mean validation Dice{f', {name}' if len(scores) > 1 else ''}"] = number(found.mean("dice"), 4)
    for name, of_classes in read_class_scores(folder, since=status.started.timestamp()).items():
        values[f"validation AUC, {name}"] = number(of_classes.auc, 4)
        values[f"validation ACC, {name}"] = number(of_classes.accuracy, 4)
    for name, words, scale, unit in (
        ("samples_per_second", "samples per second", 1, ""),
        ("waiting_share", "waiting for data", 100, " %"),
    ):
        pace = column(rows, name)[1]
        if len(pace):
            values[words] = f"{scale * pace.mean():.3g}{unit}"
    yield tiles(values)


def steps_text(status: RunStatus, rows: list[dict[str, str]]) -> str:
    """Steps that are done, of how many."""
    done = int(rows[-1]["step"]) + 1 if rows else 0
    asked = status.request.get("max_steps", "None")
    return f"{done:,}" + (f" of {int(asked):,}" if asked.isdigit() else "")


def minutes_text(status: RunStatus, rows: list[dict[str, str]]) -> str:
    """Minutes that are done, of how many."""
    asked = status.request.get("max_minutes", "None")
    done = float(rows[-1]["minutes"]) if rows else 0.0
    return f"{done:.1f}" + (f" of {float(asked):g}" if asked != "None" else "")


def latest_of(rows: list[dict[str, str]]) -> dict[str, str]:
    """Each measure, and of joint training each dataset's: the mean of its last values."""
    tasks = sorted({row["task"] for row in rows if row.get("task")})
    found = {}
    for name in measures_of(rows):
        for task in tasks if len(tasks) > 1 else [""]:
            value = running_mean(column(rows, name, task)[1])
            if value is not None:
                found[f"{name.replace('_', ' ')}, latest{task and f', {task}'}"] = f"{value:.4g}"
    return found


def measures_of(rows: list[dict[str, str]]) -> list[str]:
    """Columns that tell what was learned."""
    return [name for name in rows[0] if name not in FACTS and name not in PACE] if rows else []


def column(rows: list[dict[str, str]], name: str, task: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a column, where it has one; of one task where it is named."""
    found = [(int(row["step"]), float(row[name])) for row in rows if row.get(name) and task in ("", row.get("task"))]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.array(steps, int), np.array(values, float)


def curves_of(folder: Path, status: RunStatus, rows: list[dict[str, str]]) -> Iterator[Html]:
    """What was learned, and how fast, by step."""
    if not rows:
        return
    yield heading("Curves")
    yield paragraph("Pale: single steps. Strong: their running mean.", "pale")
    tasks = [plan.dataset_name for plan in status.plans]
    tasks += sorted({row["task"] for row in rows if row.get("task")} - set(tasks))
    charts = []
    for name in measures_of(rows):
        lines = []
        for colour, task in enumerate(tasks or [""]):
            steps, values = column(rows, name, task)
            lines.append(Line(steps=steps, values=values, colour=colour))
        caption = Html(f"<b>{text(name.replace('_', ' ').capitalize())}</b> {legend(tasks) if len(tasks) > 1 else ''}")
        charts.append(figure([draw_chart(name, lines)], caption))
    for name, words in PACE.items():
        steps, values = column(rows, name)
        if len(values):
            line = Line(steps=steps, values=values, colour=7, is_smoothed=name != "learning_rate")
            limits = {"lowest": 0.0, "highest": 1.0} if name == "waiting_share" else {"lowest": 0.0}
            charts.append(figure([draw_chart(name, [line], **limits)], Html(f"<b>{text(words)}</b>")))
    yield grid(charts)


def sheets_of(folder: Path) -> Iterator[Html]:
    """Pictures that pre-training has drawn."""
    for name, words in SHEETS.items():
        path = folder / name
        if path.is_file() and path.stat().st_size <= MAX_SHEET_BYTES:
            yield heading(words)
            yield figure([inline_image(path.read_bytes(), words)], Html(""))
