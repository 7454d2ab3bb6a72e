"""What is right for each study: references of classification, and their predictions beside them.

Letters: N studies, K classes or findings, L numbers that a label has (`ClassSet.num_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..class_predictions import STUDY, ClassPredictions
from ..classes import UNKNOWN, ClassSet
from ..csv_table import MAX_TOLD, CsvTable, read_csv, require_column, require_none
from ..errors import InputError, listed
from ..formats import IMAGE_ENDINGS, strip_ending
from ..record import read_record

IMAGE, PATIENT, SPLIT = "image", "patient", "split"
NOT_LABELS = (IMAGE, STUDY, PATIENT, SPLIT)
TEST = "test"
"""The split that is scored unless another one is asked for, where there is one."""
LABELS_CSV, CLASSES_JSON = "labels.csv", "classes.json"
FINDINGS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": UNKNOWN}


@dataclass(frozen=True, kw_only=True)
class ClassReferences:
    """Labels of the studies that are to be scored."""

    classes: ClassSet
    studies: tuple[str, ...]
    """Names, none twice."""
    labels: np.ndarray
    """Int (N, L), `UNKNOWN` where nobody knows."""
    patients: tuple[str, ...]
    """Whose study each is; of unknown patients, each is one of its own."""
    elsewhere: frozenset[str] = frozenset()
    """Studies of other splits."""


def labels_file(path: Path) -> Path:
    """The file with the labels: itself, or of a folder its labels.csv."""
    return path / LABELS_CSV if path.is_dir() else path


def find_classes(predictions: Path, references: Path, given: Path | None = None) -> tuple[ClassSet | None, Path | None]:
    """The classes that a file tells, and this file: the given one, else classes.json beside references or predictions.

    Raises:
        InputError: if it cannot be read, or the two differ and none is given.
    """
    remedy = f"give a {CLASSES_JSON} with kind and names"
    if given is not None:
        return read_record(given, ClassSet, remedy=remedy), given
    there = [path for it in (references, predictions) if (path := it.parent / CLASSES_JSON).is_file()]
    found = [read_record(path, ClassSet, remedy=remedy) for path in there]
    if not found:
        return None, None
    if found[0] != found[-1]:
        raise InputError(f"{there[0]} and {there[-1]} differ; choose one with --labels FILE")
    return found[0], there[0]


def read_references(
    path: Path, split: str | None = None, *, classes: ClassSet | None = None, predicted: Sequence[str] = ()
) -> ClassReferences:
    """Read a CSV of labels: columns study (or image), the labels, and if known patient and split.

    One column of labels holds classes by name; several hold findings, 1 or 0 in each. An empty cell is unknown. Rows of
    one study, its views, must agree.

    Args:
        split: whose studies are scored; None for the test split if there is one, else for all.
        classes: their kind, names and order, where a file tells.
        predicted: else names and order are those of the predictions.

    Raises:
        InputError: tells the first problems, a line each.
    """
    table = read_csv(path, remedy="give the references as a CSV with the columns study and label")
    key = require_column(table, STUDY, IMAGE)
    studies = [strip_ending(Path(it), IMAGE_ENDINGS) if key == IMAGE else it for it in table.column(key)]
    columns = [name for name in table.columns if name not in NOT_LABELS]
    classes = classes or guess_classes(path, columns, predicted)
    labels = labels_in(table, columns, classes)
    patients = table.column(PATIENT) if PATIENT in table.columns else [""] * len(studies)
    splits = table.column(SPLIT) if SPLIT in table.columns else [""] * len(studies)
    split = split or (TEST if TEST in splits else None)
    if split and split not in splits:
        there = listed(sorted(set(splits) - {""}), MAX_TOLD) or "none"
        raise InputError(f"{path}: no study of the split {split!r}, only {there}; choose another --split")
    first: dict[str, int] = {}
    problems = []
    for place, (line, study) in enumerate(zip(table.lines, studies, strict=True)):
        if not study:
            problems.append(f"{path}: line {line}: no name of the study; fill in the column {key}")
            continue
        earlier = first.setdefault(study, place)
        one, other = ((*labels[it], patients[it], splits[it]) for it in (place, earlier))
        if one != other:
            problems.append(
                f"{path}: line {line}: study {study} has another label, patient or split in line "
                f"{table.lines[earlier]}; correct one of them"
            )
    require_none(problems)
    chosen = {study: place for study, place in first.items() if not split or splits[place] == split}
    found = labels[list(chosen.values())]
    if (found == UNKNOWN).all():
        raise InputError(f"{path}: no study has a label; fill in the column {', '.join(columns)}")
    return ClassReferences(
        classes=classes,
        studies=tuple(chosen),
        labels=found,
        patients=tuple(patients[place] or f"study {study}" for study, place in chosen.items()),
        elsewhere=frozenset(first) - frozenset(chosen),
    )


def guess_classes(path: Path, columns: Sequence[str], predicted: Sequence[str]) -> ClassSet:
    """Classes where no file tells them: the predictions' in their order, of the kind that the references' columns show.

    Raises:
        InputError: if there is no column of labels.
    """
    if not columns:
        raise InputError(f"{path}: line 1: no column of labels; add one with the class, or one a finding")
    if len(columns) > 1 or tuple(columns) == tuple(predicted):
        names = predicted if set(predicted) == set(columns) else columns
        return ClassSet(kind="multi-label", names=tuple(names))
    if len(predicted) < 2:
        raise InputError(
            f"{path}: line 1: one column of labels, {columns[0]}, which holds classes; the predictions have "
            f"probabilities of {', '.join(predicted)} alone; predict every class, or give this column a finding's name"
        )
    return ClassSet(kind="binary" if len(predicted) == 2 else "multi-class", names=tuple(predicted))


def labels_in(table: CsvTable, columns: Sequence[str], classes: ClassSet) -> np.ndarray:
    """Labels of all rows, int (rows, L).

    Raises:
        InputError: tells the first cells that hold no class or finding, a line each.
    """
    if classes.is_exclusive:
        if len(columns) != 1:
            found = ", ".join(columns) or "none"
            raise InputError(
                f"{table.path}: line 1: expected one column of labels for {classes.kind} classes, found {found}"
            )
        known = {name: place for place, name in enumerate(classes.names)} | {"": UNKNOWN}
        wanted, used = f"none of {listed(classes.names, MAX_TOLD)}", columns
    else:
        for name in classes.names:
            require_column(table, name)
        known, wanted, used = FINDINGS, "neither 0 nor 1", classes.names
    cells = [table.column(name) for name in used]
    problems = [
        f"{table.path}: line {line}: {name} is {cell!r}, {wanted}; correct it, or leave it empty if it is not known"
        for line, *row in zip(table.lines, *cells, strict=True)
        for name, cell in zip(used, row, strict=True)
        if cell not in known
    ]
    require_none(problems)
    return np.array([[known[cell] for cell in column] for column in cells], dtype=np.int64).T  # (rows, L)


def match(references: ClassReferences, predictions: ClassPredictions, *, source: Path) -> np.ndarray:
    """Probabilities (N, K) in the order of the references; predictions of other splits are left out.

    Args:
        source: file of the predictions.

    Raises:
        InputError: tells which studies lack a prediction, and which predictions are of no study.
    """
    place_of = {study: place for place, study in enumerate(predictions.studies)}
    missing = [study for study in references.studies if study not in place_of]
    known = references.elsewhere | set(references.studies)
    unknown = [study for study in predictions.studies if study not in known]
    problems = []
    if missing:
        problems.append(
            f"{source}: no prediction of {listed(missing, MAX_TOLD)}; predict them, or choose the predicted --split"
        )
    if unknown:
        problems.append(
            f"{source}: no reference of {listed(unknown, MAX_TOLD)}; give their labels (empty if not known), or leave "
            "these rows out"
        )
    require_none(problems)
    return predictions.probabilities[[place_of[study] for study in references.studies]]
