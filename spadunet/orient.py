"""Storage order to (depth, height, width) and back, by the affine alone.

Letters: C channels; A0, A1, A2 storage axes; D, H, W depth, height, width.
"""

from __future__ import annotations

import itertools

import numpy as np

from .image import spacing_of
from .spacing import RATIO_TOLERANCE, Shape

PATIENT_AXES = (2, 1, 0)  # superior, posterior, left: the order of depth, height and width in an axial image
ENDS = (("R", "L"), ("A", "P"), ("I", "S"))
"""Where the patient axes begin and end: right, left, anterior, posterior, inferior, superior."""
SIDEWAYS = float(np.sin(np.radians(22.5)))
"""An axis that leans further towards a patient axis than this has its letter too."""


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


def tells_orientation(affine: np.ndarray) -> bool:
    """False for an image whose file does not say how it lies in the patient: PNG, TIFF, and 2D images in general.

    A volume whose rows, columns and slices are those of the scanner, from the point 0, counts as such: it is what
    programs write that know of no orientation.
    """
    as_stored = np.eye(4)[[2, 1, 0, 3]] * np.array([*spacing_of(affine), 1.0])
    return not np.array_equal(affine, as_stored)


def ends_of_axes(
    affine: np.ndarray, axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> tuple[tuple[str, str], ...]:
    """The sides of the patient at which depth, height and width begin and end, as DICOM names them: ("A", "P").

    Oblique axes have a letter for each direction that they clearly lean to, the strongest first: ("RA", "LP").
    """
    ends = []
    for axis, flip in zip(axes, flips, strict=True):
        direction = affine[:3, axis] / np.linalg.norm(affine[:3, axis]) * (-1 if flip else 1)
        order = [int(it) for it in np.argsort(-np.abs(direction), kind="stable") if abs(direction[it]) > SIDEWAYS]
        towards = [bool(direction[it] > 0) for it in order]
        first = "".join(ENDS[it][not positive] for it, positive in zip(order, towards, strict=True))
        last = "".join(ENDS[it][positive] for it, positive in zip(order, towards, strict=True))
        ends.append((first, last))
    return tuple(ends)


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
