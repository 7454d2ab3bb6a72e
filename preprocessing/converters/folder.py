"""Where a converted release goes: a raw dataset folder that is whole or absent."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ...description import DATASET_JSON
from ...errors import InputError
from ...files import atomic_path, write_text


@contextlib.contextmanager
def new_dataset(folder: Path) -> Iterator[Path]:
    """Make the folder; dataset.json, written last, tells that a conversion came to its end.

    Raises:
        InputError: if a whole dataset is there already.
    """
    require_new(folder)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    yield folder


def require_new(folder: Path) -> None:
    """Raise InputError if a whole dataset is there already."""
    if (folder / DATASET_JSON).exists():
        raise InputError(f"{folder}: is there already; remove it, or convert into another folder with -o")


def write_description(
    folder: Path,
    *,
    channel_names: Sequence[str],
    labels: Sequence[str],
    about: Mapping[str, object],
    patients: Mapping[str, str] | None = None,
) -> None:
    """Write dataset.json.

    Args:
        labels: names in the order of their ids, background first.
        about: further keys, as name, licence and reference.
    """
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channel_names)},
        "labels": {name: number for number, name in enumerate(labels)},
        "file_ending": ".nii.gz",
        **({"patients": dict(patients)} if patients else {}),
        **about,
    }
    write_text(folder / DATASET_JSON, json.dumps(description, indent=1) + "\n")


def copy(source: Path, target: Path) -> None:
    """Copy a file whole or not at all; one that is there with the same size is kept.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)


def require_folder(folder: Path, expected: str) -> None:
    """Raise InputError unless a folder of the release is there.

    Args:
        expected: the layout that the release has, for the message.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found; expected {expected}")
