"""Named datasets with what is known of them, and where their folders are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ..errors import InputError
from ..record import FormatVersion, Record, is_unused, read_record
from .modality import check_modality

PAPER = "paper"
PAPER_JSON = Path(__file__).with_name("paper_datasets.json")
MAX_DEPTH = 3
"""Of folders below the root that may be a dataset."""


class ManifestDataset(Record):
    """One dataset: what it is called, shows and holds, how it is weighted, and where it lies."""

    name: str
    modalities: Annotated[tuple[str, ...], Field(min_length=1)]
    """Of one, all images have it; of several, each image's own header or name tells which."""
    dimensions: Literal[2, 3] | None = Field(default=None, exclude_if=is_unused)
    location: str | None = Field(default=None, exclude_if=is_unused)
    num_images: int | None = Field(default=None, exclude_if=is_unused)
    """Expected: channels and frames count each."""
    num_slices: int | None = Field(default=None, exclude_if=is_unused)
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Multiplies that of each of its images."""
    folder: str | None = Field(default=None, exclude_if=is_unused)
    """Where it lies, from the root folder; else the folder below the root that has its name."""

    @field_validator("modalities")
    @classmethod
    def check(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Known ones only."""
        return tuple(check_modality(name) for name in names)


class Manifest(Record):
    """Datasets of unique names."""

    format_version: FormatVersion = 1
    datasets: Annotated[tuple[ManifestDataset, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def check(self) -> Manifest:
        """Names differ, as folders do."""
        names = [plain(dataset.name) for dataset in self.datasets]
        doubles = sorted({dataset.name for dataset in self.datasets if names.count(plain(dataset.name)) > 1})
        if doubles:
            raise ValueError(f"datasets {', '.join(doubles)} have one name; give each its own")
        return self


@dataclass(frozen=True, kw_only=True)
class Located:
    """Datasets of a manifest whose folders are there, and those whose are not."""

    folders: tuple[tuple[ManifestDataset, Path], ...]
    missing: tuple[ManifestDataset, ...]


def read_manifest(name: str) -> Manifest:
    """A manifest file, or the one of the paper by the name `paper` (Luo et al. 2024, table 7).

    Raises:
        InputError: if it is not there or wrong; names the field.
    """
    path = PAPER_JSON if name == PAPER else Path(name)
    return read_record(path, Manifest, remedy=f"give a manifest's path, or '{PAPER}'")


def locate(manifest: Manifest, root: Path) -> Located:
    """Find each dataset's folder below a root: by `folder`, else by its name, whatever its case, marks and accents.

    Raises:
        InputError: if the root is not there, or several folders have a dataset's name.
    """
    if not root.is_dir():
        raise InputError(f"{root}: folder not found; it must hold a folder a dataset")
    by_name: dict[str, list[Path]] = {}
    for folder in folders_below(root, MAX_DEPTH):
        parts = folder.relative_to(root).parts
        for first in range(len(parts)):
            by_name.setdefault(plain("/".join(parts[first:])), []).append(folder)
    found, missing = [], []
    for dataset in manifest.datasets:
        if dataset.folder is not None:
            fitting = [root / dataset.folder] if (root / dataset.folder).is_dir() else []
        else:
            fitting = outermost(by_name.get(plain(dataset.name), []))
        if len(fitting) > 1:
            listed = ", ".join(map(str, fitting))
            raise InputError(f"{listed}: several folders are called {dataset.name}; rename all but one")
        if fitting:
            found.append((dataset, fitting[0]))
        else:
            missing.append(dataset)
    return Located(folders=tuple(found), missing=tuple(missing))


def outermost(folders: Sequence[Path]) -> list[Path]:
    """Those that lie in none of the others: IDRiD/IDRiD is one dataset."""
    return [folder for folder in folders if not any(other in folder.parents for other in folders)]


def folders_below(folder: Path, depth: int) -> list[Path]:
    """Folders in a folder, and in these, so many deep."""
    if depth == 0:
        return []
    children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    return [found for child in children for found in (child, *folders_below(child, depth - 1))]


def plain(name: str) -> str:
    """Letters and digits alone, without accents and case: Chákṣu is chaksu."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", letters.casefold())
