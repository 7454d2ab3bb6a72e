"""Scores of one case, and of all cases of two folders."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from ..errors import InputError
from ..image import LabelMap, geometry_difference, read_label_map, turned_onto
from ..labels import LabelSet
from ..parallel import map_cases
from ..scores import NOT_ANNOTATED, CaseScore, ClassScore, Scores
from ..sizes import count_values
from ..workers import THIS_PROCESS, Workers
from .overlap import dice
from .pairs import Pair, find_pairs
from .surface import Box, assd_mm, hd_mm, surface_distances_mm, widen

NOWHERE: Box = (slice(0, 0),) * 3
BYTES_TO_SCORE = 10
"""Per voxel of both label maps. Measured as in preprocessing/memory.py: 2 to 5; wider types on disk take some more."""

log = logging.getLogger("spadunet")


def evaluate_folders(
    prediction_folder: Path,
    reference_folder: Path,
    labels: LabelSet,
    *,
    workers: Workers = THIS_PROCESS,
    allow_missing: bool = False,
    annotated: Mapping[str, tuple[str, ...]] | None = None,
) -> Scores:
    """Score each reference's prediction of the same name, sorted by case name.

    Cases whose files are damaged or do not fit together are logged, and named in `Scores.failed`.

    Args:
        labels: what the ids in both folders' files mean.
        workers: several processes need a call under `if __name__ == "__main__"` in a script.
        allow_missing: leave out references without a prediction, and name them in `Scores.not_predicted`.
        annotated: by case name, what its reference tells of where not of all; the rest is not scored.

    Raises:
        InputError: if no case can be scored; lists everything that is wrong with any file.
    """
    pairs, not_predicted = find_pairs(prediction_folder, reference_folder, allow_missing=allow_missing)
    pairs = [pair._replace(annotated=(annotated or {}).get(pair.name, ())) for pair in pairs]
    score = functools.partial(evaluate_pair, labels=labels)
    outcomes = list(map_cases(score, pairs, title="Scoring", workers=workers, memory_of=memory_to_score))
    problems = sorted(outcome.problem for outcome in outcomes if outcome.problem is not None)
    cases = [outcome.result for outcome in outcomes if outcome.result is not None]
    if not cases:
        raise InputError(f"none of {len(pairs)} cases can be scored:\n" + "\n".join(problems))
    for problem in problems:
        log.error("failed: %s", problem)
    return Scores(
        cases=tuple(sorted(cases, key=lambda case: case.case)),
        not_predicted=tuple(not_predicted),
        failed=tuple(sorted(outcome.item.name for outcome in outcomes if outcome.problem is not None)),
    )


def memory_to_score(pair: Pair) -> int:
    """Bytes that a pair takes at its peak, from its headers."""
    return count_values((pair.prediction, pair.reference)) * BYTES_TO_SCORE


def evaluate_pair(pair: Pair, labels: LabelSet) -> CaseScore:
    """Read and score one case.

    Raises:
        InputError: if a file is damaged, the two do not lie on one grid, or hold an id that is no label.
    """
    label_maps, problems = [], []
    for path in (pair.prediction, pair.reference):
        try:
            label_maps.append(read_label_map(path))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("\n".join(problems))
    return evaluate_case(pair.name, label_maps[0], label_maps[1], labels, annotated=pair.annotated)


def evaluate_case(
    case: str, prediction: LabelMap, reference: LabelMap, labels: LabelSet, *, annotated: tuple[str, ...] = ()
) -> CaseScore:
    """Dice, ASSD and HD of each foreground class, or of each region.

    Voxels that the reference ignores count for neither.

    Args:
        case: the case's name, for messages.
        prediction: ids on the reference's grid.
        reference: ids; its spacing counts, where the two differ within the tolerance.
        annotated: names of the classes or regions that it tells of, all if empty; the others have no scores.

    Raises:
        InputError: if the grids differ, or a value is no label.
    """
    difference = geometry_difference(prediction, reference)
    if difference:
        prediction = turned_onto(prediction, reference) or prediction
        difference = geometry_difference(prediction, reference)
    if difference:
        raise InputError(
            f"{case}: prediction and reference lie on different grids: {difference}; "
            "compare in the space of the original image"
        )
    for name, label_map in (("prediction", prediction), ("reference", reference)):
        unknown = labels.unknown_ids(label_map.array)
        if unknown:
            raise InputError(
                f"{case}: the {name} holds the values {unknown}, but the labels are {list(labels.known_ids)}; "
                "correct the file, or name all its labels with --labels"
            )
    predicted = prediction.array
    if labels.ignore_id is not None:
        predicted = np.where(reference.array == labels.ignore_id, 0, predicted)
    boxes = class_boxes(predicted, reference.array, labels)
    classes = {}
    for structure in labels.structures:
        if annotated and structure.name not in annotated:
            classes[structure.name] = NOT_ANNOTATED
            continue
        box = union_of([boxes[label_id] for label_id in structure.ids])
        prediction_mask, reference_mask = (mask_of(it[box], structure.ids) for it in (predicted, reference.array))
        classes[structure.name] = score_class(prediction_mask, reference_mask, reference)
    return CaseScore(case=case, classes=classes)


def mask_of(array: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
    """Where an array of ids holds one of these, bool of the same shape."""
    return array == ids[0] if len(ids) == 1 else np.isin(array, ids)


def score_class(prediction: np.ndarray, reference: np.ndarray, grid: LabelMap) -> ClassScore:
    """Scores of one class from its bool masks (A0, A1, A2) on the grid, or a box of it."""
    distances = surface_distances_mm(prediction, reference, grid.spacing_mm)
    return ClassScore(
        dice=dice(prediction, reference),
        assd_mm=assd_mm(distances),
        hd_mm=hd_mm(distances),
        num_prediction_voxels=int(np.count_nonzero(prediction)),
        num_reference_voxels=int(np.count_nonzero(reference)),
    )


def class_boxes(prediction: np.ndarray, reference: np.ndarray, labels: LabelSet) -> dict[int, Box]:
    """Box around each foreground class in both arrays of ids (A0, A1, A2), by id; no voxels where it is in neither.

    One pass an array finds all: with a hundred classes, searching the volume for each would take most of the time.
    """
    found = [find_objects(array, max_label=max(labels.ids)) for array in (prediction, reference)]
    boxes: dict[int, Box] = {}
    for label_id in labels.ids[1:]:
        both = [boxes_found[label_id - 1] for boxes_found in found if boxes_found[label_id - 1] is not None]
        boxes[label_id] = widen(union_of(both)) if both else NOWHERE
    return boxes


def union_of(boxes: Sequence[Box]) -> Box:
    """Smallest box that holds all of these; those without voxels do not count."""
    filled = [box for box in boxes if box != NOWHERE]
    if not filled:
        return NOWHERE
    sides = zip(*filled, strict=True)
    return tuple(slice(min(s.start for s in side), max(s.stop for s in side)) for side in sides)
