"""What is right for each study: references of classification, and their predictions beside them.

Letters: N studies, K classes or findings, L numbers that a label has (`ClassSet.num_labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..class_predictions import ClassPredictions
from ..classes import UNKNOWN, ClassSet
from ..csv_table import MAX_TOLD, require_none
from ..errors import InputError, listed
from ..formats import IMAGE_ENDINGS, strip_ending
from ..medmnist import MedMNIST
from ..record import read_record
from ..study import SPLIT_NAMES, SplitName
from ..study_classes import CLASSES_JSON, labels_of_rows
from ..study_images import IMAGE_FOLDERS, StudyImages, find_study_images
from ..study_labels import check_same, find_patients, read_split, rows_of_studies
from ..study_table import IMAGE, LABELS_CSV, STUDY, LabelTable, TableRow, read_table

TEST: SplitName = "test"
"""The split that is scored unless another one is asked for, where there is one."""


@dataclass(frozen=True, kw_only=True)
class ClassReferences:
    """Labels of the studies that are to be scored."""

    classes: ClassSet
    studies: tuple[str, ...]
    """Names, none twice."""
    labels: np.ndarray
    """Int (N, L), `UNKNOWN` where nobody knows."""
    patients: tuple[str, ...]
    """Whose study each is."""
    elsewhere: frozenset[str] = frozenset()
    """Studies of other splits."""


def labels_file(path: Path) -> Path:
    """The file with the labels: itself, or of a folder its labels.csv."""
    return path / LABELS_CSV if path.is_dir() else path


def is_medmnist(path: Path) -> bool:
    """Whether labels are those of a MedMNIST file."""
    return path.suffix.lower() == ".npz"


def find_classes(predictions: Path, references: Path, given: Path | None = None) -> tuple[ClassSet | None, Path | None]:
    """The classes that a file tells, and this file: the given one, else classes.json beside references or predictions.

    A MedMNIST file has its own classes; a classes.json beside it is not of it.

    Raises:
        InputError: if it cannot be read, or the two differ and none is given.
    """
    remedy = f"give a {CLASSES_JSON} with kind and names"
    if given is not None:
        return read_record(given, ClassSet, remedy=remedy), given
    beside = [predictions] if is_medmnist(references) else [references, predictions]
    there = [path for it in beside if (path := it.parent / CLASSES_JSON).is_file()]
    found = [read_record(path, ClassSet, remedy=remedy) for path in there]
    if not found:
        return None, None
    if found[0] != found[-1]:
        raise InputError(f"{there[0]} and {there[-1]} differ; choose one with --labels FILE")
    return found[0], there[0]


def read_references(
    path: Path, split: str | None = None, *, classes: ClassSet | None = None, predicted: Sequence[str] = ()
) -> ClassReferences:
    """Read a table of labels as training does, but for two things: studies may be named without images, and a label
    that is not there is unknown.

    Args:
        split: whose studies are scored; None for the test split if there is one, else for all.
        classes: their kind, names and order, where a file tells.
        predicted: else names and order are those of the predictions.

    Raises:
        InputError: tells the first problems, a line each.
    """
    table = read_table(path, names=(STUDY, IMAGE))
    images = images_beside(table)
    names = [name_of(row, images) for row in table.rows]
    table.refuse(
        [
            f"line {row.line}: no name of the study; fill in the column {STUDY if table.has(STUDY) else IMAGE}"
            for row, name in zip(table.rows, names, strict=True)
            if not (row.keys.get(STUDY) or name)
        ]
    )
    classes = classes or guess_classes(path, table.label_columns, predicted)
    lines = rows_of_studies(table, names)
    labels = labels_of_rows(table, classes, may_be_unknown=True)
    check_same(table, lines, labels)
    splits = {study: read_split(table.rows[numbers[0]]) for study, numbers in lines.items()}
    patients = find_patients(table, lines, names, images.patients if images else {})
    there = set(splits.values())
    wanted = split or (TEST if TEST in there else None)
    if wanted and wanted not in there:
        found = listed([it for it in SPLIT_NAMES if it in there], MAX_TOLD) or "none"
        raise InputError(f"{path}: no study of the split {wanted!r}, only {found}; choose another --split")
    chosen = [study for study in lines if not wanted or splits[study] == wanted]
    numbers = np.array([labels[lines[study][0]] for study in chosen], dtype=np.int64)  # (N, L)
    if (numbers == UNKNOWN).all():
        raise InputError(f"{path}: no study has a label; fill in the column {', '.join(table.label_columns)}")
    return ClassReferences(
        classes=classes,
        studies=tuple(chosen),
        labels=numbers,
        patients=tuple(patients[study] for study in chosen),
        elsewhere=frozenset(lines) - frozenset(chosen),
    )


def images_beside(table: LabelTable) -> StudyImages | None:
    """The images that a table lies beside and names; None where there are none, or it names studies alone."""
    folder = table.path.parent
    has_images = any((folder / name).is_dir() for name in IMAGE_FOLDERS)
    return find_study_images(folder) if table.has(IMAGE) and has_images else None


def name_of(row: TableRow, images: StudyImages | None) -> str:
    """What a row's image is called: as training calls it where it is there, else its file without the ending."""
    text = row.keys.get(IMAGE, "")
    view = images.find(text) if images else None
    return view.name if view else strip_ending(Path(text), IMAGE_ENDINGS) if text else ""


