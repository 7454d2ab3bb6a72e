"""What the label columns of a table mean: their classes or findings, and the numbers that networks learn."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .channels import plain_name
from .classes import UNKNOWN, ClassSet
from .errors import InputError, listed
from .record import read_record
from .study import SPLIT_NAMES, LabelledStudies, SplitName
from .study_table import LABELS_CSV, LabelTable, TableRow

CLASSES_JSON = "classes.json"
CLASS_COLUMNS = ("label", "class")
"""Which one holds the class, where classes.json says that there are classes and the table has further columns."""
FINDING_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": UNKNOWN}
"""Absent, there, or not looked for; as spreadsheets and pandas write them."""
MISSING_WORDS = frozenset(
    ("nan", "na", "n/a", "n.a.", "<na>", "#n/a", "none", "null", "nil", "missing", "?", "-", "--", "-1", "-1.0")
)
"""What people and programs write, in whatever case, where a class is not known."""
FEW_NAMES = 12
"""Told of an unknown class's alternatives."""

MAX_VALUES = 3
"""Told of a column that holds no findings."""

log = logging.getLogger("spadunet")


def choose_classes(folder: Path, table: LabelTable, *, num_studies: int) -> ClassSet:
    """Classes of classes.json; without it, one column of labels holds classes and several hold findings.

    Two different classes are binary. They are sorted by name, numbers by their value; 1.0 is the class 1.

    Raises:
        InputError: if classes.json is wrong or is not for this table, or classes cannot be told from the column.
    """
    path = folder / CLASSES_JSON
    if path.is_file():
        expected = '{"kind": "ordinal", "names": ["mild", "severe"]}, kind multi-class, binary, ordinal or multi-label'
        return read_record(path, ClassSet, remedy=f"write {expected}")
    if len(table.label_columns) > 1:
        check_findings(table)
        return ClassSet(kind="multi-label", names=table.label_columns)
    column = table.label_columns[0]
    values = {row.labels[column] for row in table.rows} - {""}
    check_missing(table, column)
    if all(map(whole_number, values)):
        values = {whole_number(value) for value in values}
    check_alike(table, column, values)
    if len(values) < 2:
        raise InputError(
            f"{table.path}: column {column}: every label is '{next(iter(values), '')}'; expected at least two classes"
        )
    if len(values) == num_studies > 2:
        raise InputError(
            f"{table.path}: column {column}: each of {num_studies} studies has a class of its own, such as "
            f"'{min(values)}'; expected classes that several studies share"
        )
    are_numbers = all(value.isdecimal() for value in values)
    names = sorted(values, key=int) if are_numbers else sorted(values)
    classes = ClassSet(kind="binary" if len(names) == 2 else "multi-class", names=tuple(names))
    log.info("%s: %s, %s (%s fixes kind and order)", table.path, classes.kind, ", ".join(names), CLASSES_JSON)
    return classes


def whole_number(text: str) -> str:
    """A class that is a number from 0 as it is called: 1 of 1.0, as pandas writes it; empty of any other text."""
    match = re.fullmatch(r"(\d+)(\.0*)?", text)
    return match[1] if match else ""


def check_missing(table: LabelTable, column: str) -> None:
    """Refuse words that people write where there is no class."""
    table.refuse(
        [
            f"line {row.line}: {column} is '{row.labels[column]}', which reads as no label; take the row out, or write "
            f"{CLASSES_JSON} with all names if it is a class"
            for row in table.rows
            if row.labels[column].casefold() in MISSING_WORDS
        ]
    )


def check_findings(table: LabelTable) -> None:
    """Refuse columns that are no findings for the most part, as an age beside a class."""
    for column in table.label_columns:
        values = [row.labels[column] for row in table.rows if row.labels[column]]
        wrong = list(dict.fromkeys(value for value in values if value not in FINDING_LABELS))
        if sum(value in wrong for value in values) * 2 > len(values):
            raise InputError(
                f"{table.path}: line 1: several columns of labels are findings, 0 or 1 each, but {column} holds "
                f"{listed(wrong, MAX_VALUES)}; leave one column of classes, or say in {CLASSES_JSON} which classes or "
                f'findings are meant: {{"kind": "multi-class", "names": […]}}, in a column called {CLASS_COLUMNS[0]}'
            )


def check_alike(table: LabelTable, column: str, values: Iterable[str]) -> None:
    """Refuse two spellings of what looks like one class."""
    first: dict[str, str] = {}
    for value in sorted(values):
        other = first.setdefault(plain_name(value), value)
        if other != value:
            line = next(row.line for row in table.rows if row.labels[column] == value)
            raise InputError(
                f"{table.path}: line {line}: {column} is '{value}', elsewhere '{other}'; write one class in one way"
            )


def class_columns(table: LabelTable, classes: ClassSet) -> tuple[str, ...]:
    """The columns that hold these classes: one, or one a finding in the order of the findings.

    Raises:
        InputError: if one is missing, or none can be told from others.
    """
    columns = table.label_columns
    there = listed(columns, FEW_NAMES)
    if not classes.is_exclusive:
        missing = [name for name in classes.names if name not in columns]
        if missing:
            raise InputError(
                f"{table.path}: line 1: no column is called '{missing[0]}', a finding of {CLASSES_JSON}, but {there}; "
                "add it, or correct one of the two"
            )
        return classes.names
    if len(columns) == 1:
        return columns
    named = [name for name in columns if name.lower() in CLASS_COLUMNS]
    if len(named) != 1:
        raise InputError(
            f"{table.path}: line 1: which of the columns {there} holds the class ({CLASSES_JSON} says {classes.kind})? "
            f"Call it {CLASS_COLUMNS[0]}, or leave the others out"
        )
    return (named[0],)


