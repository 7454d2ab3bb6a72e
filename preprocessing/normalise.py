"""Intensities to [-1, 1], one convention at every stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..plan import IntensityRule

Scale = Callable[[np.ndarray], np.ndarray]
"""Intensities of one channel, any shape, to float32 in [-1, 1]."""


def normalise(image: np.ndarray, rules: Sequence[IntensityRule], missing: Sequence[int] = ()) -> np.ndarray:
    """(C, D, H, W), any intensities, to float32 in [-1, 1] by each channel's rule. A constant channel becomes -1.

    Args:
        missing: numbers of channels that are not there, which become 0.
    """
    scales = scales_of(image, rules, missing)
    return np.stack([scale(channel) for scale, channel in zip(scales, image, strict=True)])  # (C, D, H, W)


def scales_of(image: np.ndarray, rules: Sequence[IntensityRule], missing: Sequence[int] = ()) -> list[Scale]:
    """What brings each channel of (C, D, H, W) to [-1, 1], for any part of it; `missing` as in `normalise`."""
    return [
        nothing if number in missing else scale_of(channel, rule)
        for number, (channel, rule) in enumerate(zip(image, rules, strict=True))
    ]


def nothing(part: np.ndarray) -> np.ndarray:
    """Zeros: what a channel that is not there adds."""
    return np.zeros(part.shape, np.float32)


def scale_of(channel: np.ndarray, rule: IntensityRule) -> Scale:
    """By the rule's window, or by percentiles of the channel's non-zero voxels (D, H, W) (all, if all are zero).

    Where these percentiles are equal, as of a mask of 0 and 1, by the least and the greatest of all voxels.
    """
    if rule.kind == "window":
        low, high = rule.low, rule.high
    else:
        values = channel[channel != 0]
        low, high = np.percentile(values if values.size else channel, (rule.low, rule.high)).tolist()
        if not high > low:
            low, high = float(channel.min()), float(channel.max())

    def scale(part: np.ndarray) -> np.ndarray:
        if not high > low:
            return np.full(part.shape, -1, np.float32)
        scaled = np.subtract(part, np.float32(low), dtype=np.float32)
        scaled *= np.float32(2 / (high - low))
        scaled -= 1
        return scaled.clip(-1, 1, out=scaled)

    return scale
