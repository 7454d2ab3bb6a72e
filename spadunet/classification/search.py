"""The search for a learning rate: a run for each, and the one with the best validation AUC wins."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..files import write_text
from ..model import BACKBONE_FILE, MODEL_JSON, STATE_FOLDER, load_model, read_model_record, save_model
from ..training.board import VALIDATION_FOLDER
from ..training.curves import CSV_FILE, PNG_FILE
from ..training.epochs import EPOCHS_CSV
from ..training.init import INIT_COVERAGE_JSON
from ..training.report import REPORT_HTML
from ..training.runs import SEARCH_FOLDER
from ..training.state import checkpoint_path
from ..training.status import STATUS_JSON
from .result import BEST_AUC, BEST_EPOCH, BEST_LOSS

RATES = (5e-8, 1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 5e-5, 1e-4, 5e-4)
"""Luo et al. 2024, Table 6."""
SEARCH_CSV = "search.csv"
SHOWN = (CSV_FILE, PNG_FILE, EPOCHS_CSV, REPORT_HTML, INIT_COVERAGE_JSON, f"{STATE_FOLDER}/{STATUS_JSON}")
"""Of the best run, what the folder of the search has too."""
TASKS_FOLDER = "tasks"
COLUMNS = ("learning_rate", "auc", "loss", "best_epoch", "remark")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How one learning rate did."""

    rate: float
    folder: Path
    auc: float | None = None
    """None where it is not defined."""
    loss: float | None = None
    """None of a run that diverged."""
    best_epoch: str = ""

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The larger the better: by AUC, of equal ones by loss."""
        if self.loss is None:
            return False, 0.0, 0.0
        return True, -1.0 if self.auc is None else self.auc, -self.loss


def folder_of_rate(folder: Path, rate: float) -> Path:
    """Where the run of one rate goes."""
    return folder / SEARCH_FOLDER / f"rate_{rate:g}"


def read_trial(rate: float, folder: Path) -> Trial:
    """What a finished run tells.

    Raises:
        InputError: if its model is damaged.
    """
    told = read_model_record(folder).provenance
    auc = told[BEST_AUC]
    return Trial(
        rate=rate,
        folder=folder,
        auc=None if auc == "undefined" else float(auc),
        loss=float(told[BEST_LOSS]),
        best_epoch=told[BEST_EPOCH],
    )


def choose_trial(trials: Sequence[Trial]) -> Trial:
    """The best; of equal ones the first.

    Raises:
        InputError: if all have diverged.
    """
    best = max(trials, key=lambda trial: trial.rank)
    if best.loss is None:
        raise InputError("--learning-rate search: every rate diverged; look at the images, or give a lower rate")
    return best


def write_trials(folder: Path, trials: Sequence[Trial]) -> None:
    """Write search.csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows_of(trials):
        writer.writerow(row)
    write_text(folder / SEARCH_CSV, text.getvalue())


def rows_of(trials: Sequence[Trial]) -> list[list[str]]:
    """A row a trial; the best is said to be it."""
    best = max(trials, key=lambda trial: trial.rank)
    return [
        [
            f"{trial.rate:g}",
            "" if trial.auc is None else f"{trial.auc:.4f}",
            "" if trial.loss is None else f"{trial.loss:.4f}",
            trial.best_epoch,
            "diverged" if trial.loss is None else "best" if trial is best else "",
        ]
        for trial in trials
    ]


def keep_best(folder: Path, best: Trial, trials: Sequence[Trial], name: str) -> None:
    """Make the best run's model, validation, curves and page those of the search."""
    model = load_model(best.folder)
    rates = " ".join(f"{trial.rate:g}" for trial in trials)
    save_model(folder, replace(model, provenance=model.provenance | {"searched_rates": rates}))
    shutil.copytree(best.folder / VALIDATION_FOLDER / name, folder / VALIDATION_FOLDER / name, dirs_exist_ok=True)
    for file in SHOWN:
        if (best.folder / file).is_file():
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copy2(best.folder / file, folder / file)


def drop_models(trials: Sequence[Trial]) -> None:
    """Delete what each run has of a whole network, once the best is kept; curves, pages and scores stay."""
    for trial in trials:
        for file in (MODEL_JSON, BACKBONE_FILE, checkpoint_path(trial.folder)):
            (trial.folder / file).unlink(missing_ok=True)
        shutil.rmtree(trial.folder / TASKS_FOLDER, ignore_errors=True)


def drop_search(folder: Path) -> None:
    """Throw away what an earlier search left."""
    shutil.rmtree(folder / SEARCH_FOLDER, ignore_errors=True)
    (folder / SEARCH_CSV).unlink(missing_ok=True)


def require_same(folder: Path, told: Mapping[str, str], request: Mapping[str, str]) -> None:
    """Refuse to take a finished run of another request for that of this search.

    Args:
        told: by its model.

    Raises:
        InputError: names what differs.
    """
    for name, value in request.items():
        if told.get(name, value) != value:
            raise InputError(
                f"{folder}: an earlier run had {name} {told[name]}, not {value}; give the same options to go on, "
                "--restart to start anew, or another folder with -o"
            )
