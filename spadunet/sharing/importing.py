"""One file to a model folder: checked through and through, then written, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..files import atomic_folder
from ..model import MODEL_JSON
from .archive import Archive, open_archive
from .package import MANIFEST_JSON, WRITER, FileRecord, Package, check_package


def import_model(path: Path, folder: Path) -> Package:
    """Write the model of a file into a new folder.

    Everything is checked before anything is written: see `open_archive` and `check_package`.

    Raises:
        InputError: if the file is refused, or the folder is there already.
        OutputError: if the disk is full or the folder cannot be written.
    """
    if os.path.lexists(folder):
        raise InputError(f"-o {folder}: is there already; remove it, or give another folder with -o")
    with open_archive(path, WRITER) as archive:
        package = check_package(archive)
        with atomic_folder(folder) as partial:
            for name in [name for name in package.manifest.files if name != MODEL_JSON]:
                extract(archive, package.manifest.files, name, partial)
            extract(archive, package.manifest.files, MODEL_JSON, partial)  # last: without it, the folder is no model
    return package


def extract(archive: Archive, files: Mapping[str, FileRecord], name: str, folder: Path) -> None:
    """Write one file of a checked package, and check what was written once more: the file may have changed meanwhile.

    Raises:
        InputError: if it has, or safetensors cannot read it.
    """
    assert name != MANIFEST_JSON and name in files
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as file:
        for chunk in archive.chunks(name):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != files[name].sha256:
        archive.refuse(f"{name} has changed while it was read")
    if target.suffix == ".safetensors":
        try:
            with safe_open(target, framework="pt"):
                pass
        except SafetensorError as error:
            archive.refuse(f"{name} cannot be read as safetensors ({error})")
