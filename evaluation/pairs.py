"""Which prediction belongs to which reference."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..formats import LABEL_ENDINGS, ending_of

MAX_LISTED = 20
"""A list of missing files longer than this would push the message off the screen."""

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """A case's name and its two files."""

    name: str
    prediction: Path
    reference: Path
    annotated: tuple[str, ...] = ()
    """Names of the classes or regions that the reference tells of, where not of all."""


def find_pairs(
    prediction_folder: Path, reference_folder: Path, *, allow_missing: bool = False
) -> tuple[list[Pair], list[str]]:
    """Pair files of the same name, sorted by name; also the names of the references that have no prediction.

    Predictions without a reference are left out, and their number is logged.

    Raises:
        InputError: if a folder or all references are missing, or a prediction is (lists them); with `allow_missing`
            only if all are.
    """
    references = label_files(reference_folder)
    predictions = label_files(prediction_folder)
    if not references:
        raise InputError(f"{reference_folder}: no references here (no {', '.join(LABEL_ENDINGS)} files)")
    pairs = [Pair(case, predictions[case], path) for case, path in references.items() if case in predictions]
    missing = [case for case in references if case not in predictions]
    if missing and not (allow_missing and pairs):
        listed = ", ".join(missing[:MAX_LISTED])
        more = f" and {len(missing) - MAX_LISTED} more" if len(missing) > MAX_LISTED else ""
        remedy = "predict them, or score the others with --allow-missing" if pairs else "the names must be the same"
        raise InputError(
            f"{prediction_folder}: no prediction for {len(missing)} of {len(references)} references: "
            f"{listed}{more}; {remedy}"
        )
    if missing:
        logger.warning("references without a prediction, not scored: %d of %d", len(missing), len(references))
    if len(predictions) > len(pairs):
        logger.warning("predictions without a reference, not scored: %d", len(predictions) - len(pairs))
    return pairs, missing


def label_files(folder: Path) -> dict[str, Path]:
    """Label maps of a folder by case name, sorted; hidden files (half-written ones, macOS's doubles) are left out.

    Raises:
        InputError: if there is no such folder, or if two files have one case's name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = ending_of(path, LABEL_ENDINGS)
        if ending is None or path.name.startswith("."):
            continue
        case = path.name[: -len(ending)]
        if case in files:
            raise InputError(f"{path}: {files[case].name} beside it is the same case; keep one of them")
        files[case] = path
    return files
