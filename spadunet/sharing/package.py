"""What one file with a model holds, and everything that is checked before a byte of it is written anywhere.

manifest.json            format version, and size and SHA-256 of every other file
MODEL_CARD.md            data, scores, licence and intended use
model.json …             the model folder: see `model`
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from ..errors import InputError
from ..model import BACKBONE_FILE, EXTRAS, MODEL_JSON, ModelRecord, model_files
from ..record import FormatVersion, Record, RecordType
from ..task import AnyTaskRecord
from .archive import MAX_BYTES, Archive
from .fit import misfit
from .tensor_header import LENGTH_BYTES, MAX_HEADER_BYTES, TensorRecord, read_header

MANIFEST_JSON, CARD_FILE = "manifest.json", "MODEL_CARD.md"
WRITER = "spadunet_export_model"
"""The command that writes it."""
MAX_BYTES_BY_ENDING = {".json": 1 << 18, ".md": 1 << 20, ".safetensors": MAX_BYTES}
"""A plan with 117 classes takes 9 kB of JSON. Files with other endings are refused."""
PICKLE_ENDINGS = {".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".tar", ".zip", ".whl"}
PICKLE_STARTS = (b"\x80", b"PK\x03\x04", b"\x93NUMPY")
"""Of a pickle, of what `torch.save` writes, and of NumPy's files."""


