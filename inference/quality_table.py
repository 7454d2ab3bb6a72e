"""quality.csv: how far each answer can be trusted, and which label maps go to review/."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ..errors import InputError, listed
from ..files import cannot_be_written, write_text
from ..image import LabelMap
from ..labels import LabelSet
from ..quality import MEAN, Calibration, QualityRow, rows_of
from ..record import first_problem
from .judge import judge
from .predict import Answer
from .saved_probabilities import probabilities_path

QUALITY_CSV = "quality.csv"
UNFINISHED_CSV = "quality.unfinished.csv"
"""Grows case by case while a run goes on; of each further process of a run, one with its number."""
REVIEW_FOLDER = "review"
COLUMNS = {"class" if field == "name" else field: field for field in QualityRow.model_fields}
"""Of the table, and the fields that they hold."""
MAX_NAMED = 20
"""Cases that a line of the log names."""

Table = dict[str, list[QualityRow]]
"""Rows by case, that of the whole case last."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How answers are judged."""

    labels: LabelSet
    calibration: Calibration | None
    """None where the models have none."""
    reject_below: float | None = None
    """Mean expected Dice below which a label map goes to review/; None for none."""

    def rows(self, case: str, label_map: LabelMap, answer: Answer) -> list[QualityRow]:
        """Of an answer and its label map, which is cleaned."""
        return self.settled(rows_of(case, judge(answer, label_map, self.labels), self.calibration))

    def settled(self, rows: list[QualityRow]) -> list[QualityRow]:
        """The same rows, `review` by the mean expected Dice where that is known."""
        expected = rows[-1].expected_dice
        doubtful = self.reject_below is not None and expected is not None and expected < self.reject_below
        return [row.model_copy(update={"review": doubtful}) for row in rows]


class QualityTable:
    """Rows of an output folder's cases as they come, so that an interrupted run keeps what it has.

    Args:
        keep: go on from the rows that are there.
        rank: of a process of several, each with its own file; the first looks after all.
    """

    def __init__(self, folder: Path, judgement: Judgement, *, keep: bool = False, rank: int = 0) -> None:
        self.folder, self.judgement = folder, judgement
        self.own_path = folder / UNFINISHED_CSV
        self.table: Table = {}
        if rank:
            self.own_path = self.own_path.with_suffix(f".{rank}.csv")
            return
        for path in (folder / QUALITY_CSV, *self.unfinished_paths()):
            if keep and path.is_file():
                is_unfinished = path.name != QUALITY_CSV
                found = read_table(path, is_unfinished=is_unfinished)
                self.table |= found
                if is_unfinished:  # without a torn line, and without other lines of its case: it comes anew
                    write_text(path, csv_text(found))
            elif not keep:
                path.unlink(missing_ok=True)

    def unfinished_paths(self) -> list[Path]:
        """Files of all processes."""
        return sorted(self.folder.glob(f"{Path(UNFINISHED_CSV).stem}*.csv"))

    def add(self, case: str, path: Path, label_map: LabelMap, answer: Answer) -> Path:
        """Take an answer before its label map, which is cleaned, is written to `path`; where it goes instead."""
        rows = self.judgement.rows(case, label_map, answer)
        self.keep(case, rows)
        return review_path(path) if rows[-1].review else path

    def keep(self, case: str, rows: list[QualityRow]) -> None:
        """Take rows of a case; earlier ones, as of an attempt that failed, are gone."""
        is_again = case in self.table
        self.table[case] = rows
        path_of_rows = self.own_path
        if is_again:
            write_text(path_of_rows, csv_text(self.table))
            return
        try:
            with path_of_rows.open("a", encoding="utf-8") as file:
                is_new = not file.tell()
                file.write(csv_text({case: self.table[case]}, with_head=is_new))
        except OSError as error:
            raise cannot_be_written(path_of_rows, error) from error

    def sort(self, paths: Mapping[str, Path]) -> None:
        """Put kept label maps where the threshold has them, if there is one and their expected Dice is known.

        Their probabilities, where there are any, go with them, and before them.
        """
        for case, path in paths.items():
            rows = self.table.get(case, [])
            if self.judgement.reject_below is None or not rows or rows[-1].expected_dice is None:
                continue
            self.table[case] = self.judgement.settled(rows)
            doubtful = self.table[case][-1].review
            here, there = (path, review_path(path)) if doubtful else (review_path(path), path)
            for old, new in ((probabilities_path(here, case), probabilities_path(there, case)), (here, there)):
                if old.is_file():
                    new.parent.mkdir(exist_ok=True)
                    os.replace(old, new)

    def finish(self, failed: Collection[str]) -> list[str]:
        """Write quality.csv, without cases that failed; lines for the log."""
        table = {case: rows for case, rows in sorted(self.table.items()) if case not in failed}
        write_text(self.folder / QUALITY_CSV, csv_text(table))
        for path in self.unfinished_paths():
            path.unlink(missing_ok=True)
        return tell(table, self.judgement.calibration, self.judgement.reject_below)


