"""Back from the network's grid to the image's own: the inverse of `preprocess`."""

from __future__ import annotations

import numpy as np

from ..case import Geometry
from ..image import LabelMap, spacing_of
from ..labels import LabelSet
from .crop import uncrop
from .orient import unorient
from .resample import LINEAR, largest_of_logits, paint_positive, spline_orders


def restore_logits(logits: np.ndarray, geometry: Geometry, labels: LabelSet) -> LabelMap:
    """Logits (K, D, H, W) of a case to a label map on its stored image's grid; background outside the crop.

    The class of the largest logit wins; regions are painted over each other, each where its logit is above 0.
    """
    shape, orders = geometry.cropped_shape, orders_back(geometry)
    if labels.regions:
        classes = paint_positive(logits, labels.painted_classes, shape, orders)
    else:
        classes = largest_of_logits(logits, shape, orders)
    return place(classes, geometry, labels)


def orders_back(geometry: Geometry) -> tuple[int, int, int]:
    """Spline orders from the case's grid to the cropped image's."""
    spacing = spacing_of(np.array(geometry.stored_affine))
    depth, height, width = (spacing[axis] for axis in geometry.axes)
    return spline_orders(geometry.spacing_mm, (depth, height, width), LINEAR)


def place(classes: np.ndarray, geometry: Geometry, labels: LabelSet) -> LabelMap:
    """Undo crop and orientation, and turn class numbers into label ids."""
    whole = uncrop(classes, geometry.crop, geometry.oriented_shape)
    stored = np.ascontiguousarray(unorient(whole, geometry.axes, geometry.flips))
    return LabelMap(array=labels.to_ids(stored), affine=np.array(geometry.stored_affine))
