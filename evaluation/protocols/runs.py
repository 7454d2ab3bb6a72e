"""Which label maps a protocol scores, and where they lie: in one folder, or in those of a cross-validation's folds."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ..pairs import Pair, label_files, tell

FOLD = re.compile(r"fold_(\d+)")
VALIDATION = "validation"
"""Folder of held-out cases' predictions, here and in nnU-Net; here with one of the dataset's name in it."""

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class ProtocolRun:
    """Predictions that are scored together."""

    predictions: Path
    pairs: list[Pair]
    name: str = ""
    """Where there are several, of the folder for their scores."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of cases that are looked at apart."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Of the model that predicted, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Predictions by case name."""

    files: dict[str, Path]
    folds: dict[str, tuple[str, ...]]
    """Cases by fold; none where all lie in one folder."""


def named(
    files: Mapping[str, Path], case_of: Callable[[str], str | None], problems: list[str] | None = None
) -> dict[str, Path]:
    """Files by the protocol's name of their case; those that have none are left out, and logged.

    Args:
        problems: as `pairs.tell` takes them.

    Raises:
        InputError: if two files are of one case.
    """
    found: dict[str, Path] = {}
    strange = []
    for name, path in files.items():
        case = case_of(name)
        if case is None:
            strange.append(path.name)
        elif case in found:
            tell(f"{path}: {found[case]} is the same case, {case}; keep one of them", problems)
        else:
            found[case] = path
    if strange:
        folder = files[next(iter(files))].parent
        log.warning("%s: names that tell no case of the protocol, not scored: %s", folder, ", ".join(strange))
    return dict(sorted(found.items()))


def find_predictions(folder: Path, case_of: Callable[[str], str | None], problems: list[str] | None = None) -> Found:
    """Label maps of a folder, or of the folds in it: fold_N, fold_N/validation or fold_N/validation/<dataset>.

    Args:
        problems: as `pairs.tell` takes them.

    Raises:
        InputError: if a fold has no label maps; or a case lies in two of them.
    """
    folds = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and FOLD.fullmatch(path.name)}
    if not folds:
        return Found(files=named(label_files(folder, problems), case_of, problems), folds={})
    files: dict[str, Path] = {}
    cases: dict[str, tuple[str, ...]] = {}
    for name, path in folds.items():
        here = named(label_files(validation_of(path), problems), case_of, problems)
        for case in sorted(here.keys() & files.keys()):
            tell(f"{here[case]}: {case} is in another fold, too: {files[case]}; a case is held out once", problems)
        files |= here
        cases[name.replace("_", " ")] = tuple(here)
    return Found(files=files, folds=cases)


def validation_of(run: Path) -> Path:
    """The folder of label maps in a run's folder.

    Raises:
        InputError: if there is none, or there are several.
    """
    inside = run / VALIDATION if (run / VALIDATION).is_dir() else run
    folders = [path for path in (inside, *sorted(inside.iterdir())) if path.is_dir() and label_files(path, [])]
    if len(folders) != 1:
        what = f"label maps in {', '.join(path.name for path in folders)}" if folders else "no label maps"
        raise InputError(f"{run}: {what}; expected one folder of them: {VALIDATION}/<dataset>")
    return folders[0]
