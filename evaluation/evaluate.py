"""Scores of one case, and of all cases of two folders."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects

from .. import __version__
from ..errors import InputError, OutputError
from ..image import LabelMap
from ..labels import LabelSet
from ..parallel import map_cases
from ..record import digest_of
from ..scores import NOT_ANNOTATED, CaseScore, Scores
from ..workers import THIS_PROCESS, Workers
from .borders import Box, widen
from .checks import memory_to_score, misfits, read_pair, require_good, turned
from .pairs import Pair, find_pairs
from .partial import keep_scores
from .scoring import DEFAULT_SCORING, Scoring, gather_scores, score_class

NOWHERE: Box = (slice(0, 0),) * 3
log = logging.getLogger("spadunet")


def evaluate_folders(
    prediction_folder: Path,
    reference_folder: Path,
    labels: LabelSet,
    *,
    workers: Workers = THIS_PROCESS,
    allow_missing: bool = False,
    annotated: Mapping[str, tuple[str, ...]] | None = None,
    scoring: Scoring = DEFAULT_SCORING,
    partial: Path | None = None,
) -> Scores:
    """Score each reference's prediction of the same name, sorted by case name.

    Args:
        labels: what the ids in both folders' files mean.
        workers: several processes need a call under `if __name__ == "__main__"` in a script.
        allow_missing: score references without a prediction as if nothing had been found in them, and name them in
            `Scores.not_predicted`.
        annotated: by case name, what its reference tells of where not of all; the rest is not scored.
        partial: as in `evaluate_pairs`.

    Raises:
        InputError: if predictions are missing, or files are damaged or do not fit together; lists everything that is
            wrong with any file.
    """
    pairs = find_pairs(prediction_folder, reference_folder, annotated)
    require_good({prediction_folder: pairs}, labels, allow_missing=allow_missing, workers=workers)
    return evaluate_pairs(pairs, labels, workers=workers, scoring=scoring, partial=partial)


def evaluate_pairs(
    pairs: Sequence[Pair],
    labels: LabelSet,
    *,
    workers: Workers = THIS_PROCESS,
    scoring: Scoring = DEFAULT_SCORING,
    partial: Path | None = None,
) -> Scores:
    """Score pairs, sorted by case name; without a prediction, as if nothing had been found.

    A case that runs out of memory, or whose worker dies, is logged and named in `Scores.failed`.

    Args:
        partial: file that keeps each score until all are there, so that the same call goes on after an interruption;
            the caller deletes it. A case is scored anew if one of its files has changed, all if labels or scoring have.

    Raises:
        InputError: if files are damaged, do not fit together or hold ids that are no label; lists all of it.
        OutputError: if no case could be scored for other reasons.
    """
    settings = digest_of(f"{__version__} {labels.to_json()} {scoring}")
    score = functools.partial(evaluate_pair, labels=labels, scoring=scoring)
    bad, failed = [], []
    with keep_scores(partial, settings) as kept:
        found = {pair.name: result for pair in pairs if (result := kept.get(pair)) is not None}
        if found:
            log.info("going on: %d of %d cases have been scored before", len(found), len(pairs))
        rest = [pair for pair in pairs if pair.name not in found]
        for outcome in map_cases(score, rest, title="Scoring", workers=workers, memory_of=memory_to_score):
            if outcome.result is not None:
                kept.add(outcome.item, outcome.result)
                found[outcome.item.name] = outcome.result
            elif outcome.is_bad_input:
                bad.append(str(outcome.problem))
            else:
                log.error("failed: %s", outcome.problem)
                failed.append(outcome.item.name)
    if bad:
        remedy = f"; correct the files and run the same again: the other {len(found)} are not scored twice"
        lines = [f"{len(bad)} of {len(pairs)} cases cannot be scored{remedy if partial and found else ''}"]
        raise InputError("\n".join(lines + sorted(bad)))
    if not found:
        raise OutputError(f"none of {len(pairs)} cases could be scored, for the reasons above")
    not_predicted = [pair.name for pair in pairs if pair.prediction is None]
    return gather_scores(found.values(), scoring, not_predicted=not_predicted, failed=failed)


def evaluate_pair(pair: Pair, labels: LabelSet, scoring: Scoring = DEFAULT_SCORING) -> CaseScore:
    """Read and score one case; without a prediction, as if nothing had been found.

    Raises:
        InputError: if a file is damaged, the two do not lie on one grid, or hold ids that are no label; all of it.
    """
    prediction, reference = read_pair(pair)
    return evaluate_case(pair.name, prediction, reference, labels, annotated=pair.annotated, scoring=scoring)


def evaluate_case(
    case: str,
    prediction: LabelMap,
    reference: LabelMap,
    labels: LabelSet,
    *,
    annotated: tuple[str, ...] = (),
    scoring: Scoring = DEFAULT_SCORING,
) -> CaseScore:
    """Scores of each foreground class, or of each region.

    Voxels that the reference ignores count for neither.

    Args:
        case: the case's name, for messages.
        prediction: ids on the reference's grid.
        reference: ids; its spacing counts, where the two differ within the tolerance.
        annotated: names of the classes or regions that it tells of, all if empty; the others have no scores.

    Raises:
        InputError: if the grids differ, or values are no labels; all of it.
    """
    problems = misfits(case, prediction, reference, labels)
    if problems:
        raise InputError("\n".join(problems))
    prediction = turned(prediction, reference)
    predicted, num_ignored = prediction.array, 0
    if labels.ignore_id is not None:
        ignored = reference.array == labels.ignore_id
        predicted, num_ignored = np.where(ignored, 0, predicted), int(np.count_nonzero(ignored))
    boxes = class_boxes(predicted, reference.array, labels)
    classes = {}
    for structure in labels.structures:
        if annotated and structure.name not in annotated:
            classes[structure.name] = NOT_ANNOTATED
            continue
        box = union_of([boxes[label_id] for label_id in structure.ids])
        prediction_mask, reference_mask = (structure.mask_in(it[box]) for it in (predicted, reference.array))
        classes[structure.name] = score_class(prediction_mask, reference_mask, reference.spacing_mm, scoring)
    return CaseScore(
        case=case,
        classes=classes,
        shape_voxels=reference.shape,
        spacing_mm=reference.spacing_mm,
        num_ignored_voxels=num_ignored,
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
