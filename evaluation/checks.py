"""What is wrong with label maps that are to be compared: all of it at once."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..formats import Header, read_header
from ..image import LabelMap, geometry_difference, read_label_map, turned_onto
from ..labels import LabelSet
from ..parallel import map_cases
from ..sizes import count_values
from ..workers import THIS_PROCESS, Workers
from .pairs import Pair, missing_problem

BYTES_TO_SCORE = 10
"""Per voxel of both label maps. Measured as in preprocessing/memory.py: 2 to 5, also where they are stored as floating
point. Masks of nothing but noise have more border than organs: up to 27, and 51 with surface elements."""

log = logging.getLogger("spadunet")


def require_good(
    groups: Mapping[Path, Sequence[Pair]],
    labels: LabelSet | None,
    *,
    allow_missing: bool = False,
    problems: Sequence[str] = (),
    workers: Workers = THIS_PROCESS,
) -> None:
    """Check all that shows before voxels are read; where something is wrong, look at the voxels, too.

    So a user learns of everything at once, and thousands of good cases are not read twice: wrong voxels alone are
    told when all cases have been gone through (`evaluate_pairs`).

    Args:
        groups: pairs by the folder of their predictions.
        labels: what ids mean; None, where that is not known, finds none unknown.
        problems: that are known already.

    Raises:
        InputError: lists everything that is wrong: predictions that are missing, files that cannot be read, grids that
            differ, ids that are no label.
    """
    found, rest = list(problems), []
    for folder, pairs in groups.items():
        missing = missing_problem(pairs, folder, allow_missing=allow_missing)
        found += [missing] if missing else []
        for pair in tqdm(pairs, desc="Checking headers", unit="case", disable=None):
            wrong = header_problems(pair)
            found += wrong
            rest += [] if wrong else [pair]
    if not found:
        return
    log.info("%d problems before any voxel is read; voxels are looked at, so that all is told at once", len(found))
    look = functools.partial(require_fitting, labels=labels)
    outcomes = map_cases(look, rest, title="Checking", workers=workers, memory_of=memory_to_score)
    found += sorted(outcome.problem for outcome in outcomes if outcome.problem is not None)
    raise InputError("\n".join(dict.fromkeys("\n".join(found).splitlines())))


def memory_to_score(pair: Pair) -> int:
    """Bytes that a pair takes at its peak, from its headers."""
    return count_values((pair.prediction or pair.reference, pair.reference)) * BYTES_TO_SCORE


def header_problems(pair: Pair) -> list[str]:
    """A line for each file whose header cannot be read, or one if their grids differ."""
    problems, headers = [], []
    for path in (pair.prediction, pair.reference):
        try:
            headers += [read_header(path)] if path is not None else []
        except InputError as error:
            problems.append(str(error))
    grids = [grid_of(header) for header in headers if header is not None]
    if len(grids) == 2 and (difference := grids_differ(*grids)):
        problems.append(
            f"{pair.prediction}: does not lie on the grid of {pair.reference}: {difference}; "
            "compare in the space of the original image"
        )
    return problems


def require_fitting(pair: Pair, labels: LabelSet | None) -> None:
    """Read a pair.

    Raises:
        InputError: as `read_pair`, and with all of `misfits`.
    """
    problems = misfits(pair.name, *read_pair(pair), labels, files=(str(pair.prediction), str(pair.reference)))
    if problems:
        raise InputError("\n".join(problems))


def read_pair(pair: Pair) -> tuple[LabelMap, LabelMap]:
    """Prediction and reference; background everywhere where there is no prediction.

    Raises:
        InputError: if a file is damaged or a value is no whole number; of both.
    """
    label_maps, problems = [], []
    for path in (pair.prediction, pair.reference):
        try:
            label_maps += [read_label_map(path)] if path is not None else []
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    reference = label_maps[-1]
    nothing = LabelMap(array=np.zeros_like(reference.array), affine=reference.affine)
    return (nothing if pair.prediction is None else label_maps[0]), reference


def misfits(
    case: str,
    prediction: LabelMap,
    reference: LabelMap,
    labels: LabelSet | None,
    *,
    files: tuple[str, str] = ("the file", "the file"),
) -> list[str]:
    """A line if the grids differ, and one for each of the two that holds ids that are no label.

    Args:
        files: what lines call the two; of several runs, cases have one name.
    """
    problems = []
    if difference := grids_differ(prediction, reference):
        problems.append(
            f"{case}: prediction and reference lie on different grids: {difference}; "
            "compare in the space of the original image"
        )
    for name, label_map, file in (("prediction", prediction, files[0]), ("reference", reference, files[1])):
        if labels is not None and (unknown := labels.unknown_ids(label_map.array)):
            problems.append(
                f"{case}: the {name} holds the values {unknown}, but the labels are {list(labels.known_ids)}; "
                f"correct {file}, or name all its labels with --labels"
            )
    return problems


def grid_of(header: Header) -> LabelMap:
    """Background on a header's grid, which takes no memory."""
    return LabelMap(array=np.broadcast_to(np.uint8(0), header.shape), affine=header.affine)


def turned(prediction: LabelMap, reference: LabelMap) -> LabelMap:
    """The prediction with its axes as the reference's; as it is where these are not of one grid."""
    if geometry_difference(prediction, reference) is None:
        return prediction
    return turned_onto(prediction, reference) or prediction


def grids_differ(prediction: LabelMap, reference: LabelMap) -> str | None:
    """How far the grids of two label maps lie apart, in mm; None where they are one, in whatever order of axes."""
    prediction = turned(prediction, reference)
    difference = geometry_difference(prediction, reference)
    if difference and prediction.shape != reference.shape:
        return f"{difference}, {extent_of(prediction)} against {extent_of(reference)} mm"
    return difference


def extent_of(label_map: LabelMap) -> str:
    """Length of the sides of the whole, x×y×z in mm."""
    lengths = (n * side for n, side in zip(label_map.shape[::-1], label_map.spacing_mm[::-1], strict=True))
    return "×".join(f"{length:.4g}" for length in lengths)
