"""Which names the ids in a folder of label maps have."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..description import DATASET_JSON, DatasetDescription
from ..errors import InputError
from ..image import read_label_map
from ..labels import BACKGROUND, LabelSet, ids_in
from ..record import first_problem, read_record
from .pairs import label_files

LABELS_JSON = "labels.json"
"""Written by `spadunet_predict` beside its predictions: a LabelSet."""

DOCUMENT = TypeAdapter(dict[str, object])

logger = logging.getLogger(__name__)


def labels_for(prediction_folder: Path, reference_folder: Path, description: Path | None = None) -> LabelSet:
    """The labels to score, from the first of these that there is; logs which.

    `description`, if given; labels.json beside the predictions; dataset.json beside the reference folder, as
    nnU-Net's raw folders have it; else the ids that the references hold, named by their number.

    Raises:
        InputError: if the file is damaged, or if there is none and the references hold no label.
    """
    return find_labels(prediction_folder, reference_folder, description) or labels_in(reference_folder)


def find_labels(prediction_folder: Path, reference_folder: Path, description: Path | None = None) -> LabelSet | None:
    """As `labels_for`, but None where only the references could tell."""
    beside = (prediction_folder / LABELS_JSON, reference_folder.resolve().parent / DATASET_JSON)
    path = description or next((path for path in beside if path.is_file()), None)
    if path is None:
        logger.warning("neither %s nor %s found: classes are called by their ids in the references", *beside)
        return None
    logger.info("labels from %s", path)
    return read_labels(path)


def stated_labels(prediction_folder: Path, reference_folder: Path) -> list[tuple[str, LabelSet]]:
    """What labels.json beside the predictions and the references' dataset.json say, as far as they are there.

    Raises:
        InputError: if a file is damaged.
    """
    files = prediction_folder / LABELS_JSON, reference_folder.resolve().parent / DATASET_JSON
    return [(str(path), read_labels(path)) for path in files if path.is_file()]


def name_problems(stated: Sequence[tuple[str, LabelSet]]) -> list[str]:
    """A line for each statement that names labels otherwise than the first, with all names that differ."""
    problems = []
    named = [(source, {it.ids: it.name for it in labels.structures}) for source, labels in stated]
    for source, names in named[1:]:
        first, usual = named[0]
        differ = sorted(ids for ids in {**usual, **names} if usual.get(ids) != names.get(ids))
        if differ:
            told = [
                f"{', '.join(map(str, ids))} is {usual.get(ids, 'nothing')} and {names.get(ids, 'nothing')}"
                for ids in differ
            ]
            problems.append(
                f"{first} and {source}: different label names: {'; '.join(told)}. Correct one of them, or say with "
                "--labels which file is right"
            )
    return problems


def annotated_in(reference_folder: Path, description: Path | None = None) -> dict[str, tuple[str, ...]]:
    """By case, the classes or regions that were annotated where not all, as a dataset.json says.

    `description`, if given and a dataset.json; else that beside the reference folder; else of no case.
    """
    path = description or reference_folder.resolve().parent / DATASET_JSON
    if not path.is_file() or is_label_set(path):
        return {}
    return read_record(path, DatasetDescription, remedy="give a dataset.json").labelled_classes


def is_label_set(path: Path) -> bool:
    """True if a JSON file is a LabelSet, and no dataset.json."""
    try:
        return "names" in DOCUMENT.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return False  # read_record says what is wrong


def read_labels(path: Path) -> LabelSet:
    """Read a dataset.json, or a LabelSet as `spadunet_predict` writes it."""
    remedy = "give a dataset.json"
    if is_label_set(path):
        return read_record(path, LabelSet, remedy=remedy)
    try:
        return read_record(path, DatasetDescription, remedy=remedy).label_set()
    except ValidationError as error:
        raise InputError(f"{path}: field 'labels': {first_problem(error)}") from error


def labels_in(folder: Path) -> LabelSet:
    """The ids that a folder's label maps hold, each named by its number."""
    return labels_of(folder, label_files(folder).values())


def labels_of(folder: Path, paths: Iterable[Path]) -> LabelSet:
    """The ids that some label maps of a folder hold, each named by its number.

    Raises:
        InputError: with all that cannot be read or holds negative values; or if there is no label.
    """
    ids: set[int] = set()
    problems = []
    for path in paths:
        try:
            found = ids_in(read_label_map(path).array)
        except InputError as error:
            problems.append(str(error))
            continue
        if found[0] < 0:
            problems.append(f"{path}: holds the label value {found[0]}; labels are 0 (background) and above")
        ids.update(found)
    if problems:
        raise InputError("\n".join(problems))
    ids.discard(0)
    if not ids:
        raise InputError(f"{folder}: no reference holds a label but background (0); name the labels with --labels")
    return LabelSet(names=(BACKGROUND, *map(str, sorted(ids))), ids=(0, *sorted(ids)))
