"""Curves of a run: CSV for tables, TensorBoard for looking closely, PNG for a glance."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSV_FILE, PNG_FILE, TENSORBOARD_FOLDER = "curves.csv", "curves.png", "tensorboard"
SMOOTHING_STEPS = 50
MAX_POINTS = 2000
"""Of a line in the picture; more are as good as invisible."""

log = logging.getLogger("spadunet")


class Curves:
    """Writes one row a step. Opening it at a step drops the rows of a run that went further before it was killed.

    The columns are those of the first row.

    Args:
        by: the fact of a batch that splits a measure into several lines.
    """

    def __init__(self, folder: Path, start_step: int, *, by: str = ""):
        from torch.utils.tensorboard import SummaryWriter

        self.folder, self.by, self.start_step = folder, by, start_step
        folder.mkdir(parents=True, exist_ok=True)
        self.measures: tuple[str, ...] = ()
        self.file: io.TextIOBase | None = None
        self.board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=start_step)

    def add(
        self,
        step: int,
        minutes: float,
        facts: Mapping[str, object],
        measures: Mapping[str, float],
        pace: Mapping[str, float],
    ) -> None:
        """One row; always with the same keys.

        Args:
            facts: of the batch.
            measures: what was learned.
            pace: learning rate and speed.
        """
        row = {"step": step, "minutes": f"{minutes:.4f}", **facts}
        row |= {name: f"{value:.9g}" for name, value in measures.items()}
        row |= {name: f"{value:.6g}" for name, value in pace.items()}
        if self.file is None:
            self.measures = tuple(measures)
            self.file = self.open(tuple(row))
            self.writer = csv.DictWriter(self.file, tuple(row), lineterminator="\n")
        self.writer.writerow(row)
        self.file.flush()
        line = f"/{facts[self.by]}" if self.by else ""
        for name, value in measures.items():
            self.board.add_scalar(name + line, value, step)
        for name, value in pace.items():
            self.board.add_scalar(name, value, step)

    def open(self, columns: Sequence[str]) -> io.TextIOBase:
        """The file with the rows that stay, to be added to."""
        path = self.folder / CSV_FILE
        kept = io.StringIO(newline="")
        writer = csv.DictWriter(kept, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in read_rows(path) if int(row["step"]) < self.start_step)
        write_text(path, kept.getvalue())
        return path.open("a", newline="", encoding="utf-8")

    def close(self) -> None:
        """Flush everything and draw the picture."""
        if self.file is not None:
            self.file.close()
        self.board.close()
        self.draw()

    def draw(self) -> None:
        """Draw the picture as far as the run is; a run does not die of one that fails."""
        if self.measures:
            try:
                draw(self.folder, self.measures, self.by)
            except Exception as error:
                log.warning("%s: cannot be drawn (%s: %s)", self.folder / PNG_FILE, type(error).__name__, error)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Complete rows of a curves file; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def draw(folder: Path, measures: Sequence[str], by: str) -> None:
    """Draw each measure and the learning rate against minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read_rows(folder / CSV_FILE)
    figure, panels = pyplot.subplots(
        len(measures) + 1,
        sharex=True,
        figsize=(8, 3.5 + 2.5 * len(measures)),
        height_ratios=(3,) * len(measures) + (1,),
    )
    for panel, name in zip(panels, measures, strict=False):
        for line in sorted({row[by] if by else "" for row in rows}):
            own = [row for row in rows if (row[by] if by else "") == line and row[name]]
            minutes, values = (np.array([float(row[key]) for row in own]) for key in ("minutes", name))
            plot_smooth(panel, minutes, values, " " + line.replace("$", r"\$"))  # no formula, not hidden by _
        panel.set_ylabel(name.replace("_", " "))
        if by:
            panel.legend()
    own = rows[:: len(rows) // MAX_POINTS + 1]
    panels[-1].plot([float(row["minutes"]) for row in own], [float(row["learning_rate"]) for row in own])
    panels[-1].set_ylabel("learning rate")
    panels[-1].set_xlabel("minutes")
    figure.tight_layout()
    with atomic_path(folder / PNG_FILE) as partial:
        figure.savefig(partial, dpi=120, format="png")
    pyplot.close(figure)


def smoothing_width(num_values: int) -> int:
    """Over how many values a line is smoothed: of short ones a fifth, so that something of it stays."""
    return max(1, min(SMOOTHING_STEPS, num_values // 5))


def plot_smooth(
    panel: Axes,
    times: np.ndarray,
    values: np.ndarray,
    label: str,
    *,
    colour: str | None = None,
    max_points: int = MAX_POINTS,
) -> None:
    """A pale line of the values, a strong one of their running mean, against minutes or steps."""
    if not len(values):
        return
    stride = len(values) // max_points + 1
    (line,) = panel.plot(times[::stride], values[::stride], alpha=0.25, linewidth=0.7, color=colour)
    width = smoothing_width(len(values))
    smooth = np.convolve(values, np.ones(width) / width, mode="valid")
    panel.plot(times[width - 1 :: stride], smooth[::stride], color=line.get_color(), label=label)
