"""predictions.csv: the probability of each class or finding, a row a study.

Letters: N studies, K classes or findings, L numbers that a label has (`ClassSet.num_labels`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .classes import ClassSet
from .csv_table import CsvTable, read_csv, require_column, require_none
from .errors import InputError
from .files import write_text

PREDICTIONS_CSV = "predictions.csv"
STUDY, PREDICTED = "study", "predicted"
PREFIX = "p_"
"""Before the name of a class in the header: so no class can take the place of another column."""
THRESHOLD = 0.5
"""Above it a finding is there, and the second of two classes is predicted: MedMNIST's (Yang et al. 2023)."""
MAX_SUM_ERROR = 0.02
"""Of the probabilities of exclusive classes: they may be rounded."""
REMEDY = f"expected a CSV with the columns {STUDY} and {PREFIX}NAME for each class, as spadunet_predict writes it"


@dataclass(frozen=True, kw_only=True)
class ClassPredictions:
    """What was predicted of each study."""

    studies: tuple[str, ...]
    """Names, none twice."""
    probabilities: np.ndarray
    """Float (N, K), 0 to 1, in the order of the class set."""


def decide(classes: ClassSet, probabilities: np.ndarray) -> np.ndarray:
    """What probabilities (N, K) predict, as labels: the class, or 0 or 1 for each finding, int (N, L).

    Of more than two classes it is the likeliest one, the first of equals.
    """
    if classes.kind == "multi-label":
        return (probabilities > THRESHOLD).astype(np.int64)
    if classes.kind == "binary":
        return (probabilities[:, -1:] > THRESHOLD).astype(np.int64)
    return probabilities.argmax(axis=1)[:, None]


def describe(classes: ClassSet, label: Sequence[int]) -> str:
    """A label of known numbers in words: the class, or the findings that are there."""
    if classes.is_exclusive:
        return classes.names[label[0]]
    return "; ".join(name for name, is_there in zip(classes.names, label, strict=True) if is_there)


def write_predictions(path: Path, classes: ClassSet, studies: Sequence[str], probabilities: np.ndarray) -> None:
    """Write the table whole or not at all; each number has as many digits as bring it back unchanged.

    Args:
        studies: names, none twice.
        probabilities: float (N, K).

    Raises:
        ValueError: if the numbers do not fit the names, or are no probabilities.
        OutputError: if it cannot be written.
    """
    if probabilities.shape != (len(studies), classes.num_outputs) or len(set(studies)) < len(studies):
        raise ValueError(
            f"{path}: probabilities {probabilities.shape} of {len(studies)} studies and {classes.num_outputs} classes; "
            "expected a row for each study, none named twice"
        )
    for study, row in zip(studies, probabilities, strict=True):
        if problem := wrong_in(classes, row):
            raise ValueError(f"{path}: study {study}: {problem}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([STUDY, *(PREFIX + name for name in classes.names), PREDICTED])
    for study, row, label in zip(studies, probabilities, decide(classes, probabilities).tolist(), strict=True):
        writer.writerow([study, *map(str, row), describe(classes, label)])
    write_text(path, text.getvalue())


def names_in(path: Path) -> tuple[str, ...]:
    """Names of the classes that a predictions.csv has probabilities of, in the order of its columns.

    Raises:
        InputError: if it cannot be read, or has none.
    """
    return names_of(read_csv(path, keys=(STUDY, PREDICTED), remedy=REMEDY))


def names_of(table: CsvTable) -> tuple[str, ...]:
    """As `names_in`."""
    names = tuple(name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX) and name != PREFIX)
    if not names:
        raise InputError(f"{table.path}: line 1: no column begins with {PREFIX}; {REMEDY}")
    return names


def read_predictions(path: Path, classes: ClassSet) -> ClassPredictions:
    """Read and check predictions; the columns may come in any order, and what is `predicted` is told by them.

    Raises:
        InputError: tells the first problems, a line each: columns that are not the classes, a study twice or without
            a name, what is no probability, exclusive classes whose probabilities do not add up to 1.
    """
    table = read_csv(path, keys=(STUDY, PREDICTED), remedy=REMEDY)
    studies = table.column(require_column(table, STUDY))
    names = names_of(table)
    problems = [f"{path}: line 1: no column {PREFIX}{name}; add it" for name in classes.names if name not in names]
    problems += [
        f"{path}: line 1: column {PREFIX}{name} is of no class; the references have {', '.join(classes.names)}"
        for name in names
        if name not in classes.names
    ]
    require_none(problems)
    cells = zip(*(table.column(PREFIX + name) for name in classes.names), strict=True)
    probabilities = np.full((len(studies), classes.num_outputs), np.nan)
    first_line: dict[str, int] = {}
    for place, (line, study, row) in enumerate(zip(table.lines, studies, cells, strict=True)):
        where = f"{path}: line {line}"
        if not study:
            problems.append(f"{where}: no name of the study; fill in the column {STUDY}")
        elif study in first_line:
            problems.append(f"{where}: study {study} is in line {first_line[study]} already; remove one of them")
        first_line.setdefault(study, line)
        try:
            probabilities[place] = [float(cell) for cell in row]
        except ValueError:
            wrong = next(name for name, cell in zip(classes.names, row, strict=True) if not is_number(cell))
            cell = row[classes.names.index(wrong)]
            problems.append(f"{where}: {PREFIX}{wrong} is {cell!r}, no number; predict study {study} again")
            continue
        if problem := wrong_in(classes, probabilities[place]):
            problems.append(f"{where}: {problem}")
    require_none(problems)
    return ClassPredictions(studies=tuple(studies), probabilities=probabilities)


def is_number(cell: str) -> bool:
    """Whether a cell holds one, be it NaN."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def wrong_in(classes: ClassSet, row: np.ndarray) -> str:
    """What is wrong with the probabilities (K,) of a study, and the remedy; empty where nothing is."""
    for name, value in zip(classes.names, row.tolist(), strict=True):
        if not 0 <= value <= 1:  # NaN, too
            return f"{PREFIX}{name} is {value:g}, no probability from 0 to 1; predict this study again"
    total = float(row.sum())
    if classes.is_exclusive and abs(total - 1) > MAX_SUM_ERROR:
        return (
            f"the probabilities add up to {total:.4g}, not to 1 as those of {classes.kind} classes do; "
            "give the softmax of the outputs, or a multi-label set if several may be right"
        )
    return ""
