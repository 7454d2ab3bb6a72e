"""Which prediction belongs to which reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..formats import LABEL_ENDINGS, strip_ending

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A case's name and its two files."""

    name: str
    prediction: Path | None
    """None where there is none, and that is allowed."""
    reference: Path
    annotated: tuple[str, ...] = ()
    """Names of the classes or regions that the reference tells of, where not of all."""


def find_pairs(
    prediction_folder: Path,
    reference_folder: Path,
    annotated: Mapping[str, tuple[str, ...]] | None = None,
    problems: list[str] | None = None,
) -> list[Pair]:
    """Pair files of the same name, sorted by name; references without a prediction are among them.

    Args:
        annotated: by case name, what its reference tells of where not of all.
        problems: as `tell` takes them.

    Raises:
        InputError: if a folder or all references are missing; or two files have one case's name.
    """
    references = label_files(reference_folder, problems)
    predictions = label_files(prediction_folder, problems)
    if not references:
        raise InputError(f"{reference_folder}: no references here (no {', '.join(LABEL_ENDINGS)} files)")
    return pair_up(predictions, references, annotated)


def tell(problem: str, problems: list[str] | None) -> None:
    """Add a line to the problems, to be told with all others; where there is no such list, raise it.

    Raises:
        InputError: without a list.
    """
    if problems is None:
        raise InputError(problem)
    problems.append(problem)


def pair_up(
    predictions: Mapping[str, Path],
    references: Mapping[str, Path],
    annotated: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Pair]:
    """Each reference with the prediction of its case, if there is one.

    Predictions without a reference are left out, and their number is logged.
    """
    told = annotated or {}
    num_spare = len(predictions.keys() - references.keys())
    if num_spare:
        logger.warning("predictions without a reference among those that are scored, left out: %d", num_spare)
    return [Pair(case, predictions.get(case), path, told.get(case, ())) for case, path in references.items()]


def missing_problem(pairs: Sequence[Pair], prediction_folder: Path, *, allow_missing: bool = False) -> str | None:
    """A line that lists all references without a prediction; None where there are none.

    With `allow_missing` it is a problem only if all are; else their number is logged.
    """
    missing = [pair.name for pair in pairs if pair.prediction is None]
    is_any = len(missing) < len(pairs)
    if missing and allow_missing and is_any:
        logger.warning("references without a prediction, counted as missed: %d of %d", len(missing), len(pairs))
    if not missing or (allow_missing and is_any):
        return None
    remedy = "predict them, or count them as missed with --allow-missing" if is_any else "the names must be the same"
    number = f"{len(missing)} of {len(pairs)} references"
    return f"{prediction_folder}: no prediction for {number}: {', '.join(missing)}; {remedy}"


def label_files(folder: Path, problems: list[str] | None = None) -> dict[str, Path]:
    """Label maps of a folder by case name, sorted; hidden files (half-written ones, macOS's doubles) are left out.

    Args:
        problems: as `tell` takes them.

    Raises:
        InputError: if there is no such folder; or if two files have one case's name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        case = strip_ending(path, LABEL_ENDINGS)
        if case == path.name or path.name.startswith("."):
            continue
        if case in files:
            tell(f"{path}: {files[case].name} beside it is the same case; keep one of them", problems)
        files.setdefault(case, path)
    return files
