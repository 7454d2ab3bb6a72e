"""One task as a file of its own, without the backbone, for any model that has this very backbone.

manifest.json                 as of a model, with the task's name and kind and the backbone's SHA-256
MODEL_CARD.md
tasks/<name>/task.json …      the task's files: see `model`
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from .. import __version__
from ..errors import InputError
from ..files import atomic_path, require_writable
from ..model import (
    ADDED,
    BACKBONE_FILE,
    EXTRAS,
    MODEL_JSON,
    TASK_FILES,
    ModelRecord,
    check_files,
    extra_file,
    load_task,
)
from ..model_changes import add_tasks
from ..record import FormatVersion, Record
from ..task import AnyTask, AnyTaskRecord, ClassifierRecord, TaskRecord
from .archive import Archive, is_plain, open_archive, write_archive
from .card import write_card
from .exporting import ENDING, as_bytes, describe, read_shared, require_new, without_paths
from .fit import misfit_of_task
from .importing import extract
from .package import (
    CARD_FILE,
    MANIFEST_JSON,
    FileRecord,
    check_extras,
    check_files_of,
    check_numbers,
    document,
    tensors_of,
)

WRITER = "spadunet_tasks export"
"""The command that writes such files."""


class TaskManifest(Record):
    """manifest.json of a task."""

    format_version: FormatVersion = 1
    kind: Literal["spadunet task"] = "spadunet task"
    spadunet: str
    """Version that exported it."""
    task: str
    task_kind: Literal["segmentation", "classification"]
    backbone: str
    preset: str
    backbone_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    files: dict[str, FileRecord]
    """By name; all but this one."""


@dataclass(frozen=True, kw_only=True)
class TaskPackage:
    """A task's file in which everything was found sound."""

    manifest: TaskManifest
    record: AnyTaskRecord


def export_task(folder: Path, name: str, path: Path, card: str | None = None, *, dry_run: bool = False) -> TaskManifest:
    """Write one of a model's tasks into one file, whole or not at all; what was written is checked before it is named.

    Args:
        card: Markdown; None for one that is written from the task.
        dry_run: check all of it, the file too, which is made elsewhere and deleted.

    Raises:
        InputError: if the folder is no sound model or has no such task, there is a file of that name, or it cannot be
            written there.
        OutputError: if the disk is full.
    """
    require_new(path, "task", f"{path.stem}.task{ENDING}")
    shared = read_shared(folder)
    require_task(folder, shared.model, name)
    require_writable(path.parent, dry_run=dry_run)
    model = shared.model
    record = shared.tasks[name].model_copy(
        update={"provenance": shared.tasks[name].provenance or without_paths(provenance_of(model.provenance))}
    )
    own = task_files(model, name)
    contents: dict[str, bytes | Path] = {file: folder / file for file in sorted(own)}
    contents[f"tasks/{name}/{TASK_FILES[0]}"] = as_bytes(record)
    alone = model.model_copy(
        update={
            "tasks": tuple(it for it in model.tasks if it == name),
            "classifiers": tuple(it for it in model.classifiers if it == name),
            "provenance": {},
        }
    )
    contents = {CARD_FILE: (card or write_card(name, alone, {name: record}, {})).encode(), **contents}
    manifest = TaskManifest(
        spadunet=__version__,
        task=name,
        task_kind="segmentation" if isinstance(record, TaskRecord) else "classification",
        backbone=model.backbone,
        preset=model.preset,
        backbone_sha256=model.sha256[BACKBONE_FILE],
        files={file: describe(content) for file, content in contents.items()},
    )
    with scratch_path(path.name) if dry_run else atomic_path(path) as partial:
        write_archive(partial, {MANIFEST_JSON: as_bytes(manifest), **contents})
        try:
            with open_archive(partial, WRITER) as archive:
                check_task_package(archive)
        except InputError as error:
            raise InputError(
                f"{folder}: task {name} cannot be shared, since nobody could import it: {error}"
            ) from error
    return manifest


@contextlib.contextmanager
def scratch_path(name: str) -> Iterator[Path]:
    """Of a file that is deleted at the end."""
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary) / name


def task_files(model: ModelRecord, name: str) -> set[str]:
    """Paths of a task's files below the model's folder, as model.json lists them."""
    optional = {extra_file(name, file).as_posix() for file in EXTRAS} & set(model.sha256)
    return {f"tasks/{name}/{file}" for file in TASK_FILES} | optional


def provenance_of(model: Mapping[str, str]) -> dict[str, str]:
    """What a model tells of the run that made it, for one of its first tasks when that goes elsewhere."""
    return {key: value for key, value in model.items() if not key.startswith(ADDED)}


def require_task(folder: Path, model: ModelRecord, name: str) -> None:
    """Raise InputError if a model has no task of that name."""
    if name not in model.all_tasks:
        there = ", ".join(model.all_tasks) or "none, it is a pre-trained backbone"
        raise InputError(f"{folder}: has no task {name}; its tasks: {there}")


