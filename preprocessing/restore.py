"""Back from the network's grid to the image's own: the inverse of `preprocess`."""

from __future__ import annotations

import numpy as np

from ..case import Geometry
from ..image import LabelMap
from ..labels import LabelSet
from ..orient import orient, unorient
from .crop import crop, uncrop
from .probabilities import PROBABILITY
from .resample import LINEAR, spline_orders
from .winners import Winners


class Restorer:
    """Logits of a case, some planes at a time, to a label map on its stored image's grid; background outside the crop.

    The class of the largest logit wins; regions are painted over each other, each where its logit is above 0. Neither
    logits nor, unless they are asked for, probabilities are ever made on the image's grid as a whole.

    Args:
        axis: of (depth, height, width) along which planes come.
        keeps_probabilities: make `probabilities`, too.
    """

    probabilities: np.ndarray | None
    """(K, A0, A1, A2) float16 in storage order: of classes, background first, or of regions; None where not asked for.
    Outside the crop background is 1, and regions are 0."""

    def __init__(
        self, geometry: Geometry, labels: LabelSet, axis: int = 0, *, keeps_probabilities: bool = False
    ) -> None:
        self.geometry, self.labels, self.axis = geometry, labels, axis
        self.probabilities = background_alone(geometry, labels) if keeps_probabilities else None
        self.winners = Winners(
            self.moved(geometry.shape),
            self.moved(geometry.cropped_shape),
            self.moved(orders_back(geometry)),
            labels.num_outputs,
            labels.painted_classes if labels.regions else None,
            probabilities=None if self.probabilities is None else self.inside(self.probabilities),
        )

    def inside(self, stored: np.ndarray) -> np.ndarray:
        """(K, A0, A1, A2) on the cropped image's grid, the axis of the planes first, as a view."""
        oriented = orient(stored, self.geometry.axes, self.geometry.flips)
        return np.moveaxis(crop(oriented, self.geometry.crop), 1 + self.axis, 1)

    def moved(self, values: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of (depth, height, width), the axis of the planes first."""
        others = [value for axis, value in enumerate(values) if axis != self.axis]
        return values[self.axis], others[0], others[1]

    def add(self, logits: np.ndarray) -> None:
        """Take the next planes (K, D, H, W), beginning with the first ones."""
        self.winners.add(np.moveaxis(logits, 1 + self.axis, 1))

    def label_map(self) -> LabelMap:
        """What became of all planes."""
        return place(np.moveaxis(self.winners.result, 0, self.axis), self.geometry, self.labels)


def background_alone(geometry: Geometry, labels: LabelSet) -> np.ndarray:
    """Probabilities (K, A0, A1, A2) float16 of an image of nothing."""
    probabilities = np.zeros((labels.num_outputs, *geometry.stored_shape), PROBABILITY)
    if not labels.regions:
        probabilities[0] = 1
    return probabilities


def restore_logits(logits: np.ndarray, geometry: Geometry, labels: LabelSet) -> LabelMap:
    """Logits (K, D, H, W) of a whole case to a label map, as `Restorer`."""
    restorer = Restorer(geometry, labels)
    restorer.add(logits)
    return restorer.label_map()


def orders_back(geometry: Geometry) -> tuple[int, int, int]:
    """Spline orders from the case's grid to the cropped image's."""
    return spline_orders(geometry.spacing_mm, geometry.cropped_spacing_mm, LINEAR)


def place(classes: np.ndarray, geometry: Geometry, labels: LabelSet) -> LabelMap:
    """Undo crop and orientation, and turn class numbers into label ids."""
    return LabelMap(array=labels.to_ids(put_back(classes, geometry)), affine=np.array(geometry.stored_affine))


def put_back(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(D, H, W) of the cropped grid to storage order (A0, A1, A2); 0 outside the crop."""
    whole = uncrop(array, geometry.crop, geometry.oriented_shape)
    return np.ascontiguousarray(unorient(whole, geometry.axes, geometry.flips))
