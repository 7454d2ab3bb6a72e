"""A model folder changed in place: tasks come and go, post-processing and calibration are set, never half."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from .errors import InputError, OutputError
from .files import atomic_path, sha256_of_file
from .locks import held
from .model import (
    ADDED,
    BACKBONE_FILE,
    MODEL_JSON,
    POSTPROCESSING_FILE,
    QUALITY_FILE,
    TASK_FILES,
    ModelRecord,
    check_files,
    extra_file,
    read_model_record,
    write_task,
)
from .postprocessing import Postprocessing
from .quality import Calibration
from .record import Record, write_record
from .task import AnyTask, Classifier, Task
from .tensors import read_tensors


def set_postprocessing(folder: Path, name: str, postprocessing: Postprocessing | None) -> None:
    """Give a model's task its post-processing, as `set_extra`."""
    set_extra(folder, extra_file(name, POSTPROCESSING_FILE), postprocessing)


def set_calibration(folder: Path, name: str, calibration: Calibration | None) -> None:
    """Tell what Dice to expect of a model's task, as `set_extra`."""
    set_extra(folder, extra_file(name, QUALITY_FILE), calibration)


def set_extra(folder: Path, file: Path, document: Record | None) -> None:
    """Give a model one of EXTRAS, instead of what it had; None takes it away.

    Whenever it is interrupted, the model is valid: with what it had, with none, or with the new one.

    Raises:
        InputError: if a file of the model is missing or was changed.
    """
    with held(folder):
        record = check_files(folder)
        others = {path: digest for path, digest in record.sha256.items() if path != file.as_posix()}
        write_record(folder / MODEL_JSON, record.model_copy(update={"sha256": others}))
        (folder / file).unlink(missing_ok=True)
        if document is not None:
            write_record(folder / file, document)
            listed = others | {file.as_posix(): sha256_of_file(folder / file)}
            write_record(folder / MODEL_JSON, record.model_copy(update={"sha256": listed}))


def add_tasks(
    source: Path, folder: Path, tasks: Mapping[str, AnyTask], provenance: dict[str, str], *, backbone_sha256: str
) -> None:
    """Give a model further tasks, in its own folder or in a new one, to which all else is copied byte for byte.

    Not a byte of the backbone and the tasks that are there changes, and so no output of theirs. model.json comes last:
    until then the source is the model that it was, and a new folder none. Of two runs that add to one model, the second
    waits, and both tasks are kept.

    Args:
        source: model folder that stays as it is, unless it is `folder`.
        provenance: added to what model.json tells.
        backbone_sha256: of the backbone that the tasks were trained on.

    Raises:
        OutputError: if the source has another backbone, which whoever calls has found there before.
        InputError: if a file of the source is missing or was changed, or it has another task of such a name (the same
            task is left as it is).
    """
    with held(source):
        record = check_files(source)
        if record.sha256[BACKBONE_FILE] != backbone_sha256:
            raise OutputError(
                f"{source}: has got another backbone since this run began; start anew, a training with --restart"
            )
        new = {name: task for name, task in tasks.items() if not is_there(source, record, name, task)}
        is_own = source.resolve() == folder.resolve()
        if not is_own:
            (folder / MODEL_JSON).unlink(missing_ok=True)
            for file in record.sha256:
                with atomic_path(folder / file) as partial:
                    shutil.copyfile(source / file, partial)
        written: dict[str, str] = {}
        for name, task in new.items():
            written |= {file.as_posix(): sha256_of_file(folder / file) for file in write_task(folder, name, task)}
        if is_own:
            record = read_model_record(folder)  # once more: where it cannot be held, another run may have added a task
        grown = {
            "tasks": with_new(record.tasks, new, Task),
            "classifiers": with_new(record.classifiers, new, Classifier),
            "provenance": record.provenance | provenance,
            "sha256": record.sha256 | written,
        }
        write_record(folder / MODEL_JSON, ModelRecord(**(dict(record) | grown)))


def remove_task(folder: Path, name: str) -> None:
    """Take a task away; nothing else changes by a byte. Without its last task a model is a pre-trained backbone.

    model.json comes first: whenever it is interrupted, the model is valid, with the task or without it.

    Raises:
        InputError: if a file of the model is missing or was changed, or it has no such task.
    """
    with held(folder):
        record = check_files(folder)
        if name not in record.all_tasks:
            raise InputError(f"{folder}: has no task {name}; its tasks: {', '.join(record.all_tasks) or 'none'}")
        own = f"tasks/{name}/"
        rest = {
            "tasks": tuple(it for it in record.tasks if it != name),
            "classifiers": tuple(it for it in record.classifiers if it != name),
            "provenance": {key: value for key, value in record.provenance.items() if key != f"{ADDED}{name}"},
            "sha256": {path: digest for path, digest in record.sha256.items() if not path.startswith(own)},
        }
        write_record(folder / MODEL_JSON, ModelRecord(**(dict(record) | rest)))
        for path in record.sha256:
            if path.startswith(own):
                (folder / path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            (folder / own).rmdir()


def with_new(names: tuple[str, ...], tasks: Mapping[str, AnyTask], kind: type[AnyTask]) -> tuple[str, ...]:
    """Names of a model's tasks of one kind, and of those of the new ones that are of it."""
    return *names, *(name for name, task in tasks.items() if isinstance(task, kind) and name not in names)


def is_there(folder: Path, record: ModelRecord, name: str, task: AnyTask) -> bool:
    """True if a model has this very task, as an interrupted run left it.

    Raises:
        InputError: if it has another task of the name.
    """
    if name not in record.all_tasks:
        return False
    state = read_tensors(folder / "tasks" / name / TASK_FILES[1])
    is_same = state.keys() == task.state.keys() and all(
        state[key].equal(value.detach().cpu()) for key, value in task.state.items()
    )
    if not is_same:
        raise InputError(
            f"{folder}: has another task {name} already, which is never changed: train it with --init alone"
        )
    return True