def tell(table: Table, calibration: Calibration | None, reject_below: float | None) -> list[str]:
    """What the table says of cases that someone should look at."""
    lines = []
    known = calibration.classes if calibration else {}
    missing = [
        f"{case} ({row.name})"
        for case, rows in table.items()
        for row in rows[:-1]
        if row.is_empty and row.name in known and known[row.name].volumes.is_expected
    ]
    if missing:
        lines.append(f"not found, though nearly all training references have it: {shortened(missing)}")
    doubtful = [f"{case} ({rows[-1].expected_dice:.2f})" for case, rows in table.items() if rows[-1].review]
    if reject_below is not None:
        lines.append(
            f"{len(doubtful)} of {len(table)} label maps lie in {REVIEW_FOLDER}/: mean expected Dice below "
            f"{reject_below:g}" + (f": {shortened(doubtful)}" if doubtful else "")
        )
    return lines


def shortened(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    return listed(names, MAX_NAMED) + (f"; see {QUALITY_CSV}" if len(names) > MAX_NAMED else "")


def review_path(path: Path) -> Path:
    """Where a label map lies that should be looked at."""
    return path.parent / REVIEW_FOLDER / path.name


def csv_text(table: Table, *, with_head: bool = True) -> str:
    """One row a class and case; a cell is empty where a value is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_head:
        writer.writerow(COLUMNS)
    for row in (row for rows in table.values() for row in rows):
        writer.writerow([cell(getattr(row, field)) for field in COLUMNS.values()])
    return text.getvalue()


def cell(value: str | float | bool | None) -> str:
    """A value as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else value if isinstance(value, str) else f"{value:.6g}"


def read_table(path: Path, *, is_unfinished: bool = False) -> Table:
    """Read quality.csv.

    Args:
        is_unfinished: leave out what was being written when a run was interrupted.

    Raises:
        InputError: if it cannot be read, or is no such table; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); predict again with spadunet_predict") from error
    if is_unfinished:
        text = text[: text.rfind("\n") + 1]
    table: Table = {}
    reader = csv.reader(io.StringIO(text))
    if next(reader, []) != list(COLUMNS) and not (is_unfinished and not text):
        raise InputError(f"{path}: is no quality.csv of this spadunet: its columns are others; predict again")
    for cells in reader:
        row = parse_row(cells, f"{path}: line {reader.line_num}")
        table.setdefault(row.case, []).append(row)
    incomplete = [case for case, rows in table.items() if rows[-1].name != MEAN]
    if incomplete and not is_unfinished:
        raise InputError(f"{path}: {incomplete[0]} has no row of its mean; predict again")
    return {case: rows for case, rows in table.items() if case not in incomplete}


def parse_row(cells: list[str], where: str) -> QualityRow:
    """Of a line.

    Raises:
        InputError: if it is none; begins with `where`.
    """
    if len(cells) != len(COLUMNS):
        raise InputError(f"{where}: has {len(cells)} cells, not {len(COLUMNS)}")
    values: dict[str, object] = dict(zip(COLUMNS.values(), (it or None for it in cells), strict=True))
    try:
        return QualityRow.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}") from error
