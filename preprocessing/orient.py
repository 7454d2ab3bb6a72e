"""Storage order to (depth, height, width) and back, by the affine alone.

Letters: C channels; A0, A1, A2 storage axes; D, H, W depth, height, width.
"""

from __future__ import annotations

import itertools

import numpy as np

from ..image import spacing_of
from ..spacing import RATIO_TOLERANCE, Shape

PATIENT_AXES = (2, 1, 0)  # superior, posterior, left: the order of depth, height and width in an axial image


def choose_axes(shape: Shape, affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which storage axes become depth, height and width, and which of them are flipped.

    Depth is the only axis with a single slice; else the coarsest axis if it is at least twice as coarse as the
    finest of the others; else the one nearest to the patient's superior–inferior axis. The other two keep the order
    superior, posterior, left, and all run towards it. So the result depends on where voxels lie in the patient,
    never on how they are stored.

    Args:
        shape: (A0, A1, A2).
        affine: (4, 4), storage indices to mm.
    """
    patient_axis = nearest_patient_axes(affine)
    spacing = spacing_of(affine)
    by_patient = sorted(range(3), key=lambda axis: PATIENT_AXES.index(patient_axis[axis]))
    single = [axis for axis in range(3) if shape[axis] == 1]
    coarsest = max(by_patient, key=lambda axis: round(spacing[axis] / max(spacing), 4))
    ratio = spacing[coarsest] / min(spacing) * (1 + RATIO_TOLERANCE)
    if len(single) == 1:
        depth = single[0]
    elif ratio >= 2:
        depth = coarsest
    else:
        depth = by_patient[0]
    height, width = (axis for axis in by_patient if axis != depth)
    axes = (depth, height, width)
    flips = [bool(affine[patient_axis[axis], axis] < 0) for axis in axes]
    return axes, (flips[0], flips[1], flips[2])


def choose_upright_axes(shape: Shape, affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """As `choose_axes`, but from the head downwards: rows of a picture are numbered from above."""
    axes, flips = choose_axes(shape, affine)
    superior = nearest_patient_axes(affine).index(2)
    first, second, third = (flip != (axis == superior) for axis, flip in zip(axes, flips, strict=True))
    return axes, (first, second, third)


def nearest_patient_axes(affine: np.ndarray) -> tuple[int, int, int]:
    """For each storage axis, the patient axis (0 left, 1 posterior, 2 superior) it follows best, each taken once."""
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))  # [patient, storage]
    first, second, third = max(
        itertools.permutations(range(3)), key=lambda order: sum(cosines[order[axis], axis] for axis in range(3))
    )
    return first, second, third


def orient(array: np.ndarray, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    """(…, A0, A1, A2) to (…, D, H, W), as a view."""
    lead = array.ndim - 3
    array = array.transpose(*range(lead), *(lead + axis for axis in axes))
    return np.flip(array, tuple(lead + axis for axis in range(3) if flips[axis]))


def unorient(array: np.ndarray, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> np.ndarray:
    """(…, D, H, W) back to (…, A0, A1, A2), as a view."""
    lead = array.ndim - 3
    array = np.flip(array, tuple(lead + axis for axis in range(3) if flips[axis]))
    inverse = np.argsort(axes)
    return array.transpose(*range(lead), *(lead + int(axis) for axis in inverse))
