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

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from .errors import InputError
from .files import sha256_of_file
from .locks import held
from .postprocessing import Postprocessing
from .quality import Calibration
from .record import FormatVersion, Record, RecordType, is_unused, read_record, write_record
from .task import AnyTask, AnyTaskRecord, Classifier, ClassifierRecord, Task, TaskRecord
from .tensors import read_tensors, write_tensors

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
