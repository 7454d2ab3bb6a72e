"""epochs.csv: how well a classification did on held-out studies, after each epoch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..files import write_text
from .curves import read_rows

EPOCHS_CSV = "epochs.csv"
COLUMNS = ("step", "epoch", "loss", "auc", "accuracy")


@dataclass(frozen=True, kw_only=True)
class EpochPoint:
    """What validation said after so many steps."""

    step: int
    epoch: float
    """Epochs that are done; a run that ends by the clock may end within one."""
    loss: float | None
    auc: float | None
    """None where it is not defined."""
    accuracy: float | None


def read_epochs(folder: Path) -> list[EpochPoint]:
    """What epochs.csv of a run's folder says; nothing where there is none.

    Raises:
        ValueError, KeyError: if it is damaged.
    """

    def value(text: str) -> float | None:
        return float(text) if text else None

    return [
        EpochPoint(
            step=int(row["step"]),
            epoch=float(row["epoch"]),
            loss=value(row["loss"]),
            auc=value(row["auc"]),
            accuracy=value(row["accuracy"]),
        )
        for row in read_rows(folder / EPOCHS_CSV)
    ]


def write_epochs(folder: Path, points: Iterable[EpochPoint]) -> None:
    """Write epochs.csv anew; a cell is empty where a value is not defined."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        values = ("" if value is None else f"{value:.6g}" for value in (point.loss, point.auc, point.accuracy))
        writer.writerow((point.step, f"{point.epoch:.6g}", *values))
    write_text(folder / EPOCHS_CSV, text.getvalue())
