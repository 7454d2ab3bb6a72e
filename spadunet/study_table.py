"""labels.csv as it stands: its columns and rows, before any of it is understood."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, listed

LABELS_CSV = "labels.csv"
IMAGE, STUDY, PATIENT, SPLIT = "image", "study", "patient", "split"
KEYS = (IMAGE, STUDY, PATIENT, SPLIT)
"""Columns that are no labels."""
DELIMITERS = (",", ";", "\t")
"""Comma, and what spreadsheets write in its place."""
COLUMNS = "expected the columns image, study, patient, split (only image must be there) and those of the labels"
MAX_TOLD = 10


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
        """Raise all problems as one text, a line each, with the file before each."""
        if problems:
            told = [f"{self.path}: {problem}" for problem in problems[:MAX_TOLD]]
            more = len(problems) - MAX_TOLD
            raise InputError("\n".join([*told, *([f"{self.path}: and {more} more of the kind"] if more > 0 else [])]))


def read_table(path: Path) -> LabelTable:
    """Read labels.csv; comma, semicolon or tab between cells, UTF-8.

    Raises:
        InputError: if it is missing, no text, empty, has no column of images or labels, one twice, or a ragged row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; {COLUMNS}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); save it as CSV UTF-8") from error
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                numbered.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; save it as CSV UTF-8") from error
    if not numbered:
        raise InputError(f"{path}: is empty; {COLUMNS}")
    columns = [name.lower() if name.lower() in KEYS else name for name in numbered.pop(0)[1]]
    check_columns(path, columns)
    rows = []
    for line, cells in numbered:
        if len(cells) != len(columns):
            raise InputError(f"{path}: line {line}: has {len(cells)} cells; expected {len(columns)}, as the first line")
        pairs = dict(zip(columns, cells, strict=True))
        keys = {name: cell for name, cell in pairs.items() if name in KEYS}
        labels = {name: cell for name, cell in pairs.items() if name not in KEYS}
        rows.append(TableRow(line=line, keys=keys, labels=labels))
    if not rows:
        raise InputError(f"{path}: holds no row below the names of its columns; write one an image")
    return LabelTable(path=path, label_columns=tuple(name for name in columns if name not in KEYS), rows=tuple(rows))


def check_columns(path: Path, columns: list[str]) -> None:
    """Refuse names of columns that do not tell what is where."""
    found = listed(columns, MAX_TOLD)
    if IMAGE not in columns:
        raise InputError(f"{path}: line 1: no column is called image, but {found}; {COLUMNS}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice or "" in columns:
        which = f"several columns are called {twice[0]}" if twice and twice[0] else "a column has no name"
        raise InputError(f"{path}: line 1: {which}; give each a name of its own")
    if set(columns) <= set(KEYS):
        raise InputError(
            f"{path}: line 1: no column of labels beside {found}; add one of classes, or one for each finding"
        )
