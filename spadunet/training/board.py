"""Validation scores of a run: as they lie in its folder, and in TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..class_predictions import PREDICTIONS_CSV
from ..evaluation.classification import ClassificationScores
from ..files import write_text
from ..record import read_record
from ..scores import Scores
from .curves import TENSORBOARD_FOLDER, read_rows
from .epochs import read_epochs

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VALIDATION_CSV = "validation.csv"
COLUMNS = ("step", "dataset", "class", "dice")
VALIDATION_FOLDER, SCORES_JSON, OVERLAYS_FOLDER = "validation", "scores.json", "overlays"


@dataclass(frozen=True, kw_only=True)
class DicePoint:
    """Dice of a class after so many steps; None where it is not defined."""

    dataset: str
    step: int
    name: str
    """Of the class."""
    dice: float | None


def read_validation(folder: Path) -> list[DicePoint]:
    """What validation.csv of a run's folder says, in its order; nothing where there is none.

    Its columns: step, dataset, class, and dice, which is empty where it is not defined.

    Raises:
        ValueError, KeyError: if it is damaged.
    """
    return [
        DicePoint(
            dataset=row["dataset"],
            step=int(row["step"]),
            name=row["class"],
            dice=float(row["dice"]) if row["dice"] else None,
        )
        for row in read_rows(folder / VALIDATION_CSV)
    ]


def write_validation(folder: Path, points: Sequence[DicePoint]) -> None:
    """Write validation.csv anew."""
    write_text(folder / VALIDATION_CSV, ",".join(COLUMNS) + "\n" + rows_of(points))


def add_validation(folder: Path, points: Sequence[DicePoint]) -> None:
    """Add to validation.csv, which is there."""
    with (folder / VALIDATION_CSV).open("a", newline="", encoding="utf-8") as file:
        file.write(rows_of(points))


def rows_of(points: Sequence[DicePoint]) -> str:
    """Lines of validation.csv."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for point in points:
        dice = "" if point.dice is None else f"{point.dice:.6f}"
        writer.writerow((point.step, point.dataset, point.name, dice))
    return text.getvalue()


def read_final_scores(folder: Path, *, since: float = 0.0) -> dict[str, Scores]:
    """Scores of the held-out cases of each dataset, by its name, as a finished run leaves them.

    Args:
        since: seconds since 1970; older files are those of another run in the same folder.

    Raises:
        InputError: if a file is damaged.
    """
    return {
        path.parent.name: read_record(path, Scores, remedy="validate again")
        for path in score_files(folder, since, is_classification=False)
    }


def read_class_scores(folder: Path, *, since: float = 0.0) -> dict[str, ClassificationScores]:
    """As `read_final_scores`, of what a classification leaves."""
    return {
        path.parent.name: read_record(path, ClassificationScores, remedy="validate again")
        for path in score_files(folder, since, is_classification=True)
    }


def score_files(folder: Path, since: float, *, is_classification: bool) -> list[Path]:
    """Files of final scores, of one kind: those of a classification lie beside their predictions.csv."""
    return [
        path
        for path in sorted((folder / VALIDATION_FOLDER).glob(f"*/{SCORES_JSON}"))
        if path.stat().st_mtime >= since and (path.parent / PREDICTIONS_CSV).is_file() == is_classification
    ]


class ValidationBoard:
    """Shows each point of validation.csv in TensorBoard, once, and the final scores."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.shown: set[DicePoint] = set()
        self.last_epoch_step = -1
        self.writer: SummaryWriter | None = None

    def update(self) -> None:
        """Show what came since; all anew where points are gone, since the run goes on from before them."""
        points = read_validation(self.folder)
        for epoch in read_epochs(self.folder):
            if epoch.step > self.last_epoch_step:
                values = {"loss": epoch.loss, "AUC": epoch.auc, "ACC": epoch.accuracy}
                self.add({f"validation_{name}": it for name, it in values.items() if it is not None}, epoch.step)
                self.last_epoch_step = epoch.step
        if not self.shown <= set(points):
            self.close()
        for point in points:
            if point not in self.shown and point.dice is not None:
                self.add({f"validation_dice/{point.dataset}/{point.name}": point.dice}, point.step)
        self.shown = set(points)

    def add_final(self, dataset: str, scores: Scores, step: int) -> None:
        """Show the Dice of each class of a dataset after the last step, and their mean."""
        values = {name: row.dice for name, row in scores.summary().items()} | {"mean": scores.mean("dice")}
        self.add({f"final_dice/{dataset}/{name}": dice for name, dice in values.items() if dice is not None}, step)

    def add_classes(self, dataset: str, scores: ClassificationScores, step: int) -> None:
        """Show AUC and ACC of a classification after the last step."""
        values = {"AUC": scores.auc, "ACC": scores.accuracy}
        self.add({f"final_{name}/{dataset}": value for name, value in values.items() if value is not None}, step)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write some values."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What earlier processes have shown gives way to what the file says now.
            self.writer = SummaryWriter(str(self.folder / TENSORBOARD_FOLDER / VALIDATION_FOLDER), purge_step=0)
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """End it; what comes after is shown anew."""
        if self.writer is not None:
            self.writer.close()
        self.writer, self.shown, self.last_epoch_step = None, set(), -1
