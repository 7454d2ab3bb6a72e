"""Post-processing of label maps: largest components, small components, holes.

Letters: A0, A1, A2 array axes in storage order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import cc3d
import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects

from ..image import LabelMap
from ..labels import LabelSet, Region
from ..postprocessing import FOREGROUND, Rule
from ..spacing import Spacing

CONNECTIVITY: Final = 26
"""By faces, edges and corners: a thin vessel that runs across the grid is one component."""


def applicable(rules: Sequence[Rule], labels: LabelSet, *, is_subset: bool = False) -> tuple[Rule, ...]:
    """The rules of structures that are among the labels; of all foreground only where all of it is predicted."""
    names = {structure.name for structure in labels.structures}
    return tuple(rule for rule in rules if rule.structure in names or (rule.structure == FOREGROUND and not is_subset))


def clean(label_map: LabelMap, labels: LabelSet, rules: Sequence[Rule]) -> LabelMap:
    """A label map after all rules, in their order; the same object where there is none.

    Args:
        rules: of structures among the labels, or of all foreground.
    """
    if not rules:
        return label_map
    array = label_map.array.copy()
    structures = {structure.name: structure for structure in labels.structures}
    for rule in rules:
        apply(array, labels, structures.get(rule.structure), rule, label_map.spacing_mm)
    return LabelMap(array=array, affine=label_map.affine)


def apply(array: np.ndarray, labels: LabelSet, structure: Region | None, rule: Rule, spacing_mm: Spacing) -> bool:
    """Change an array of ids (A0, A1, A2) as a rule says, in place; True if any voxel changed.

    Only the box around the structure is looked at.

    Args:
        structure: None for all foreground.
    """
    box = box_of(array, structure)
    if box is None:
        return False
    part = array[box]
    mask = mask_of(part, structure)
    if rule.action == "fill holes":
        assert structure is not None
        change = fill_holes(mask) & (part == 0)
        part[change] = structure.painted_id
    else:
        kept = components_of(mask, None if rule.min_mm3 is None else rule.min_mm3 / math.prod(spacing_mm))
        change = mask & ~kept
        for label_id in np.unique(part[change]).tolist():
            part[change & (part == label_id)] = id_without(structure, label_id, labels)
    return bool(change.any())


def box_of(array: np.ndarray, structure: Region | None) -> tuple[slice, ...] | None:
    """The smallest box that holds a structure, or all foreground; None where there is none of it."""
    (box,) = find_objects(mask_of(array, structure).view(np.uint8)) or (None,)
    return box


def mask_of(array: np.ndarray, structure: Region | None) -> np.ndarray:
    """Where an array of ids holds a structure, or anything but background."""
    if structure is None:
        return array > 0
    return structure.mask_in(array)


def components_of(mask: np.ndarray, min_voxels: float | None) -> np.ndarray:
    """The components of a mask (A0, A1, A2) with at least so many voxels; None for the largest alone.

    Of equally large ones the first in the array is kept.
    """
    numbers, count = cc3d.connected_components(mask, connectivity=CONNECTIVITY, return_N=True)
    sizes = np.bincount(numbers.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = np.zeros(count + 1, bool)
    if min_voxels is None:
        kept[sizes.argmax()] = count > 0
    else:
        kept[1:] = sizes[1:] >= min_voxels
    return kept[numbers]


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask (A0, A1, A2) with what it encloses; of a single slice, within the slice."""
    flat = mask.squeeze()
    return binary_fill_holes(flat).reshape(mask.shape) if flat.ndim else mask


def id_without(structure: Region | None, label_id: int, labels: LabelSet) -> int:
    """What a voxel of a structure becomes that does not belong to it after all.

    The innermost other region that its id belongs to, else background.
    """
    if structure is None:
        return 0
    for region in reversed(labels.regions):
        if region != structure and label_id in region.ids and region.painted_id not in structure.ids:
            return region.painted_id
    return 0
