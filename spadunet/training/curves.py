"""Curves of a run: CSV for tables, TensorBoard for looking closely, PNG for a glance."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ..files import atomic_path, write_text

FIELDS = ("step", "minutes", "task", "da", "loss", "learning_rate", "samples_per_second", "waiting_share")
CSV_FILE, PNG_FILE, TENSORBOARD_FOLDER = "curves.csv", "curves.png", "tensorboard"
SMOOTHING_STEPS = 50


class Curves:
    """Writes one row a step. Opening it at a step drops the rows of a run that went further before it was killed."""

    def __init__(self, folder: Path, start_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_rows(folder / CSV_FILE) if int(row["step"]) < start_step]
        kept = io.StringIO(newline="")
        writer = csv.DictWriter(kept, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / CSV_FILE, kept.getvalue())
        self.file = (folder / CSV_FILE).open("a", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, FIELDS, lineterminator="\n")
        self.board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=start_step)

    def add(self, **row: object) -> None:
        """One row, with the keys of FIELDS."""
        self.writer.writerow(row)
        self.file.flush()
        for name in ("loss", "learning_rate", "samples_per_second", "waiting_share"):
            tag = f"{name}/{row['task']}" if name == "loss" else name
            self.board.add_scalar(tag, row[name], row["step"])

    def close(self) -> None:
        """Flush everything and draw the picture."""
        self.file.close()
        self.board.close()
        self.draw()

    def draw(self) -> None:
        """Draw the picture as far as the run is."""
        draw(self.folder)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a curves file; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if all(row.get(field) for field in FIELDS)]


def draw(folder: Path) -> None:
    """Draw loss by task and learning rate against minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_rows(folder / CSV_FILE)
    if not rows:
        return
    figure, (top, bottom) = pyplot.subplots(2, sharex=True, figsize=(8, 6), height_ratios=(3, 1))
    for task in sorted({row["task"] for row in rows}):
        own = [row for row in rows if row["task"] == task]
        minutes = np.array([float(row["minutes"]) for row in own])
        loss = np.array([float(row["loss"]) for row in own])
        (line,) = top.plot(minutes, loss, alpha=0.25, linewidth=0.7)
        width = min(SMOOTHING_STEPS, len(loss))
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        top.plot(minutes[width - 1 :], smooth, color=line.get_color(), label=task)
    top.set_ylabel("loss")
    top.legend()
    bottom.plot([float(row["minutes"]) for row in rows], [float(row["learning_rate"]) for row in rows])
    bottom.set_ylabel("learning rate")
    bottom.set_xlabel("minutes")
    figure.tight_layout()
    with atomic_path(folder / PNG_FILE) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)
