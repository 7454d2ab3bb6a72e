"""The model folder: one backbone, one task per dataset, as safetensors and JSON. No pickle.

A pre-trained backbone is a model without a task; its file may hold a part of the backbone's tensors.

model.json               format version, preset, provenance, SHA-256 of every other file
backbone.safetensors
tasks/<name>/task.json   plan and provenance of the task
tasks/<name>/task.safetensors
tasks/<name>/postprocessing.json   what spadunet_postprocess chose for it, where it did
tasks/<name>/quality.json          what Dice to expect, where spadunet_quality has learned it
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from .errors import InputError, OutputError
from .files import atomic_path, sha256_of_file
from .locks import flock
from .postprocessing import Postprocessing
from .quality import Calibration
from .record import FormatVersion, Record, RecordType, is_unused, read_record, write_record
from .task import AnyTask, AnyTaskRecord, Classifier, ClassifierRecord, Task, TaskRecord

if TYPE_CHECKING:
    from torch import Tensor

MODEL_JSON = "model.json"
TOKENIZER_JSON = "tokenizer.json"
"""Of a tokenizer's folder (pretraining/tokenizer_file.py)."""
BACKBONE_FILE = "backbone.safetensors"
TASK_FILES = ("task.json", "task.safetensors")
POSTPROCESSING_FILE = "postprocessing.json"
QUALITY_FILE = "quality.json"
EXTRAS: dict[str, type[Record]] = {POSTPROCESSING_FILE: Postprocessing, QUALITY_FILE: Calibration}
"""Documents that a task may have; each counts where model.json lists it."""
STATE_FOLDER = "state"
ADDED = "added "
"""Before the name of a task that joined a model, in what the model tells."""


class ModelRecord(Record):
    """model.json: how to build the backbone, where it comes from, and what the files must be."""

    format_version: FormatVersion = 1
    backbone: str
    preset: str
    tasks: tuple[str, ...]
    """Those that segment. Empty for a pre-trained backbone."""
    classifiers: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Tasks that classify whole studies; their names are no others'."""
    provenance: dict[str, str]
    sha256: dict[str, str]
    """By path below the folder."""

    @model_validator(mode="after")
    def check_names(self) -> ModelRecord:
        """A task's name is the name of its folder, never a path that leads out of the model."""
        names = self.all_tasks
        if len(set(names)) < len(names) or any(
            name in ("", ".", "..") or "/" in name or "\\" in name for name in names
        ):
            raise ValueError("tasks and classifiers: expected names of folders in tasks/, each once")
        return self

    @property
    def all_tasks(self) -> tuple[str, ...]:
        """Of every kind."""
        return self.tasks + self.classifiers

    def record_of(self, name: str) -> type[AnyTaskRecord]:
        """What the task.json of one of these is."""
        return TaskRecord if name in self.tasks else ClassifierRecord


@dataclass(frozen=True, kw_only=True)
class Model:
    """A backbone and its tasks by name."""

    backbone: str
    preset: str
    backbone_state: dict[str, Tensor]
    tasks: dict[str, Task]
    """Those that segment."""
    provenance: dict[str, str]
    classifiers: dict[str, Classifier] = field(default_factory=dict)

    @property
    def all_tasks(self) -> dict[str, AnyTask]:
        """Of every kind."""
        return {**self.tasks, **self.classifiers}


def save_model(folder: Path, model: Model) -> None:
    """Write a model folder, model.json last: without it, or with other hashes in it, the folder is no model.

    Whoever adds a task to the model that was there waits, or is waited for.
    """
    with held(folder):
        files = [Path(BACKBONE_FILE)]
        (folder / MODEL_JSON).unlink(missing_ok=True)
        write_tensors(folder / BACKBONE_FILE, model.backbone_state)
        for name, task in model.all_tasks.items():
            files += write_task(folder, name, task)
        record = ModelRecord(
            backbone=model.backbone,
            preset=model.preset,
            tasks=tuple(model.tasks),
            classifiers=tuple(model.classifiers),
            provenance=model.provenance,
            sha256={file.as_posix(): sha256_of_file(folder / file) for file in files},
        )
        write_record(folder / MODEL_JSON, record)


def write_task(folder: Path, name: str, task: AnyTask) -> list[Path]:
    """Write a task's files; their paths below the model folder."""
    files = [Path("tasks") / name / file for file in TASK_FILES]
    write_record(folder / files[0], task.record(name))
    write_tensors(folder / files[1], task.state)
    extras: dict[str, Record | None] = {}
    if isinstance(task, Task):
        extras = {POSTPROCESSING_FILE: task.postprocessing, QUALITY_FILE: task.calibration}
    for file, document in extras.items():
        if document is not None:
            files.append(extra_file(name, file))
            write_record(folder / files[-1], document)
    return files