def check_task_package(archive: Archive) -> TaskPackage:
    """All that a task's file says of itself, after it was found to be so, as `check_package` does for a model.

    Raises:
        InputError: if files are missing, unknown, too large, damaged or of a newer format, may hold code, or do not fit
            the network that the manifest states.
    """
    if MANIFEST_JSON not in archive.entries:
        archive.refuse(f"it has no {MANIFEST_JSON}")
    if MODEL_JSON in archive.entries:
        raise InputError(
            f"{archive.path}: holds a model, not a task; take it in with spadunet_import_model, and its tasks with "
            "spadunet_tasks add"
        )
    manifest = document(archive, MANIFEST_JSON, TaskManifest)
    name = manifest.task
    if not is_plain(name):
        archive.refuse(f"its task is called {ascii(name[:100])}, which is no name of a folder")
    needed = {f"tasks/{name}/{file}" for file in TASK_FILES}
    is_segmentation = manifest.task_kind == "segmentation"
    optional = {extra_file(name, file).as_posix() for file in EXTRAS} if is_segmentation else set()
    check_files_of(archive, manifest.files, {CARD_FILE, *needed})
    if unknown := sorted(set(manifest.files) - {CARD_FILE} - needed - optional):
        archive.refuse(f"{unknown[0]} is no file of the task {name}")
    kind: type[AnyTaskRecord] = TaskRecord if is_segmentation else ClassifierRecord
    record = document(archive, f"tasks/{name}/{TASK_FILES[0]}", kind)
    if record.name != name:
        archive.refuse("its task has another name than its folder")
    check_extras(archive, manifest.files)
    weights = f"tasks/{name}/{TASK_FILES[1]}"
    tensors = tensors_of(archive, weights)
    if problem := misfit_of_task(manifest.backbone, manifest.preset, record, tensors):
        archive.refuse(problem)
    check_numbers(archive, weights, tensors)
    return TaskPackage(manifest=manifest, record=record)


def import_task(path: Path, folder: Path, *, dry_run: bool = False) -> TaskPackage:
    """Add the task of a file to a model, which keeps all that it has to the byte.

    Everything is checked before anything is written: see `open_archive` and `check_task_package`.

    Raises:
        InputError: if the file is refused, the model is damaged, has another backbone or a task of that name.
        OutputError: if the disk is full or the folder cannot be written.
    """
    model = check_files(folder)
    with open_archive(path, WRITER) as archive:
        package = check_task_package(archive)
        manifest = package.manifest
        digest = manifest.backbone_sha256
        require_backbone(folder, model, manifest, digest, f"{path}: task {manifest.task}")
        require_room(folder, model, manifest.task)
        if dry_run:
            return package
        with tempfile.TemporaryDirectory() as temporary:
            for name in manifest.files:
                extract(archive, manifest.files, name, Path(temporary))
            task = load_task(Path(temporary), manifest.task, set(manifest.files), kind=type(package.record))
    told = {f"{ADDED}{manifest.task}": f"from {path.name}"}
    add_tasks(folder, folder, {manifest.task: task}, told, backbone_sha256=digest)
    return package


def copy_tasks(source: Path, folder: Path, names: list[str], *, dry_run: bool = False) -> None:
    """Add tasks of one model to another of the same backbone.

    Raises:
        InputError: if either model is damaged, their backbones differ, the source lacks a task or the other has one of
            the name.
        OutputError: if the disk is full or the folder cannot be written.
    """
    theirs, ours = check_files(source), check_files(folder)
    for name in names:
        require_task(source, theirs, name)
        require_room(folder, ours, name)
    digest = theirs.sha256[BACKBONE_FILE]
    require_backbone(folder, ours, theirs, digest, f"{source}: task {names[0]}")
    if dry_run:
        return
    tasks: dict[str, AnyTask] = {}
    for name in names:
        task = load_task(source, name, theirs.sha256, kind=theirs.record_of(name))
        tasks[name] = replace(task, provenance=task.provenance or provenance_of(theirs.provenance))
    told = {f"{ADDED}{name}": f"from {source.resolve()}" for name in names}
    add_tasks(folder, folder, tasks, told, backbone_sha256=digest)


def require_backbone(
    folder: Path, model: ModelRecord, theirs: TaskManifest | ModelRecord, sha256: str, what: str
) -> None:
    """Raise InputError if a model has another backbone than a task was trained on.

    The network is compared, too: weights were checked against the one that the file states, which is the sender's word.

    Args:
        theirs: what names the task's network.
        sha256: of its backbone.
        what: the task, for the message.
    """
    own = model.sha256[BACKBONE_FILE]
    if own != sha256:
        raise InputError(
            f"{what} was trained on a backbone of SHA-256 {sha256[:12]}…, {folder} has {own[:12]}… ({model.backbone} "
            f"{model.preset}); it works with that very backbone alone"
        )
    if (theirs.backbone, theirs.preset) != (model.backbone, model.preset):
        raise InputError(
            f"{what} is for a network {theirs.backbone} {theirs.preset}, {folder} is {model.backbone} {model.preset}; "
            "one of them was changed: get it again from whom you trust"
        )


def require_room(folder: Path, model: ModelRecord, name: str) -> None:
    """Raise InputError if a model has a task of that name."""
    if name in model.all_tasks:
        raise InputError(
            f"{folder}: has a task {name} already, which stays as it is; spadunet_tasks remove -m {folder} {name} "
            "takes it away"
        )
