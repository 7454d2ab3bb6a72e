"""A CSV file with a header, as rows that know their line."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, listed

DELIMITERS = (",", ";", "\t")
"""Comma, and what spreadsheets write in its place."""
MAX_TOLD = 10
"""Problems of one file that are told."""


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """Cells as text, without spaces around them; lines without any cell are left out."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """A cell a column."""
    lines: tuple[int, ...]
    """Of the file, from 1, in which each row ends."""

    def column(self, name: str) -> list[str]:
        """Cells of a column, which must be there."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_csv(path: Path, *, keys: Collection[str], remedy: str) -> CsvTable:
    """Read a CSV file of UTF-8, with or without a byte order mark; commas, semicolons or tabs between cells.

    Args:
        keys: columns that are known by name, in small letters; a header may have capitals. They tell what is between
            cells.
        remedy: what to do where there is no such file.

    Raises:
        InputError: if it is missing or no text, has no header or no rows, names a column twice, or a row is longer or
            shorter than the header.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: not found; {remedy}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error}); save it as CSV UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text, keys), strict=True)
    try:
        found = [(reader.line_num, tuple(cell.strip() for cell in row)) for row in reader]
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; save it as CSV UTF-8") from error
    found = [(line, row) for line, row in found if any(row)]
    if len(found) < 2:
        raise InputError(f"{path}: has {'a header but no rows' if found else 'no header'}; {remedy}")
    (_, names), *rows = found
    columns = tuple(name.lower() if name.lower() in keys else name for name in names)
    twice = [name for place, name in enumerate(columns) if name in columns[:place]]
    if twice:
        raise InputError(f"{path}: line 1: column {twice[0]!r} is there twice; rename or remove one")
    problems = [
        f"{path}: line {line}: {len(row)} cells, where the header has {len(columns)}; correct the line"
        for line, row in rows
        if len(row) != len(columns)
    ]
    require_none(problems)
    return CsvTable(
        path=path, columns=columns, rows=tuple(row for _, row in rows), lines=tuple(line for line, _ in rows)
    )


def delimiter_of(text: str, keys: Collection[str]) -> str:
    """What stands between cells: what parts most of the known names in the first line, of equals what is there most."""
    header = text.partition("\n")[0].lower()

    def num_found(delimiter: str) -> tuple[int, int]:
        cells = [cell.strip(' "\r') for cell in header.split(delimiter)]
        return sum(key in cells for key in keys), len(cells)

    return max(DELIMITERS, key=num_found)


def require_column(table: CsvTable, *names: str) -> str:
    """The first of these columns that is there.

    Raises:
        InputError: if none is.
    """
    there = next((name for name in names if name in table.columns), None)
    if there is None:
        wanted = " or ".join(repr(name) for name in names)
        raise InputError(f"{table.path}: line 1: no column {wanted}, only {listed(table.columns, MAX_TOLD)}; add it")
    return there


def require_none(problems: list[str]) -> None:
    """Go on if nothing is wrong.

    Raises:
        InputError: with the first of the problems, a line each, and how many more there are.
    """
    if problems:
        more = [f"… and {len(problems) - MAX_TOLD} more"] if len(problems) > MAX_TOLD else []
        raise InputError("\n".join([*problems[:MAX_TOLD], *more]))
