"""Validation scores of a run: as they lie in its folder, and in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..record import read_record
from ..scores import Scores
from .curves import TENSORBOARD_FOLDER, read_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

VALIDATION_CSV = "validation.csv"
VALIDATION_FOLDER, SCORES_JSON, OVERLAYS_FOLDER = "validation", "scores.json", "overlays"


@dataclass(frozen=True, kw_only=True)
class DicePoint:
    """Dice of a class after so many steps; None where it is not defined."""

    dataset: str
    """Empty where the file does not say."""
    step: int
    name: str
    """Of the class."""
    dice: float | None


def read_validation(folder: Path) -> list[DicePoint]:
    """What validation.csv of a run's folder says, in its order; nothing where there is none.

    Its columns: step, task (the dataset), class, and dice, which is empty where it is not defined.

    Raises:
        ValueError, KeyError: if it is damaged.
    """
    return [
        DicePoint(
            dataset=row.get("task") or "",
            step=int(row["step"]),
            name=row["class"],
            dice=float(row["dice"]) if row["dice"] else None,
        )
        for row in read_rows(folder / VALIDATION_CSV)
    ]


def read_final_scores(folder: Path, *, since: float = 0.0) -> dict[str, Scores]:
    """Scores of the held-out cases of each dataset, by its name, as a finished run leaves them.

    Args:
        since: seconds since 1970; older files are those of another run in the same folder.

    Raises:
        InputError: if a file is damaged.
    """
    return {
        path.parent.name: read_record(path, Scores, remedy="validate again")
        for path in sorted((folder / VALIDATION_FOLDER).glob(f"*/{SCORES_JSON}"))
        if path.stat().st_mtime >= since
    }


class ValidationBoard:
    """Shows each point of validation.csv in TensorBoard, once, and the final scores."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.num_shown = len(read_rows(folder / VALIDATION_CSV))
        self.writer: SummaryWriter | None = None

    def update(self) -> None:
        """Show what came since."""
        points = read_validation(self.folder)
        for point in points[min(self.num_shown, len(points)) :]:
            if point.dice is not None:
                self.add({f"validation_dice/{point.dataset or 'all'}/{point.name}": point.dice}, point.step)
        self.num_shown = len(points)

    def add_final(self, dataset: str, scores: Scores, step: int) -> None:
        """Show the Dice of each class of a dataset after the last step, and their mean."""
        values = {name: row.dice for name, row in scores.summary().items()} | {"mean": scores.mean("dice")}
        self.add({f"final_dice/{dataset}/{name}": dice for name, dice in values.items() if dice is not None}, step)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write some values."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / TENSORBOARD_FOLDER / VALIDATION_FOLDER))
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        """End it."""
        if self.writer is not None:
            self.writer.close()
