"""Images with thicker slices than they were taken with, and label maps back on the images' own slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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

    def image(self, image: Image) -> Image:
        """Each new slice is the mean of what it covers, partly covered slices by their share."""
        ends = np.arange(self.num_new)[:, None] * self.factor
        old = np.arange(self.num_old)[None]
        share = (np.minimum(ends + self.factor, old + 1) - np.maximum(ends, old)).clip(0)  # (new, old)
        share /= share.sum(1, keepdims=True)
        array = np.moveaxis(np.tensordot(share, image.array, (1, self.axis + 1)), 0, self.axis + 1)
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, self.axis] * (self.factor - 1) / 2
        affine[:3, self.axis] *= self.factor
        return Image(array=array.astype(np.float32), affine=affine, missing_channels=image.missing_channels)

    def back(self, label_map: LabelMap, affine: np.ndarray) -> LabelMap:
        """Each old slice has the labels of the new one in which its middle lies."""
        places = np.minimum((np.arange(self.num_old) + 0.5) // self.factor, self.num_new - 1).astype(int)
        return LabelMap(array=label_map.array.take(places, self.axis), affine=affine)
