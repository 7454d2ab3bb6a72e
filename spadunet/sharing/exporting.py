"""A model folder to one file that tells nothing of the machine that it was made on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..files import atomic_path, sha256_of_file
from ..model import MODEL_JSON, TASK_FILES, ModelRecord, check_files
from ..record import Record, read_record
from ..task import AnyTaskRecord
from .archive import open_archive, write_archive
from .package import CARD_FILE, MANIFEST_JSON, MAX_BYTES_BY_ENDING, WRITER, FileRecord, Manifest, check_package

ENDING = ".zip"
PATH = re.compile(r"""(^|[\s"'=(,;:])(?:~[^\s/\\]*|[A-Za-z]:|\.{1,2})?[\\/](?:.*[\\/])?""", re.DOTALL)
"""From where a path begins up to the last name in it; a slash inside of words begins none."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What of a model is shared."""

    model: ModelRecord
    tasks: dict[str, AnyTaskRecord]


def read_shared(folder: Path) -> Shared:
    """A model's documents, without the paths in what they tell of where it comes from.

    Raises:
        InputError: if it is no model, or damaged.
    """
    model = check_files(folder)
    tasks: dict[str, AnyTaskRecord] = {}
    for name in model.all_tasks:
        path = folder / "tasks" / name / TASK_FILES[0]
        task = read_record(path, model.record_of(name), remedy="copy the model folder again")
        tasks[name] = task.model_copy(update={"provenance": without_paths(task.provenance)})
    return Shared(model=model.model_copy(update={"provenance": without_paths(model.provenance)}), tasks=tasks)


def without_paths(provenance: dict[str, str]) -> dict[str, str]:
    """Each path cut to the name at its end: `/home/anna/models/large` becomes `large`."""
    return {key: PATH.sub(r"\1", value) for key, value in provenance.items()}


def export_model(folder: Path, path: Path, card: str) -> None:
    """Write a model and its card into one file, whole or not at all. The same model and card make the same bytes.

    What was written is checked as `import_model` will check it, before it gets its name.

    Raises:
        InputError: if the folder is no sound model, is larger than such a file may be, or there is a file of that name.
        OutputError: if the disk is full or the folder cannot be written.
    """
    require_new(path, "model", f"{path.stem}.spadunet{ENDING}")
    shared = read_shared(folder)
    contents: dict[str, bytes | Path] = {}
    for name in sorted(shared.model.sha256):
        contents[name] = folder / name
    for name, task in shared.tasks.items():
        contents[f"tasks/{name}/{TASK_FILES[0]}"] = as_bytes(task)
    files = {name: describe(content) for name, content in contents.items()}
    model = shared.model.model_copy(update={"sha256": {name: file.sha256 for name, file in files.items()}})
    contents = {CARD_FILE: card.encode(), MODEL_JSON: as_bytes(model), **contents}
    files = {name: describe(contents[name]) for name in (CARD_FILE, MODEL_JSON)} | files
    manifest = Manifest(spadunet=__version__, files=files)
    with atomic_path(path) as partial:
        write_archive(partial, {MANIFEST_JSON: as_bytes(manifest), **contents})
        try:
            with open_archive(partial, WRITER) as archive:
                check_package(archive)
        except InputError as error:
            raise InputError(f"{folder}: cannot be shared, since nobody could import it: {error}") from error


def require_new(path: Path, what: str, better: str) -> None:
    """Raise InputError unless a shared model or task may be written there.

    Args:
        better: name for a file whose ending is wrong.
    """
    if path.suffix != ENDING:
        raise InputError(f"-o {path}: a shared {what} is a {ENDING} file; name it {better}")
    if path.exists():
        raise InputError(f"-o {path}: is there already; remove it or give another name")


def as_bytes(record: Record) -> bytes:
    """A document as it lies on disk."""
    return f"{record.to_json()}\n".encode()


def describe(content: bytes | Path) -> FileRecord:
    """Size and SHA-256 of a file's content."""
    if isinstance(content, Path):
        return FileRecord(size=content.stat().st_size, sha256=sha256_of_file(content))
    return FileRecord(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def read_card(path: Path) -> str:
    """A card that someone wrote.

    Raises:
        InputError: if it is not there, is no text or too long.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--card {path}: cannot be read as text in UTF-8 ({error}); give a Markdown file") from error
    if len(text.encode()) > MAX_BYTES_BY_ENDING[".md"]:
        raise InputError(f"--card {path}: more than {MAX_BYTES_BY_ENDING['.md']} bytes; shorten it")
    return text
