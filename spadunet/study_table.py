"""labels.csv as it stands: its columns and rows, before any of it is understood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .csv_table import MAX_TOLD, read_csv, require_column, require_none
from .errors import InputError, listed

LABELS_CSV = "labels.csv"
IMAGE, STUDY, PATIENT, SPLIT = "image", "study", "patient", "split"
KEYS = (IMAGE, STUDY, PATIENT, SPLIT)
"""Columns that are no labels."""
COLUMNS = "expected the columns image, study, patient, split (only image must be there) and those of the labels"


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One image of the table."""

    line: int
    """Of the file, from 1."""
    keys: Mapping[str, str]
    """Image, study, patient and split, where the table has such a column; empty where the cell is."""
    labels: Mapping[str, str]
    """By column of the labels, as written, without spaces around."""


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """All rows of a labels.csv."""

    path: Path
    label_columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def has(self, key: str) -> bool:
        """True if the table has this column."""
        return key in self.rows[0].keys

    def refuse(self, problems: list[str]) -> None:
        """Raise the first problems as one text, a line each, with the file before each."""
        require_none([f"{self.path}: {problem}" for problem in problems])

    def only(self, choose: Callable[[TableRow], bool]) -> LabelTable:
        """The table of some rows."""
        return replace(self, rows=tuple(row for row in self.rows if choose(row)))


def read_table(path: Path, *, names: tuple[str, ...] = (IMAGE,), has_labels: bool = True) -> LabelTable:
    """Read labels.csv; comma, semicolon or tab between cells, UTF-8.

    Args:
        names: columns of which one must be there.
        has_labels: there must be a column of labels.

    Raises:
        InputError: if it is missing, no text, empty, has no column of images or labels, one twice, or a ragged row.
    """
    table = read_csv(path, keys=KEYS, remedy=COLUMNS)
    require_column(table, *names)
    label_columns = tuple(name for name in table.columns if name not in KEYS)
    if "" in table.columns:
        raise InputError(f"{path}: line 1: a column has no name; give each a name of its own")
    if has_labels and not label_columns:
        found = listed(table.columns, MAX_TOLD)
        raise InputError(
            f"{path}: line 1: no column of labels beside {found}; add one of classes, or one for each finding"
        )
    rows = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        pairs = dict(zip(table.columns, cells, strict=True))
        keys = {name: cell for name, cell in pairs.items() if name in KEYS}
        labels = {name: cell for name, cell in pairs.items() if name not in KEYS}
        rows.append(TableRow(line=line, keys=keys, labels=labels))
    return LabelTable(path=path, label_columns=label_columns, rows=tuple(rows))
