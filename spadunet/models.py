"""Finding the trained model that a command means."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from .dataset import is_named
from .errors import InputError
from .model import BACKBONE_FILE, MODEL_JSON, TASK_FILES, read_model_record

log = logging.getLogger("spadunet")


def find_models(results: Path) -> list[Path]:
    """All model folders below a results folder, the one trained last at the end."""
    found = results.rglob(MODEL_JSON) if results.is_dir() else []
    return sorted((path.parent for path in found), key=time_trained)


def time_trained(folder: Path, task: str | None = None) -> int:
    """When a model's backbone, or one of its tasks, was written, in nanoseconds.

    Not when model.json was, which is written anew whenever a task joins or something is chosen for one; only where the
    weights are missing.
    """
    weights = folder / (BACKBONE_FILE if task is None else f"tasks/{task}/{TASK_FILES[1]}")
    return (weights if weights.is_file() else folder / MODEL_JSON).stat().st_mtime_ns


def find_model(results: Path, *, dataset: str | None, fold: str | None, may_classify: bool = False) -> Path:
    """The model trained last, of a dataset and fold where they are given: of a dataset, the task that was.

    Args:
        dataset: name, number or `DatasetNNN_Name`; a model that was trained on several serves each of them.
        may_classify: tasks that classify count, too.

    Raises:
        InputError: if there is none (lists what there is), or it may mean tasks of several names.
    """
    models = find_models(results)
    fitting = [folder for folder in models if fold is None or folder.name == f"fold_{fold}"]
    if dataset is None:
        fitting = [folder for folder in fitting if may_serve(folder, may_classify=may_classify)]
    else:
        served = {folder: readable_tasks(folder, may_classify=may_classify) for folder in fitting}
        known = dict.fromkeys(task for tasks in served.values() for task in tasks)
        task = find_task(list(known), dataset, asked=f"-d {dataset}", place=results)
        fitting = [folder for folder, tasks in served.items() if task in tasks]
        fitting.sort(key=lambda folder: time_trained(folder, task))
    if fitting:
        return fitting[-1]
    wanted = " ".join(f"{flag} {value}" for flag, value in (("-d", dataset), ("-f", fold)) if value)
    there = ", ".join(
        str(folder.relative_to(results)) for folder in models if may_serve(folder, may_classify=may_classify)
    )
    raise InputError(
        f"{wanted or 'model'}: no trained model fits; models in {results}: {there or 'none'}; train one or give -m"
    )


def may_serve(folder: Path, *, may_classify: bool) -> bool:
    """True if a model has any task, or cannot be read: where simply the last one is meant, it is not passed over."""
    try:
        return bool(tasks_of(folder, may_classify=may_classify))
    except InputError:
        return True


def readable_tasks(folder: Path, *, may_classify: bool) -> tuple[str, ...]:
    """Tasks of a model; a model that cannot be read is told and has none."""
    try:
        return tasks_of(folder, may_classify=may_classify)
    except InputError as error:
        log.warning("passed over: %s", error)
        return ()


def tasks_of(folder: Path, *, may_classify: bool) -> tuple[str, ...]:
    """Of a model, those that segment, or those that classify, too.

    Raises:
        InputError: if its model.json is missing or damaged.
    """
    record = read_model_record(folder)
    return record.all_tasks if may_classify else record.tasks


def find_task(names: Sequence[str], word: str, *, asked: str, place: Path) -> str | None:
    """The one task that a name, number or path means, or None: the one of that very name, else the one that fits.

    Args:
        names: of the tasks.
        asked: the word as the user gave it, such as `-d 4`.
        place: the model, or the folder of models, that has them.

    Raises:
        InputError: if several fit; names them.
    """
    path = Path(word)
    name = path.stem if path.suffix.lower() == ".npz" else path.name or word
    fitting = [name] if name in names else [task for task in names if is_named(task, name)]
    if len(fitting) > 1:
        raise InputError(f"{asked}: fits several tasks of {place}: {', '.join(fitting)}; give the whole name")
    return fitting[0] if fitting else None


def is_classifier(folder: Path, dataset: str | None) -> bool:
    """Whether what is to be predicted of a model are classes: of the named task, or of all that it has.

    Raises:
        InputError: if the name fits several tasks.
    """
    record = read_model_record(folder)
    if dataset is None:
        return bool(record.classifiers) and not record.tasks
    return find_task(record.all_tasks, dataset, asked=f"-d {dataset}", place=folder) in record.classifiers


def choose_classifier(folder: Path, dataset: str | None) -> str:
    """The task of a model that classifies.

    Raises:
        InputError: if the model has several and none is named, several or none of that name, or none at all.
    """
    record = read_model_record(folder)
    tasks = ", ".join(record.classifiers)
    if not tasks:
        raise InputError(f"{folder}: classifies nothing (its tasks: {', '.join(record.tasks) or 'none'}); give another")
    if dataset is None and len(record.classifiers) > 1:
        raise InputError(f"{folder}: the model classifies several datasets ({tasks}); say which with -d")
    if dataset is None:
        return record.classifiers[0]
    task = find_task(record.classifiers, dataset, asked=f"-d {dataset}", place=folder)
    if task is None:
        raise InputError(f"-d {dataset}: the model {folder} classifies {tasks}; give one of these")
    return task


def choose_task(folder: Path, dataset: str | None) -> str:
    """The task of a model to predict.

    Raises:
        InputError: if the model has several and none is named, several or none of that name, or none at all.
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
    task = find_task(record.tasks, dataset, asked=f"-d {dataset}", place=folder)
    if task is None:
        raise InputError(f"-d {dataset}: the model {folder} serves {tasks}; give one of these")
    return task
