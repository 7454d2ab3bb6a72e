"""Images with thicker slices than they were taken with, and what is told of these back on the images' own slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from spadunet.image import Image, LabelMap


@dataclass(frozen=True, kw_only=True)
class Thicker:
    """How an image's slices become thicker along one storage axis."""

    axis: int
    factor: float
    """New slice spacing over the old."""
    num_old: int

    @property
    def num_new(self) -> int:
        """Whole new slices from the first old one on."""
        return max(math.floor(self.num_old / self.factor), 1)

    def mean(self, array: np.ndarray) -> np.ndarray:
        """Of (C, A0, A1, A2), float32: new slices are means of what they cover, partly covered ones by their share."""
        ends = np.arange(self.num_new)[:, None] * self.factor
        old = np.arange(self.num_old)[None]
        share = (np.minimum(ends + self.factor, old + 1) - np.maximum(ends, old)).clip(0)  # (new, old)
        share /= share.sum(1, keepdims=True)
        return np.moveaxis(np.tensordot(share, array, (1, self.axis + 1)), 0, self.axis + 1).astype(np.float32)

    def image(self, image: Image) -> Image:
        """The mean of an image, where the new slices lie."""
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, self.axis] * (self.factor - 1) / 2
        affine[:3, self.axis] *= self.factor
        return Image(array=self.mean(image.array), affine=affine, missing_channels=image.missing_channels)

    def largest(self, shares: np.ndarray) -> np.ndarray:
        """Class numbers (A0, A1, A2) on the old slices, of class shares (K, A0, A1, A2) on the new ones.

        Shares are interpolated between the middles of new slices by a cubic spline; beyond the first and the last they
        stay. The largest wins, the first of equal ones.
        """
        planes = np.moveaxis(shares, self.axis + 1, 0)  # (new, K, …)
        middles = ((np.arange(self.num_old) + 0.5) / self.factor - 0.5).clip(0, self.num_new - 1)
        between = CubicSpline(np.arange(self.num_new), planes) if self.num_new > 1 else lambda _: planes[0]
        return np.stack([between(middle).argmax(axis=0) for middle in middles], axis=self.axis)

    def back(self, label_map: LabelMap, affine: np.ndarray) -> LabelMap:
        """Each old slice has the labels of the new one in which its middle lies."""
        places = np.minimum((np.arange(self.num_old) + 0.5) // self.factor, self.num_new - 1).astype(int)
        return LabelMap(array=label_map.array.take(places, self.axis), affine=affine)
