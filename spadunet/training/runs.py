"""Finding the runs below a folder, and how each of them stands. Loads no torch."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from ..errors import InputError
from ..files import PARTIAL_PREFIX
from ..model import MODEL_JSON, STATE_FOLDER, TOKENIZER_JSON, read_model_record
from ..record import Record
from ..scores import mean_of
from .board import VALIDATION_FOLDER, read_class_scores, read_final_scores
from .curves import CSV_FILE, TENSORBOARD_FOLDER
from .state import CHECKPOINT_FILE, Progress, checkpoint_path, read_progress
from .status import STATUS_JSON, RunKind, RunState, RunStatus, is_alive, is_held, last_news, read_status

MANIFESTS: dict[str, RunKind] = {
    "spadunet_train.json": "train",
    "spadunet_pretrain_tokenizer.json": "tokenizer",
    "spadunet_pretrain_mim.json": "mim",
}
"""Written last by each command: without its status, a run that has one is finished."""
SIGNS = (
    f"{STATE_FOLDER}/{STATUS_JSON}",
    f"{STATE_FOLDER}/{CHECKPOINT_FILE}",
    MODEL_JSON,
    TOKENIZER_JSON,
    CSV_FILE,
    *MANIFESTS,
)
"""A folder with one of these is a run's."""
SEARCH_FOLDER = "search"
"""Within the folder of a search for a learning rate: a run for each rate, which is not listed by itself."""
OWN_FOLDERS = {STATE_FOLDER, TENSORBOARD_FOLDER, VALIDATION_FOLDER, "tasks", SEARCH_FOLDER}
"""Within a run's folder, where there are no other runs."""
TAIL_BYTES = 4096


class RunSummary(Record):
    """How a run stands; None where that is not known."""

    folder: Path
    state: RunState | Literal["broken"]
    reason: str = ""
    """Why it is broken or failed, or what could not be done."""
    kind: RunKind | None = None
    datasets: tuple[str, ...] = ()
    """Or the corpus."""
    backbone: str | None = None
    preset: str | None = None
    fold: str | None = None
    steps: int | None = None
    max_steps: int | None = None
    minutes: float | None = None
    max_minutes: float | None = None
    dice: float | None = None
    """Mean over datasets of the mean validation Dice over classes, at the end."""
    auc: float | None = None
    """Of a classification, on its validation studies, at the end."""
    accuracy: float | None = None
    changed: datetime


def find_runs(folder: Path) -> list[RunSummary]:
    """All runs in a folder and below, the one changed last at the end; what is damaged is told, not raised."""
    return sorted(map(summarise, run_folders(folder)), key=lambda run: (run.changed, run.folder))


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders of runs, and those that cannot be looked into; each once, by its own name rather than by a link's."""
    if not folder.exists():
        return
    unreadable: list[OSError] = []
    waiting, seen = [folder], set[str]()
    for start in waiting:  # links are added, and followed when all folders before them are seen
        for name, below, _ in os.walk(start, onerror=unreadable.append):
            here, real = Path(name), os.path.realpath(name)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            is_run = any(os.path.lexists(here / sign) for sign in SIGNS) or is_search(here)
            below[:] = sorted(
                inner
                for inner in below
                if not (is_run and inner in OWN_FOLDERS) and not inner.startswith(PARTIAL_PREFIX)
            )
            waiting += [here / inner for inner in below if (here / inner).is_symlink()]
            if is_run:
                yield here
    yield from (Path(error.filename) for error in unreadable)


def is_search(folder: Path) -> bool:
    """Whether a folder is that of a search for a learning rate, finished or not."""
    return next((folder / SEARCH_FOLDER).glob("rate_*"), None) is not None


def summarise(folder: Path) -> RunSummary:
    """How the run in a folder stands."""
    try:
        os.listdir(folder)
        for path in (folder / sign for sign in SIGNS):
            if path.is_symlink() and not path.exists():
                raise InputError(f"{path}: is a link that leads nowhere")
        return summarise_sound(folder)
    except Exception as error:  # whatever a damaged file makes of itself: the other runs are listed all the same
        words = " ".join(str(error).split()) or type(error).__name__
        reason = words if isinstance(error, InputError | OSError) else f"{folder}: {words}"
        return RunSummary(folder=folder, state="broken", reason=reason, changed=change_of(folder))


