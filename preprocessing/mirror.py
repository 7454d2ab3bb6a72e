"""Which axes of a preprocessed case may be mirrored, and what becomes of its labels there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ..case import Geometry
from ..image import spacing_of
from ..labels import LabelSet, Mirrored
from ..sides import PATIENT_AXES, PatientAxis
from .orient import nearest_patient_axes


@dataclass(frozen=True, kw_only=True)
class MirrorAxis:
    """An axis of the array that may be turned round."""

    array_axis: int
    """0 depth, 1 height, 2 width."""
    labels: Mirrored


def mirror_axes(geometry: Geometry, labels: LabelSet, wanted: Collection[PatientAxis]) -> tuple[MirrorAxis, ...]:
    """The axes of a case's array that run along a wanted axis of the patient and that the labels' names leave free.

    A picture has no orientation: its width is taken for left to right, its height for either of the other two, of
    which one must be wanted and both be free. An axis of one voxel has no mirror image.
    """
    directions: list[tuple[PatientAxis, ...]]
    if is_picture(geometry):
        directions = [PATIENT_AXES, PATIENT_AXES[1:], PATIENT_AXES[:1]]
    else:
        nearest = nearest_patient_axes(np.array(geometry.stored_affine))
        directions = [(PATIENT_AXES[nearest[axis]],) for axis in geometry.axes]
    found = []
    for array_axis, along in enumerate(directions):
        mirrored = [labels.mirrored(axis) for axis in along]
        first = mirrored[0]
        if geometry.shape[array_axis] > 1 and not set(wanted).isdisjoint(along) and None not in mirrored and first:
            found.append(MirrorAxis(array_axis=array_axis, labels=first))
    return tuple(found)


def is_picture(geometry: Geometry) -> bool:
    """True for one slice whose file does not say how it lies in the patient: PNG, and 2D images in general."""
    affine = np.array(geometry.stored_affine)
    as_stored = np.eye(4)[[2, 1, 0, 3]] * np.array([*spacing_of(affine), 1.0])
    return geometry.stored_shape[0] == 1 and bool(np.array_equal(affine, as_stored))
