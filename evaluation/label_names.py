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
from ..parallel import map_cases
from ..record import first_problem, read_record
from ..sizes import count_values
from ..workers import THIS_PROCESS, Workers
from .checks import BYTES_TO_SCORE
from .pairs import label_files, tell

LABELS_JSON = "labels.json"
"""Written by `spadunet_predict` beside its predictions: a LabelSet."""

DOCUMENT = TypeAdapter(dict[str, object])

logger = logging.getLogger(__name__)


def labels_for(
    prediction_folders: Sequence[Path],
    reference_folder: Path,
    description: Path | None = None,
    *,
    protocol: LabelSet | None = None,
    workers: Workers = THIS_PROCESS,
    problems: list[str] | None = None,
) -> LabelSet | None:
    """The labels to score, as `find_labels`; else the ids that the references hold, named by their number.

    Args:
        workers: who reads the references.

    Returns:
        None only where problems leave none.

    Raises:
        InputError: if a file is damaged, or if there is none and the references hold no label.
    """
    found = [] if problems is None else problems
    num_before = len(found)
    labels = find_labels(prediction_folders, reference_folder, description, protocol=protocol, problems=problems)
    if labels or len(found) > num_before:
        return labels
    paths = label_files(reference_folder, problems).values()
    return labels_of(reference_folder, paths, workers=workers, problems=problems)


def find_labels(
    prediction_folders: Sequence[Path],
    reference_folder: Path,
    description: Path | None = None,
    *,
    protocol: LabelSet | None = None,
    problems: list[str] | None = None,
) -> LabelSet | None:
    """The labels to score, from the first of these that there is; logs which. None where only references could tell.

    `description`, if given; the protocol's; labels.json beside any predictions; dataset.json beside the reference
    folder, as nnU-Net's raw folders have it. Without `description`, all of them must agree.

    Args:
        problems: as `tell` takes them.

    Raises:
        InputError: if a file is damaged; or files name labels differently.
    """
    beside = [folder / LABELS_JSON for folder in dict.fromkeys(prediction_folders)]
    beside.append(reference_folder.resolve().parent / DATASET_JSON)
    paths = [description] if description else [path for path in beside if path.is_file()]
    stated = [("the protocol", protocol)] if protocol and not description else []
    if not stated and not paths:
        logger.warning("no %s found: classes are called by their ids in the references", " nor ".join(map(str, beside)))
    for path in paths:
        try:
            stated.append((str(path), read_labels(path)))
        except InputError as error:
            tell(str(error), problems)
    for problem in name_problems(stated):
        tell(problem, problems)
    if not stated:
        return None
    logger.info("labels from %s", stated[0][0])
    return stated[0][1]


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


def annotated_in(
    reference_folder: Path, description: Path | None = None, problems: list[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """By case, the classes or regions that were annotated where not all, as a dataset.json says.

    `description`, if given and a dataset.json; else that beside the reference folder; else of no case.

    Args:
        problems: as `tell` takes them.

    Raises:
        InputError: if the file is damaged.
    """
    path = description or reference_folder.resolve().parent / DATASET_JSON
    if not path.is_file() or is_label_set(path):
        return {}
    try:
        return read_record(path, DatasetDescription, remedy="give a dataset.json").labelled_classes
    except InputError as error:
        tell(str(error), problems)
        return {}


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


def labels_of(
    folder: Path, paths: Iterable[Path], *, workers: Workers = THIS_PROCESS, problems: list[str] | None = None
) -> LabelSet | None:
    """The ids that some label maps of a folder hold, each named by its number; of bad files, none.

    Args:
        workers: who reads them.
        problems: as `tell` takes them.

    Returns:
        None only where problems leave none.

    Raises:
        InputError: with all that cannot be read or holds negative values; or if there is no label.
    """
    ids: set[int] = set()
    wrong = []
    for outcome in map_cases(
        label_ids, list(paths), title="Looking for labels", workers=workers, memory_of=memory_to_read
    ):
        ids.update(outcome.result or ())
        wrong += [outcome.problem] if outcome.problem else []
    if wrong:
        tell("\n".join(sorted(wrong)), problems)
    ids.discard(0)
    if not ids:
        if not wrong:
            tell(f"{folder}: no reference holds a label but background (0); name the labels with --labels", problems)
        return None
    return LabelSet(names=(BACKGROUND, *map(str, sorted(ids))), ids=(0, *sorted(ids)))


def label_ids(path: Path) -> list[int]:
    """The ids that a label map holds.

    Raises:
        InputError: if it cannot be read, or holds negative values.
    """
    found = ids_in(read_label_map(path).array)
    if found[0] < 0:
        raise InputError(f"{path}: holds the label value {found[0]}; labels are 0 (background) and above")
    return found


def memory_to_read(path: Path) -> int:
    """Bytes that looking for ids takes at its peak, from the header."""
    return count_values((path,)) * BYTES_TO_SCORE
