"""A heat map over the slices of its image that have most of it.

Letters: D, H, W depth, height, width of an upright volume.
"""

from __future__ import annotations

import io

import numpy as np

from .overlay import JPEG, LONGER_SIDE_PIXELS, SHOWN_PERCENTILES
from .spacing import Spacing

NUM_SLICES = 3
APART = 8
"""Slices that are shown lie a share of one in so many of all apart: neighbours look the same."""
GAP = 0.02
"""Between slices, as a share of the picture's width."""
OPACITY = 0.6
"""Of the hottest voxel."""


def heaviest_slices(heat: np.ndarray) -> list[int]:
    """Slices of (D, H, W) along depth with most weight, the first of them first; of equal neighbours the middle one."""
    sums = heat.sum(axis=(1, 2), dtype=np.float64)
    left, apart = sums.copy(), max(len(sums) // APART, 1)
    chosen: list[int] = []
    while len(chosen) < NUM_SLICES and (left > 0).any():
        first = int(left.argmax())
        equal = np.flatnonzero(~np.isclose(left[first:], left[first], rtol=1e-4))
        last = first + int(equal[0]) if len(equal) else len(left)
        middle = (first + last - 1) // 2
        chosen.append(middle)
        left[max(0, middle - apart) : middle + apart + 1] = 0
    return sorted(chosen) or [len(sums) // 2]


def draw_heat(volume: np.ndarray, heat: np.ndarray, spacing_mm: Spacing) -> bytes:
    """A JPEG of the slices with most weight, side by side; voxels have the shape that they have in the patient.

    Args:
        volume: intensities (D, H, W).
        heat: weights on the same grid, none negative.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    slices = heaviest_slices(heat)
    height_mm, width_mm = (size * side for size, side in zip(volume.shape[1:], spacing_mm[1:], strict=True))
    scale = LONGER_SIDE_PIXELS / max(height_mm, width_mm) / 100
    inches = max(0.4, width_mm * scale) * len(slices) / (1 - GAP * (len(slices) - 1)), max(0.4, height_mm * scale)
    figure = Figure(figsize=inches, dpi=100, facecolor="black")
    low, high = np.percentile(volume[slices], SHOWN_PERCENTILES)
    hottest = max(float(heat[slices].max()), np.finfo(np.float32).tiny)
    share = (1 - GAP * (len(slices) - 1)) / len(slices)
    for place, index in enumerate(slices):
        axes = figure.add_axes((place * (share + GAP), 0, share, 1))
        axes.imshow(volume[index], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
        warmth = heat[index] / hottest
        axes.imshow(warmth, cmap="inferno", vmin=0, vmax=1, alpha=OPACITY * warmth, aspect="auto")
        axes.set_axis_off()
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_jpg(buffer, pil_kwargs=JPEG)
    return buffer.getvalue()
