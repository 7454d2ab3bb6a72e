"""Finding the trained model that a command means."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .dataset import is_named
from .errors import InputError
from .model import MODEL_JSON, read_model_record

log = logging.getLogger("spadunet")


def find_models(results: Path) -> list[Path]:
    """All model folders below a results folder, the one made last at the end."""
    found = results.rglob(MODEL_JSON) if results.is_dir() else []
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def find_model(results: Path, *, dataset: str | None, fold: str | None, may_classify: bool = False) -> Path:
    """The model made last, of a dataset and fold where they are given.

    Args:
        dataset: name, number or `DatasetNNN_Name`; a model that was trained on several serves each of them.
        may_classify: tasks that classify count, too.

    Raises:
        InputError: if there is none; lists what there is.
    """
    models = find_models(results)
    fitting = [
        folder
        for folder in models
        if (fold is None or folder.name == f"fold_{fold}") and serves(folder, dataset, may_classify=may_classify)
    ]
    if fitting:
        return fitting[-1]
    wanted = " ".join(f"{flag} {value}" for flag, value in (("-d", dataset), ("-f", fold)) if value)
    there = ", ".join(
        str(folder.relative_to(results)) for folder in models if serves(folder, None, may_classify=may_classify)
    )
    raise InputError(
        f"{wanted or 'model'}: no trained model fits; models in {results}: {there or 'none'}; train one or give -m"
    )


def serves(folder: Path, dataset: str | None, *, may_classify: bool = False) -> bool:
    """True if a model has a task of that name, or any task where none is named.

    Args:
        may_classify: tasks that classify count, too.

    A model that cannot be read is told and passed over, but not where simply the last one is meant.
    """
    try:
        record = read_model_record(folder)
    except InputError as error:
        if dataset is None:
            return True
        log.warning("passed over: %s", error)
        return False
    names = record.all_tasks if may_classify else record.tasks
    return bool(names) if dataset is None else named(names, dataset) is not None


def named(names: Sequence[str], dataset: str) -> str | None:
    """The one of a model's tasks that a dataset's name, number or path means, or None."""
    path = Path(dataset)
    name = path.stem if path.suffix.lower() == ".npz" else path.name or dataset
    return next((task for task in names if is_named(task, name)), None)


def is_classifier(folder: Path, dataset: str | None) -> bool:
    """Whether what is to be predicted of a model are classes: of the named task, or of all that it has."""
    record = read_model_record(folder)
    if dataset is None:
        return bool(record.classifiers) and not record.tasks
    return named(record.tasks, dataset) is None and named(record.classifiers, dataset) is not None


def choose_classifier(folder: Path, dataset: str | None) -> str:
    """The task of a model that classifies.

    Raises:
        InputError: if the model has several and none is named, or none of that name, or none at all.
    """
    record = read_model_record(folder)
    tasks = ", ".join(record.classifiers)
    if not tasks:
        raise InputError(f"{folder}: classifies nothing (its tasks: {', '.join(record.tasks) or 'none'}); give another")
    if dataset is None and len(record.classifiers) > 1:
        raise InputError(f"{folder}: the model classifies several datasets ({tasks}); say which with -d")
    task = record.classifiers[0] if dataset is None else named(record.classifiers, dataset)
    if task is None:
        raise InputError(f"-d {dataset}: the model {folder} classifies {tasks}; give one of these")
    return task


def choose_task(folder: Path, dataset: str | None) -> str:
    """The task of a model to predict.

    Raises:
        InputError: if the model has several and none is named, or none of that name, or none at all.
    """
    record = read_model_record(folder)
    if not record.tasks and record.classifiers:
        raise InputError(f"{folder}: classifies whole studies ({', '.join(record.classifiers)}) and segments nothing")
    if not record.tasks:
        raise InputError(
            f"{folder}: a pre-trained backbone, which has learned no labels; "
            f"fine-tune it with spadunet_train -d DATASET --init {folder}"
        )
    tasks = ", ".join(record.tasks)
    if dataset is None:
        if len(record.tasks) > 1:
            raise InputError(f"{folder}: the model serves several datasets ({tasks}); say which with -d")
        return record.tasks[0]
    task = named(record.tasks, dataset)
    if task is None:
        raise InputError(f"-d {dataset}: the model {folder} serves {tasks}; give one of these")
    return task