def extra_file(name: str, file: str) -> Path:
    """One of EXTRAS of a task, below the model folder."""
    return Path("tasks") / name / file


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


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Wait until no other process holds a folder, then hold it; not where the file system has no locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            number = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, number)
            flock(number, waits=True)
        yield


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


def read_model_record(folder: Path) -> ModelRecord:
    """Read model.json.

    Raises:
        InputError: if it is missing or damaged, or of a newer format.
    """
    path = folder / MODEL_JSON
    return read_record(path, ModelRecord, remedy="give a model folder, as spadunet_train writes it")


def model_files(record: ModelRecord) -> set[str]:
    """Every file that a model must have but model.json, and those that it lists of what it may have.

    By their paths below the folder.
    """
    needed = {BACKBONE_FILE} | {f"tasks/{name}/{file}" for name in record.all_tasks for file in TASK_FILES}
    optional = {extra_file(name, file).as_posix() for name in record.tasks for file in EXTRAS}
    return needed | (optional & set(record.sha256))


def digest_of_task(folder: Path, name: str) -> str:
    """SHA-256 of those of all that a task's output depends on: the backbone and the task's own files, as listed.

    Raises:
        InputError: if model.json is missing or damaged.
    """
    listed, task = read_model_record(folder).sha256, f"tasks/{name}/"
    own = {path: digest for path, digest in listed.items() if path == BACKBONE_FILE or path.startswith(task)}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def check_files(folder: Path) -> ModelRecord:
    """model.json, after every file was checked against its hash.

    Raises:
        InputError: if model.json is missing, damaged or newer, or a file is missing or was changed.
    """
    record = read_model_record(folder)
    expected = model_files(record)
    if set(record.sha256) != expected:
        raise InputError(f"{folder / MODEL_JSON}: its sha256 must list exactly {sorted(expected)}; train or copy again")
    for file, digest in record.sha256.items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{path}: model file missing; copy the whole model folder again")
        if sha256_of_file(path) != digest:
            raise InputError(
                f"{path}: does not have the SHA-256 that model.json states: damaged or changed; copy it again"
            )
    return record


def load_model(folder: Path) -> Model:
    """Read a model folder and check every file against its hash.

    Raises:
        InputError: if model.json is missing, damaged or newer, or a file is missing or was changed.
    """
    record, tasks, classifiers = check_files(folder), {}, {}
    for name in record.tasks:
        task = load_task(folder, name, record.sha256, kind=TaskRecord)
        assert isinstance(task, Task)
        tasks[name] = task
    for name in record.classifiers:
        classifier = load_task(folder, name, record.sha256, kind=ClassifierRecord)
        assert isinstance(classifier, Classifier)
        classifiers[name] = classifier
    return Model(
        backbone=record.backbone,
        preset=record.preset,
        backbone_state=read_tensors(folder / BACKBONE_FILE),
        tasks=tasks,
        provenance=record.provenance,
        classifiers=classifiers,
    )


def load_task(folder: Path, name: str, listed: Collection[str], *, kind: type[AnyTaskRecord]) -> AnyTask:
    """Read the files of one task.

    Args:
        listed: paths of files that count, below the folder: of what a task may have, those alone are read.

    Raises:
        InputError: if one is missing or damaged.
    """
    path = folder / "tasks" / name
    record = read_record(path / TASK_FILES[0], kind, remedy="copy the model folder again")
    state = read_tensors(path / TASK_FILES[1])
    if isinstance(record, ClassifierRecord):
        return Classifier(
            plan=record.plan,
            pooling=record.pooling,
            state=state,
            provenance=record.provenance,
            adapter=record.adapter,
        )
    return Task(
        plan=record.plan,
        state=state,
        provenance=record.provenance,
        adapter=record.adapter,
        postprocessing=read_extra(folder, listed, name, POSTPROCESSING_FILE, Postprocessing),
        calibration=read_extra(folder, listed, name, QUALITY_FILE, Calibration),
    )


def read_extra(
    folder: Path, listed: Collection[str], name: str, file: str, kind: type[RecordType]
) -> RecordType | None:
    """One of EXTRAS of a task; None where it is not listed.

    Raises:
        InputError: if it is damaged.
    """
    path = extra_file(name, file)
    if path.as_posix() not in listed:
        return None
    return read_record(folder / path, kind, remedy="copy the model folder again")


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, even where the power is cut.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path, is_durable=True) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # the user's usual one; save_file would keep others from reading
        try:
            save_file(contiguous, partial, metadata)
            partial.chmod(mode)
        except SafetensorError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}); is the disk full or the folder read-only?"
            ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: if it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error
