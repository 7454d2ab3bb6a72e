"""Which axes of a preprocessed case may be mirrored, and what becomes of its labels there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from ..case import Geometry
from ..labels import LabelSet, Mirrored
from ..orient import nearest_patient_axes, tells_orientation
from ..sides import PATIENT_AXES, PatientAxis


@dataclass(frozen=True, kw_only=True)
class MirrorAxis:
    """An axis of the array that may be turned round."""

    array_axis: int
    """0 depth, 1 height, 2 width."""
    labels: Mirrored


def mirror_axes(geometry: Geometry, labels: LabelSet, wanted: Collection[PatientAxis]) -> tuple[MirrorAxis, ...]:
    """The axes of a case's array that run along a wanted axis of the patient and that the labels' names leave free.

    A picture has no orientation: its width is taken for left to right, its height for either of the other two, of
    which one must be wanted and both be free. So is a stack of pictures, its depth taken as its height; but any of its
    axes may be left to right in truth, so that it has a mirror image only where no name tells a side or an end. An axis
    of one voxel has no mirror image.
    """
    directions: list[tuple[PatientAxis, ...]]
    if not tells_orientation(np.array(geometry.stored_affine)):
        if is_stack(geometry) and not is_same_in_all_mirrors(labels):
            return ()
        directions = [PATIENT_AXES[1:], PATIENT_AXES[1:], PATIENT_AXES[:1]]
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


def is_stack(geometry: Geometry) -> bool:
    """True for more than one slice."""
    return geometry.stored_shape[0] > 1


def is_same_in_all_mirrors(labels: LabelSet) -> bool:
    """True if labels become the same whichever axis is mirrored: no name tells a side or an end."""
    first, *others = [labels.mirrored(axis) for axis in PATIENT_AXES]
    return first is not None and all(other == first for other in others)


def tell_unoriented(geometries: Iterable[Geometry], labels: LabelSet) -> str:
    """For the log: how many of the cases are not mirrored, since their files do not tell which side is which."""
    stacks = [it for it in geometries if is_stack(it) and not tells_orientation(np.array(it.stored_affine))]
    if not stacks or is_same_in_all_mirrors(labels):
        return ""
    return f"images without orientation, not mirrored since labels name sides or ends: {len(stacks)}"
