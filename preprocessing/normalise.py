"""Intensities to [-1, 1], one convention at every stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..plan import IntensityRule


def normalise(image: np.ndarray, rules: Sequence[IntensityRule], missing: Sequence[int] = ()) -> np.ndarray:
    """(C, D, H, W), any intensities, to float32 in [-1, 1] by each channel's rule. A constant channel becomes -1.

    Args:
        missing: numbers of channels that are not there, which become 0.
    """
    channels = [
        np.zeros(channel.shape, np.float32) if number in missing else normalise_channel(channel, rule)
        for number, (channel, rule) in enumerate(zip(image, rules, strict=True))
    ]
    return np.stack(channels)  # (C, D, H, W)


def normalise_channel(channel: np.ndarray, rule: IntensityRule) -> np.ndarray:
    """One channel (D, H, W) by its window, or by percentiles of its non-zero voxels (all, if all are zero)."""
    if rule.kind == "window":
        low, high = rule.low, rule.high
    else:
        values = channel[channel != 0]
        low, high = np.percentile(values if values.size else channel, (rule.low, rule.high)).tolist()
    if not high > low:
        return np.full(channel.shape, -1, np.float32)
    scaled = (channel.astype(np.float32) - low) * (2 / (high - low)) - 1
    return scaled.clip(-1, 1)