def medmnist_references(
    dataset: MedMNIST, split: str | None = None, *, classes: ClassSet | None = None, source: Path | None = None
) -> ClassReferences:
    """Labels of one split of a MedMNIST file, by default of its test split; each image is of a patient of its own.

    Args:
        classes: what they are called, where another file tells.
        source: this file.

    Raises:
        InputError: if there is no such split, or these are classes of another kind or number.
    """
    its = dataset.classes
    if classes and (classes.is_exclusive, classes.num_outputs) != (its.is_exclusive, its.num_outputs):
        raise InputError(
            f"{source}: {classes.num_outputs} names, {classes.kind}; {dataset.path} has {its.num_outputs}, {its.kind}: "
            "give the predictions of this dataset"
        )
    chosen = next((it for it in SPLIT_NAMES if it == (split or TEST)), None)
    if chosen is None:
        raise InputError(
            f"{dataset.path}: no study of the split {split!r}, only {', '.join(SPLIT_NAMES)}; choose another --split"
        )
    names = {it: tuple(map(partial(dataset.study_name, it), range(len(rows)))) for it, rows in dataset.labels.items()}
    return ClassReferences(
        classes=classes or its,
        studies=names[chosen],
        labels=dataset.labels[chosen],
        patients=names[chosen],
        elsewhere=frozenset(name for it, found in names.items() if it != chosen for name in found),
    )


def guess_classes(path: Path, columns: Sequence[str], predicted: Sequence[str]) -> ClassSet:
    """Classes where no file tells them: the predictions' in their order, of the kind that the references' columns show.

    Raises:
        InputError: if the column of the references holds classes, and the predictions are of one finding.
    """
    if len(columns) > 1 or tuple(columns) == tuple(predicted):
        names = predicted if set(predicted) == set(columns) else columns
        return ClassSet(kind="multi-label", names=tuple(names))
    if len(predicted) < 2:
        raise InputError(
            f"{path}: line 1: one column of labels, {columns[0]}, which holds classes; the predictions have "
            f"probabilities of {', '.join(predicted)} alone; predict every class, or give this column a finding's name"
        )
    return ClassSet(kind="binary" if len(predicted) == 2 else "multi-class", names=tuple(predicted))


def match(
    references: ClassReferences, predictions: ClassPredictions, *, source: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Probabilities (N, K) in the order of the references, and names of studies that no reference is of.

    These are left out, as label maps without a reference are, and so are predictions of other splits.

    Args:
        source: file of the predictions.

    Raises:
        InputError: tells which studies lack a prediction, and which predictions are of no study.
    """
    place_of = {study: place for place, study in enumerate(predictions.studies)}
    missing = [study for study in references.studies if study not in place_of]
    known = references.elsewhere | set(references.studies)
    unknown = tuple(study for study in predictions.studies if study not in known)
    problems = []
    if missing:
        problems.append(
            f"{source}: no prediction of {listed(missing, MAX_TOLD)}; predict them, or choose the predicted --split"
        )
        if unknown:
            problems.append(f"{source}: no reference of {listed(unknown, MAX_TOLD)}; is a study called otherwise?")
    require_none(problems)
    return predictions.probabilities[[place_of[study] for study in references.studies]], unknown
