"""What an answer is worth by itself: volumes of the label map as it is written, beside how sure the networks are."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..evaluation.volume import volume_ml
from ..image import LabelMap
from ..labels import MAX_COUNTED_ID, LabelSet
from ..quality import ClassQuality
from .predict import Answer


def judge(answer: Answer, label_map: LabelMap, labels: LabelSet) -> dict[str, ClassQuality]:
    """By name of class or region.

    Args:
        answer: of an engine that judges.
        label_map: the answer's, after post-processing.
    """
    volumes_ml = volumes_of(label_map, labels)
    return {
        name: ClassQuality(
            volume_ml=volumes_ml[name],
            soft_dice=it.soft_dice,
            entropy_in=it.entropy_in,
            entropy_around=it.entropy_around,
            share_around=it.share_around,
            agreement=answer.agreements.get(name),
        )
        for name, it in answer.confidences.items()
    }


def volumes_of(label_map: LabelMap, labels: LabelSet) -> dict[str, float]:
    """Ml of each class or region; one pass for all."""
    counts = count_ids(label_map.array)
    return {
        it.name: volume_ml(sum(counts[label_id] for label_id in it.ids), label_map.spacing_mm)
        for it in labels.structures
    }


def count_ids(array: np.ndarray) -> Counter[int]:
    """Voxels of each id in an array (A0, A1, A2) of ids, plane by plane for the memory's sake.

    Small ids are counted: sorting takes ten times as long.
    """
    counts = Counter[int]()
    is_small = array.size > 0 and 0 <= array.min() <= array.max() < MAX_COUNTED_ID
    for plane in array:
        if is_small:
            numbers = np.bincount(plane.ravel())
            counts.update(dict(enumerate(numbers.tolist())))
        else:
            counts.update(dict(zip(*(it.tolist() for it in np.unique(plane, return_counts=True)), strict=True)))
    return counts