class FileRecord(Record):
    """What a file of the package must be."""

    size: Annotated[int, Field(ge=0, le=MAX_BYTES)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(Record):
    """manifest.json."""

    format_version: FormatVersion = 1
    kind: Literal["spadunet model"] = "spadunet model"
    spadunet: str
    """Version that exported it."""
    files: dict[str, FileRecord]
    """By name; all but this one."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package in which everything was found sound."""

    manifest: Manifest
    model: ModelRecord
    tasks: Mapping[str, AnyTaskRecord]


def check_package(archive: Archive) -> Package:
    """All that the package says of itself, after it was found to be so. Nothing is written, and no code in it is run.

    Raises:
        InputError: if files are missing, unknown, too large, damaged or of a newer format, may hold code, or do not fit
            together or the network that the model states.
    """
    if MANIFEST_JSON not in archive.entries:
        archive.refuse(f"it has no {MANIFEST_JSON}")
    if MODEL_JSON not in archive.entries and '"spadunet task"' in text_of(archive, MANIFEST_JSON):
        raise InputError(f"{archive.path}: holds a task, not a model; spadunet_tasks import adds it to a model")
    manifest = document(archive, MANIFEST_JSON, Manifest)
    check_files_of(archive, manifest.files, {MODEL_JSON, CARD_FILE})
    model = document(archive, MODEL_JSON, ModelRecord)
    expected = model_files(model)
    if set(manifest.files) != {MODEL_JSON, CARD_FILE} | expected or set(model.sha256) != expected:
        archive.refuse(f"its files are not those of a model with the tasks {', '.join(model.all_tasks) or 'none'}")
    for name, digest in model.sha256.items():
        if manifest.files[name].sha256 != digest:
            archive.refuse(f"{name} has another SHA-256 in {MODEL_JSON} than in {MANIFEST_JSON}")
    tasks: dict[str, AnyTaskRecord] = {}
    for name in model.all_tasks:
        tasks[name] = document(archive, f"tasks/{name}/task.json", model.record_of(name))
    check_extras(archive, expected)
    headers = {name: tensors_of(archive, name) for name in expected if name.endswith(".safetensors")}
    problem = misfit(
        model,
        tasks,
        headers[BACKBONE_FILE],
        {name: headers[f"tasks/{name}/task.safetensors"] for name in tasks},
    )
    if problem or any(task.name != name for name, task in tasks.items()):
        archive.refuse(problem or "its tasks have other names than their folders")
    for name, tensors in headers.items():
        check_numbers(archive, name, tensors)
    return Package(manifest=manifest, model=model, tasks=tasks)


def check_files_of(archive: Archive, files: Mapping[str, FileRecord], needed: Collection[str]) -> None:
    """Refuse unless the files are those of the manifest, to the byte, and the card is a text.

    Args:
        files: of the manifest.
        needed: names that must be among them.

    Raises:
        InputError: names one.
    """
    check_listed(archive, files, needed)
    for name in files:
        check_content(archive, name, files[name])
    check_characters(archive, CARD_FILE, text_of(archive, CARD_FILE))


def check_extras(archive: Archive, files: Collection[str]) -> None:
    """Refuse what a task may have beside its weights, where it is damaged.

    Raises:
        InputError: names it.
    """
    for name in sorted(files):
        if (kind := EXTRAS.get(PurePosixPath(name).name)) is not None:
            document(archive, name, kind)


def check_listed(archive: Archive, files: Mapping[str, FileRecord], needed: Collection[str]) -> None:
    """Refuse unless the manifest names exactly the files that are there, of kinds that a model has.

    Raises:
        InputError: names one.
    """
    there, listed = set(archive.entries) - {MANIFEST_JSON}, set(files)
    for name in sorted(there - listed):
        archive.refuse(f"{name} is not in its manifest")
    for name in sorted({*listed, *needed} - there):
        archive.refuse(f"{ascii(name[:100])} is missing")
    for name in sorted(there):
        ending = PurePosixPath(name).suffix.lower()
        if ending in PICKLE_ENDINGS:
            archive.refuse(f"{name} may run code when it is loaded")
        if archive.entries[name].size > MAX_BYTES_BY_ENDING.get(ending, -1):
            archive.refuse(f"{name} is too large, or no file of a model")


def check_content(archive: Archive, name: str, expected: FileRecord) -> None:
    """Refuse a file that is not what the manifest says, or may be a pickle.

    Raises:
        InputError: names it.
    """
    digest = hashlib.sha256()
    size = 0
    for number, chunk in enumerate(archive.chunks(name)):
        if number == 0 and chunk.startswith(PICKLE_STARTS) and not is_length(chunk, archive.entries[name].size):
            archive.refuse(
                f"{name} may run code when it is loaded: it is a pickle, or was written by torch.save or NumPy"
            )
        digest.update(chunk)
        size += len(chunk)
    if size != expected.size or digest.hexdigest() != expected.sha256:
        archive.refuse(f"{name} does not have the size and SHA-256 that its manifest states: damaged or changed")


def is_length(start: bytes, size: int) -> bool:
    """True if a safetensors file may begin so: its header's length may happen to begin as a pickle does."""
    return int.from_bytes(start[:LENGTH_BYTES], "little") <= size - LENGTH_BYTES and start[LENGTH_BYTES:][:1] == b"{"


def text_of(archive: Archive, name: str) -> str:
    """A text file.

    Raises:
        InputError: if it is too large or not in UTF-8.
    """
    try:
        return archive.read(name, MAX_BYTES_BY_ENDING[PurePosixPath(name).suffix]).decode()
    except UnicodeDecodeError as error:
        archive.refuse(f"{name} is no text in UTF-8 ({error})")


def document(archive: Archive, name: str, kind: type[RecordType]) -> RecordType:
    """A JSON file.

    Raises:
        InputError: if it is no such document, of a newer format, or holds control characters.
    """
    record = kind.from_json(text_of(archive, name), source=f"{archive.path}: {name}")
    for text in strings_in(record.model_dump(mode="json")):
        check_characters(archive, name, text, allowed="")
    return record


def strings_in(value: object) -> Iterator[str]:
    """Every text in what JSON may hold, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def check_characters(archive: Archive, name: str, text: str, *, allowed: str = "\n\r\t") -> None:
    """Refuse control characters, by which a text may take over the terminal that shows it.

    Raises:
        InputError: names the file.
    """
    if any(unicodedata.category(character) == "Cc" and character not in allowed for character in text):
        archive.refuse(f"{name} holds control characters")


def tensors_of(archive: Archive, name: str) -> dict[str, TensorRecord]:
    """What a safetensors file holds, by its header.

    Raises:
        InputError: if it is damaged.
    """
    start = b""
    for chunk in archive.chunks(name):
        start += chunk
        if len(start) >= LENGTH_BYTES + MAX_HEADER_BYTES:
            break
    try:
        return read_header(start, archive.entries[name].size)
    except ValueError as error:
        archive.refuse(f"{name}: {error}")


def check_numbers(archive: Archive, name: str, tensors: Mapping[str, TensorRecord]) -> None:
    """Refuse weights that are NaN or infinite: such a model finds nothing, or anything.

    Raises:
        InputError: names the tensor.
    """
    num_bytes = sum(tensor.num_bytes for tensor in tensors.values())
    start = archive.entries[name].size - num_bytes
    for tensor_name, tensor in tensors.items():
        first, last = tensor.data_offsets
        if not all(map(tensor.are_finite, archive.chunks(name, start + first, last - first))):
            archive.refuse(f"{name}: tensor {tensor_name[:100]!a} holds NaN or infinite values")
