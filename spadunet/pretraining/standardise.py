"""One image as a corpus holds it: depth first, without dark borders, not too large, in [-1, 1].

As Luo et al. 2024, appendix C. Letters: C channels; A0, A1, A2 storage axes; D, H, W depth, height, width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..image import Image, as_channels, shape_of
from ..orient import choose_axes, orient
from ..plan import IntensityRule
from ..preprocessing.crop import crop, nonzero_box
from ..preprocessing.normalise import Scale, scale_of
from ..preprocessing.store import IMAGE_DTYPE
from ..spacing import Spacing

MAX_SHORT_SIDE = 512
"""Pixels of the shorter in-plane side."""
LOW_PERCENTILE, HIGH_PERCENTILE = 0.5, 99.5
"""Of the voxels above the minimum: what is below the first is background, and the two become -1 and 1."""
MAX_PERCENTILE_VALUES = 1 << 21
"""Percentiles of more are those of as many drawn at random."""
MIN_DISTINCT_VALUES = 8
"""A label map has fewer, an image more."""
QUICK_LOOK = 4096
"""Values that are looked at before all are."""
BYTES_A_VALUE = 16
"""Measured, less what a process takes at rest: 5 to 9 of volumes of 8, 16 and 32 bits, 13 to 16 of 64 bits, and 15 of
colour pictures that are shrunk."""
SLAB_VALUES = 1 << 22
"""Worked on at once as float32: what is held besides input and output does not grow with the image."""


@dataclass(frozen=True, kw_only=True)
class StandardImage:
    """`array` (C, D, H, W) float16 in [-1, 1], C being 1 or 3, and its spacing."""

    array: np.ndarray
    spacing_mm: Spacing


def standardise(image: Image) -> StandardImage:
    """Depth first, cropped to the foreground, the short side at most 512, percentiles to [-1, 1].

    A colour picture and one of 8 bits keep their scale, 0 to 255; colour that is grey everywhere becomes grey.

    Args:
        image: of one channel, or of three of a colour picture; float or whole numbers.

    Raises:
        InputError: if every voxel is the same, or too few values differ.
    """
    array = as_channels(image.array, 1)
    check_values(array)
    axes, flips = choose_axes(image.shape, image.affine)
    depth, height, width = (image.spacing_mm[axis] for axis in axes)
    is_picture = array.dtype == np.uint8 and (len(array) > 1 or image.shape[axes[0]] == 1)
    threshold = 0.0 if is_picture else percentiles_of(array)[0]
    cropped = crop_to_foreground(orient(array, axes, flips), threshold)
    low, high = (0.0, 255.0) if is_picture else percentiles_of(cropped)
    if not high > low:
        raise InputError(
            f"nearly all of its voxels are {low:g}: their {LOW_PERCENTILE} and {HIGH_PERCENTILE} percentiles are the "
            "same; is it a mask?"
        )
    scale = scale_of(cropped, IntensityRule(kind="window", low=low, high=high))
    shape = shape_of(cropped)
    factor = min(1.0, MAX_SHORT_SIDE / min(shape[1:]))
    size = (max(round(shape[1] * factor), 1), max(round(shape[2] * factor), 1))
    scaled = scale_slices(cropped, scale, size)
    spacing_mm = (depth, height * shape[1] / size[0], width * shape[2] / size[1])
    return StandardImage(array=scaled, spacing_mm=spacing_mm)


def check_values(array: np.ndarray) -> None:
    """Refuse what is no image.

    Raises:
        InputError: if every voxel is the same, or too few values differ.
    """
    low, high = array.min(), array.max()
    if low == high:
        raise InputError(f"every voxel is {low:g}; expected an image")
    if (few := distinct_values(array, MIN_DISTINCT_VALUES)) is not None:
        raise InputError(f"holds only {few} different values, as a label map does; expected an image")


def distinct_values(array: np.ndarray, limit: int) -> int | None:
    """How many values differ; None if that is `limit` or more, which is told early."""
    flat = array.reshape(-1)
    seen: set[float] = set(np.unique(flat[:: max(flat.size // QUICK_LOOK, 1)]).tolist())  # enough for most images
    if len(seen) >= limit:
        return None
    for part in np.array_split(flat, max(flat.size // SLAB_VALUES, 1)):
        seen.update(np.unique(part).tolist())
        if len(seen) >= limit:
            return None
    return len(seen)


def percentiles_of(array: np.ndarray) -> tuple[float, float]:
    """0.5 and 99.5 percentile of the voxels above the minimum."""
    low = array.min()
    if array.size > MAX_PERCENTILE_VALUES:
        places = np.random.default_rng(0).integers(array.size, size=MAX_PERCENTILE_VALUES)
        values = array.reshape(-1)[places] if array.flags.c_contiguous else array[np.unravel_index(places, array.shape)]
    else:
        values = array
    values = values[values > low]
    if not values.size:
        return float(low), float(array.max())
    first, last = np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)).tolist()
    return first, last


def crop_to_foreground(array: np.ndarray, threshold: float) -> np.ndarray:
    """Smallest box of (C, D, H, W) that holds all voxels with every channel above a threshold; as a view."""
    foreground = array[:1] > threshold
    for channel in array[1:]:
        foreground &= channel > threshold
    return crop(array, nonzero_box(foreground))


def scale_slices(array: np.ndarray, scale: Scale, size: tuple[int, int]) -> np.ndarray:
    """(C, D, H, W) to float16 (C, D, *size), scaled and then averaged to the size, a few slices at a time."""
    num_channels, depth, height, width = array.shape
    result = np.empty((num_channels, depth, *size), IMAGE_DTYPE)
    step = max(1, SLAB_VALUES // (num_channels * height * width))
    for first in range(0, depth, step):
        part = scale(array[:, first : first + step])
        result[:, first : first + step] = part if size == (height, width) else shrink(part, size)
    return result


def shrink(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(C, D, H, W) float32 to (C, D, *size), each pixel a weighted mean of all that it covers."""
    import torch
    from torch.nn.functional import interpolate

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return interpolate(tensor, size, mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1).numpy()


def frame_weight(num_frames: int) -> float:
    """Weight of one frame of a series: all together count nearly twice as one image, however many (section 4.1)."""
    return (2 * num_frames - 1) / num_frames**2


def bytes_to_standardise(num_values: float) -> int:
    """Memory at the peak, reading included."""
    return math.ceil(num_values * BYTES_A_VALUE)