def summarise_sound(folder: Path) -> RunSummary:
    """As `summarise`.

    Raises:
        Exception: of many kinds, if a file is damaged.
    """
    if is_search(folder) and not (folder / MODEL_JSON).is_file():
        return summarise_search(folder)
    status = read_status(folder)
    progress = read_progress(checkpoint_path(folder)) if checkpoint_path(folder).is_file() else None
    result = read_result(folder)
    asked = status.request if status else progress.run if progress else result
    state, reason = state_of(folder, status, progress, has_result=bool(result))
    steps, minutes = last_step(folder / CSV_FILE)
    if progress is not None and state != "running":  # steps after the last checkpoint are lost
        steps, minutes = progress.step, progress.seconds / 60
    kind = status.kind if status else kind_of(folder, asked)
    since = status.started.timestamp() if status else 0.0
    scores = read_final_scores(folder, since=since) if state == "finished" else {}
    of_classes = [*read_class_scores(folder, since=since).values()] if state == "finished" else []
    return RunSummary(
        folder=folder,
        state=state,
        reason=reason,
        kind=kind,
        datasets=datasets_of(status, asked),
        backbone="tokenizer" if kind == "tokenizer" else asked.get("backbone") or asked.get("kind"),
        preset=asked.get("preset"),
        fold=asked.get("fold"),
        steps=int(asked["steps"]) if steps is None and "steps" in asked else steps,
        max_steps=int(number) if (number := asked.get("max_steps", "None")) != "None" else None,
        minutes=None if minutes is None else round(minutes, 2),
        max_minutes=float(number) if (number := asked.get("max_minutes", "None")) != "None" else None,
        dice=mean_of([found.mean("dice") for found in scores.values()]),
        auc=mean_of([found.auc for found in of_classes]),
        accuracy=mean_of([found.accuracy for found in of_classes]),
        changed=change_of(folder),
    )


def summarise_search(folder: Path) -> RunSummary:
    """Of an unfinished search for a learning rate: how the run of the rate that it is at stands."""
    rates = sorted((folder / SEARCH_FOLDER).glob("rate_*"), key=lambda it: (last_news(it), it))
    now = summarise(rates[-1])
    state = "running" if is_held(folder) else "interrupted" if now.state == "finished" else now.state
    place = f"search of the learning rate: at the {len(rates)}. rate, {rates[-1].name.removeprefix('rate_')}"
    reason = "\n".join(filter(None, (place, now.reason)))
    return now.model_copy(update={"folder": folder, "state": state, "reason": reason, "auc": None, "accuracy": None})


def state_of(
    folder: Path, status: RunStatus | None, progress: Progress | None, *, has_result: bool
) -> tuple[RunState, str]:
    """How a run stands, and why. Of one that says it is running, its lock or its last news tell whether it is."""
    if status is not None and status.state != "running":
        return status.state, status.reason
    is_done = any((folder / name).is_file() for name in MANIFESTS) and (progress is None or progress.is_finished)
    if status is None and (is_done or (has_result and progress is None)):
        return "finished", ""
    if is_alive(folder, status):
        return "running", ""
    return "interrupted", "its process is gone without a word" if status else ""


def read_result(folder: Path) -> dict[str, str]:
    """What the result of a run says of where it comes from; empty where there is no result yet.

    Raises:
        InputError, ValueError, KeyError, TypeError: if it is damaged.
    """
    if (folder / MODEL_JSON).is_file():
        record = read_model_record(folder)
        return {"backbone": record.backbone, "preset": record.preset, **record.provenance}
    if (folder / TOKENIZER_JSON).is_file():
        content = json.loads((folder / TOKENIZER_JSON).read_text(encoding="utf-8"))
        return {"kind": "tokenizer", "preset": content["preset"], **content["provenance"]}
    return {}


def kind_of(folder: Path, asked: dict[str, str]) -> RunKind | None:
    """What kind of run was asked for, as told without its status."""
    for name, kind in MANIFESTS.items():
        if (folder / name).is_file():
            return kind
    if "datasets" in asked:
        return "train"
    if "corpus" in asked:
        return "tokenizer" if asked.get("kind") == "tokenizer" else "mim"
    return None


def datasets_of(status: RunStatus | None, asked: dict[str, str]) -> tuple[str, ...]:
    """Names of what a run learns from."""
    plans = () if status is None else (*status.plans, *([status.classification] if status.classification else []))
    if plans:
        return tuple(plan.dataset_name for plan in plans)
    return tuple(asked.get("datasets", "").split()) or tuple(filter(None, [asked.get("corpus")]))


def last_step(path: Path) -> tuple[int | None, float | None]:
    """Steps and minutes that the last whole row of the curves tells of; None of no row. Only its end is read."""
    if not path.is_file():
        return None, None
    with path.open("rb") as file:
        header = file.readline().decode(errors="replace")
        start = file.tell()
        file.seek(max(start, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")[:-1]  # the last may be half-written
    columns = next(csv.reader([header]), [])
    if not lines:
        return None, None
    row = dict(zip(columns, next(csv.reader([lines[-1]]), []), strict=False))
    return int(row["step"]) + 1, float(row["minutes"])


def change_of(folder: Path) -> datetime:
    """When a run last wrote something, in UTC; of a folder without any of its files, when that was changed."""
    times = [last_news(folder)]
    for name in (MODEL_JSON, TOKENIZER_JSON, *MANIFESTS):
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    if not max(times):
        with contextlib.suppress(OSError):
            times.append(folder.stat().st_mtime)
    return datetime.fromtimestamp(int(max(times)), timezone.utc)
