"""Spoilt copies of images, as scanners, reconstructions and exports spoil them: to learn how answers to them look.

Letters: C channels; A0, A1, A2 array axes in storage order. An axis of one voxel, as of a 2D image, stays as it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ..image import Image, LabelMap

Rng = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Spoiling:
    """What is done to a copy."""

    kind: str
    """A key of KINDS."""
    strength: float
    """0 hardly to be seen, 1 hardly to be read; above 1 worse."""
    seed: tuple[int, ...]

    def __str__(self) -> str:
        """For a table: `noise 0.35`."""
        return f"{self.kind} {self.strength:.2f}"


def spoil(image: Image, reference: LabelMap, what: Spoiling) -> tuple[Image, LabelMap]:
    """An image (C, A0, A1, A2) and its reference after something was done to the first.

    Only a wrong orientation moves the reference, as it moves the image: what was drawn stays on what it was drawn on.
    """
    rng = np.random.default_rng(what.seed)
    if what.kind == "orientation":
        move = draw_move(image.shape, rng)
        array, labels = np.stack([move(channel) for channel in image.array]), move(reference.array)
        return (
            Image(array=array, affine=image.affine, missing_channels=image.missing_channels),
            LabelMap(array=labels, affine=reference.affine),
        )
    array = KINDS[what.kind](image.array.astype(np.float32), what.strength, rng)
    array[list(image.missing_channels)] = 0
    return Image(array=array, affine=image.affine, missing_channels=image.missing_channels), reference


def draw_spoilings(case: str, num_copies: int, seed: int) -> list[Spoiling]:
    """What is done to copies of a case: all kinds in a random order, then again; strengths from 0 to 1.

    The same for a name, whichever other cases there are.
    """
    own = zlib.crc32(case.encode())
    rng = np.random.default_rng((seed, own))
    order: list[str] = []
    while len(order) < num_copies:
        order += rng.permutation(list(KINDS)).tolist()
    return [
        Spoiling(kind=kind, strength=float(rng.uniform()), seed=(seed, own, number))
        for number, kind in enumerate(order[:num_copies])
    ]


def add_noise(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Normal noise of 5 to 50 % of the range of intensities."""
    noise = rng.standard_normal(array.shape, np.float32)
    return array + (0.05 + 0.45 * strength) * range_of(array) * noise


def add_bias(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """A smooth field that makes some parts up to e^0.3 to e^2 times as bright, and others as much darker."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) if size > 1 else [0.0] for size in array.shape[1:]), indexing="ij")
    x, y, z = axes
    terms = [x, y, z, x * y, y * z, x * z, x * x - 0.5, y * y - 0.5, z * z - 0.5]
    field = sum(weight * term for weight, term in zip(rng.standard_normal(len(terms)), terms, strict=True))
    field = field / max(float(np.abs(field).max()), 1e-6)
    lowest = lowest_of(array)
    return (lowest + (array - lowest) * np.exp((0.3 + 1.7 * strength) * field)).astype(np.float32)


def blur(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """A Gaussian of 0.7 to 4 voxels."""
    sigma = 0.7 + 3.3 * strength
    return gaussian_filter(array, [0, *(sigma if size > 1 else 0 for size in array.shape[1:])])


def thicken(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Slices along one axis that are the mean of 2 to 8."""
    axis = draw_axis(array.shape[1:], rng) + 1
    step = round(2 + 6 * strength)
    starts = np.arange(0, array.shape[axis], step)
    counts = np.diff([*starts, array.shape[axis]])
    means = np.add.reduceat(array, starts, axis=axis) / counts.reshape([-1 if a == axis else 1 for a in range(4)])
    return np.repeat(means, counts, axis=axis).astype(np.float32)


def change_contrast(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """A gamma curve with an exponent of e^±0.4 to e^±1.8; of one copy in three, dark is bright."""
    lowest, span = lowest_of(array), range_of(array)
    shares = np.clip((array - lowest) / span, 0, None)
    curve = shares ** np.exp(rng.choice([-1, 1]) * (0.4 + 1.4 * strength))
    if rng.uniform() < 1 / 3:
        curve = np.clip(1 - curve, 0, None)
    return (lowest + span * curve).astype(np.float32)


def cut(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """15 to 65 % of the image are missing at one end of an axis; its lowest value is there instead."""
    axis = draw_axis(array.shape[1:], rng) + 1
    size = array.shape[axis]
    num_cut = min(round(size * (0.15 + 0.5 * strength)), size - 1)
    part = [slice(None)] * 4
    part[axis] = slice(size - num_cut, None) if rng.uniform() < 0.5 else slice(num_cut)
    array = array.copy()
    array[tuple(part)] = array.min(axis=(1, 2, 3), keepdims=True)
    return array


def draw_move(shape: tuple[int, ...], rng: Rng) -> Callable[[np.ndarray], np.ndarray]:
    """A turn by 90°, 180° or 270° in a plane, or a mirror image, of an array (A0, A1, A2): the header stays."""
    axes = [axis for axis, size in enumerate(shape) if size > 1] or [0, 1]
    if len(axes) > 1 and rng.uniform() < 0.75:
        plane = tuple(rng.choice(axes, 2, replace=False).tolist())
        number = int(rng.integers(1, 4))
        return lambda array: np.ascontiguousarray(np.rot90(array, number, plane))
    axis = int(rng.choice(axes))
    return lambda array: np.ascontiguousarray(np.flip(array, axis))


def draw_axis(shape: tuple[int, ...], rng: Rng) -> int:
    """One that has more than a voxel."""
    return int(rng.choice([axis for axis, size in enumerate(shape) if size > 1] or [0]))


def lowest_of(array: np.ndarray) -> np.ndarray:
    """1st percentile of each channel, (C, 1, 1, 1)."""
    return np.percentile(array, 1, axis=(1, 2, 3), keepdims=True).astype(np.float32)


def range_of(array: np.ndarray) -> np.ndarray:
    """From the 1st to the 99th percentile of each channel, (C, 1, 1, 1), above zero."""
    highest = np.percentile(array, 99, axis=(1, 2, 3), keepdims=True)
    return np.maximum(highest - lowest_of(array), 1e-6).astype(np.float32)


def leave(array: np.ndarray, strength: float, rng: Rng) -> np.ndarray:
    """Nothing: a wrong orientation is `draw_move`'s."""
    return array


KINDS: dict[str, Callable[[np.ndarray, float, Rng], np.ndarray]] = {
    "noise": add_noise,
    "bias field": add_bias,
    "blur": blur,
    "thick slices": thicken,
    "contrast": change_contrast,
    "cut": cut,
    "orientation": leave,
}