def labels_of_rows(table: LabelTable, classes: ClassSet, *, may_be_unknown: bool = False) -> list[tuple[int, ...]]:
    """The label of each row as numbers.

    Args:
        may_be_unknown: an empty cell is an unknown class, and a row without any finding is one that nobody looked at;
            nothing can be learned of them, but they do no harm where others are scored.

    Raises:
        InputError: if one is missing or is none of the classes; up to ten lines.
    """
    columns = class_columns(table, classes)
    ignored = [name for name in table.label_columns if name not in columns]
    if ignored:
        log.info("%s: columns that are no labels: %s", table.path, ", ".join(ignored))
    read = read_class if classes.is_exclusive else read_findings
    found = [
        (UNKNOWN,) * classes.num_labels
        if may_be_unknown and not any(row.labels[name] for name in columns)
        else read(row, columns, classes)
        for row in table.rows
    ]
    table.refuse([it for it in found if isinstance(it, str)])
    return [it for it in found if not isinstance(it, str)]


def read_class(row: TableRow, columns: Sequence[str], classes: ClassSet) -> tuple[int, ...] | str:
    """The number of a row's class, or what is wrong with it."""
    value = row.labels[columns[0]]
    name = value if value in classes.names else whole_number(value)
    if name in classes.names:
        return (classes.names.index(name),)
    wanted = listed(classes.names, FEW_NAMES)
    if not value:
        return f"line {row.line}: {columns[0]} is empty; give one of {wanted}, or take the row out"
    return f"line {row.line}: {columns[0]} is '{value}'; expected one of {wanted}"


def read_findings(row: TableRow, columns: Sequence[str], classes: ClassSet) -> tuple[int, ...] | str:
    """0, 1 or UNKNOWN for each finding of a row, or what is wrong with it."""
    for column in columns:
        if row.labels[column] not in FINDING_LABELS:
            return (
                f"line {row.line}: {column} is '{row.labels[column]}'; expected 0, 1 or empty (unknown); a table of "
                f"classes has one column of labels, and {CLASSES_JSON} says which columns are findings"
            )
    labels = tuple(FINDING_LABELS[row.labels[column]] for column in columns)
    if set(labels) == {UNKNOWN}:
        return f"line {row.line}: no finding is known, all {len(columns)} are empty; fill one in or take the row out"
    return labels


def require_different(found: LabelledStudies) -> None:
    """Refuse studies of one class only, of whom nothing can be learned: all of them, or those that train.

    Raises:
        InputError: names the split.
    """
    where = found.folder / LABELS_CSV
    if found.has_splits and not found.of("train"):
        raise InputError(f"{where}: no row has the split train; nothing could be learned")
    studies = found.of("train") if found.has_splits else found.studies
    which = "training study" if found.has_splits else "study"
    if all(map(knows_one_value, np.array([study.labels for study in studies]).T)):
        label = found.classes.names[studies[0].labels[0]] if found.classes.is_exclusive else studies[0].labels
        raise InputError(f"{where}: every {which} has the label {label}; expected at least two different")


def labels_by_split(found: LabelledStudies) -> dict[SplitName | None, np.ndarray]:
    """Labels (N, L) of each split that has studies, in their order; of all where there are no splits."""
    splits: tuple[SplitName | None, ...] = SPLIT_NAMES if found.has_splits else (None,)
    return {split: np.array([it.labels for it in studies]) for split in splits if (studies := found.of(split))}


def warn_missing(where: object, classes: ClassSet, labels: Mapping[SplitName | None, np.ndarray]) -> None:
    """Say which classes or findings a split cannot teach or score.

    Args:
        where: the file that tells labels.
        labels: (N, L) by split.
    """
    seen = set(np.concatenate([rows[:, 0] for rows in labels.values()]).tolist())
    unseen = [name for number, name in enumerate(classes.names) if classes.is_exclusive and number not in seen]
    if unseen:
        log.warning("%s: %s cannot be learned: no study at all", where, listed(unseen, FEW_NAMES))
    for split, rows in labels.items():
        if classes.is_exclusive:
            here = {classes.names[number] for number in rows[:, 0].tolist()}
            missing = [name for name in classes.names if name not in here and name not in unseen]
        else:
            missing = [name for name, column in zip(classes.names, rows.T, strict=True) if knows_one_value(column)]
        if not missing:
            continue
        names = listed(missing, FEW_NAMES)
        if split in (None, "train"):
            which = "study" if split is None else "training study"
            lack = f"no {which}" if classes.is_exclusive else f"every {which} has the same value"
            log.warning("%s: %s cannot be learned: %s", where, names, lack)
        else:
            why = "no study" if classes.is_exclusive else "only one value"
            log.warning("%s: split %s has %s of %s: its AUC is not defined there", where, split, why, names)


def warn_rare(where: object, found: LabelledStudies) -> None:
    """Say which classes a single study or patient has: it may be a slip, and nothing can be both learned and scored."""
    if not found.classes.is_exclusive:
        return
    studies, patients = [], []
    for number, name in enumerate(found.classes.names):
        own = [study for study in found.studies if study.labels[0] == number]
        if len(own) == 1:
            studies.append(f"{name} ({own[0].name})")
        elif len({study.patient for study in own}) == 1:
            patients.append(f"{name} ({own[0].patient})")
    for what, rare in (("study", studies), ("patient", patients)):
        if rare:
            told = listed(rare, FEW_NAMES)
            log.warning(
                "%s: a single %s has the class %s; are these names spelled as they should be?", where, what, told
            )


def knows_one_value(column: np.ndarray) -> bool:
    """True if all that is known of a finding, (N,), is the same."""
    return len(set(column.tolist()) - {UNKNOWN}) < 2
