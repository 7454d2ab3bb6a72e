"""Augmentation of a batch: parameters are drawn on the processor, and applied to all patches at once on any device.

Nothing is mirrored unless it is asked for: on small datasets rotation, scaling and gamma teach more (measured on cine
MR), and the body is not symmetric. Nothing is rotated out of plane where slices are thick. Letters: B patches, C
channels; D, H, W depth, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..preprocessing.mirror import MirrorAxis
from ..spacing import Shape
from .grids import grid_of, is_in_plane, rotation

ROTATION_SHARE, SCALING_SHARE = 0.4, 0.4
MAX_ROTATION = math.pi / 12
MAX_ROTATION_IN_PLANE = math.pi / 6
SCALING = (0.8, 1.25)
NOISE_SHARE, NOISE = 0.15, (0.0, 0.005)
BLUR_SHARE, BLUR_SIGMA = 0.1, (0.5, 1.0)
BLUR_REACH = 3
"""Voxels of the kernel to either side; it is mirrored at the borders, and shorter axes are not blurred."""
BRIGHTNESS_SHARE, BRIGHTNESS = 0.2, (0.75, 1.25)
CONTRAST_SHARE, CONTRAST = 0.2, (0.75, 1.25)
GAMMA_SHARE, GAMMA = 0.4, (0.7, 1.5)
LEAST = 1e-7
"""Keeps a patch of one value from a division by zero."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a batch, in this order; intensities are changed in [0, 1]. On the processor."""

    size: Shape
    """Of the patches that come out."""
    matrices: np.ndarray
    """(B, 3, 3), voxels that were read a voxel of the patch, over (depth, height, width), about the middle."""
    noise: Tensor
    """(B, 1) standard deviation; 0 for none."""
    noise_seed: int
    blur: Tensor
    """(B, C, 3) standard deviation in voxels along depth, height and width; 0 for none."""
    brightness: Tensor
    """(B, C) factor."""
    contrast: Tensor
    """(B, C) factor about the mean; no value leaves the range of the patch."""
    gamma: Tensor
    """(B, C) power, between the lowest and highest value; mean and standard deviation stay."""

    @property
    def read_size(self) -> Shape:
        """Voxels that the patches are made from: the smallest box that none of them leaves, about the same middle."""
        half = (np.array(self.size) - 1) / 2
        beyond = (np.abs(self.matrices) @ half - half).max(0)
        depth, height, width = (
            int(s + 2 * max(math.ceil(b - 1e-6), 0)) for s, b in zip(self.size, beyond, strict=True)
        )
        return depth, height, width


def draw_augmentation(
    num_patches: int, num_channels: int, da: int, size: Shape, generator: np.random.Generator
) -> Augmentation:
    """Each change now and then; as many numbers are drawn whatever they are."""
    is_thick = da >= 1

    def chosen(share: float) -> np.ndarray:
        return (generator.random(num_patches) < share)[:, None]

    largest = (MAX_ROTATION_IN_PLANE, 0, 0) if is_thick else (MAX_ROTATION,) * 3
    angles = np.where(chosen(ROTATION_SHARE), generator.uniform(-1, 1, (num_patches, 3)) * largest, 0)
    scales = generator.uniform(*SCALING, (num_patches, 3))
    scales = np.where((True, False, False), 1.0, scales) if is_thick else scales[:, :1].repeat(3, 1)
    scales = np.where(chosen(SCALING_SHARE), scales, 1.0)
    sigmas = generator.uniform(*BLUR_SIGMA, (num_patches, num_channels, 3))
    is_blurred = np.array(size) > BLUR_REACH
    is_blurred[0] &= not is_thick

    def factors(share: float, limits: tuple[float, float]) -> Tensor:
        """1, or below 1 half of the time and above it the other half."""
        place = generator.uniform(-1, 1, (num_patches, num_channels))
        factor = 1 + np.where(place < 0, place * (1 - limits[0]), place * (limits[1] - 1))
        return as_float(np.where(chosen(share), factor, 1.0))

    return Augmentation(
        size=size,
        matrices=np.stack([rotation(*turn) @ np.diag(scale) for turn, scale in zip(angles, scales, strict=True)]),
        noise=as_float(np.where(chosen(NOISE_SHARE), generator.uniform(*NOISE, (num_patches, 1)), 0)),
        noise_seed=int(generator.integers(2**31)),
        blur=as_float(np.where(chosen(BLUR_SHARE)[..., None] & is_blurred, sigmas, 0)),
        brightness=factors(BRIGHTNESS_SHARE, BRIGHTNESS),
        contrast=factors(CONTRAST_SHARE, CONTRAST),
        gamma=factors(GAMMA_SHARE, GAMMA),
    )


def as_float(array: np.ndarray) -> Tensor:
    """float32."""
    return torch.from_numpy(array.astype(np.float32))


def augment(image: Tensor, classes: Tensor, changes: Augmentation) -> tuple[Tensor, Tensor]:
    """Augmented patches, on the device of the image.

    Args:
        image: (B, C, *read_size) in [-1, 1]; a channel that is 0 everywhere is missing.
        classes: (B, *read_size) int64.

    Returns:
        Image (B, C, *size) in [-1, 1], 0 where a channel is missing, and classes (B, *size) int64. Noise alone differs
        from device to device.
    """
    is_there = image.flatten(2).any(2)[..., None, None, None]  # (B, C, 1, 1, 1)
    image, classes = place(image, classes, changes.matrices, changes.size)
    x = image.add_(1).mul_(0.5)  # a factor of brightness leaves air black
    noise = torch.Generator(x.device).manual_seed(changes.noise_seed)
    for values, neutral, change in (
        (changes.noise, 0, lambda y, sigma: y + sigma * torch.randn(y.shape, generator=noise, device=y.device)),
        (changes.blur, 0, blur),
        (changes.brightness, 1, torch.mul),
        (changes.contrast, 1, change_contrast),
        (changes.gamma, 1, change_gamma),
    ):
        apply_where(x, values, neutral, change)
    return x.clamp_(0, 1).mul_(2).sub_(1).mul_(is_there), classes


def apply_where(x: Tensor, values: Tensor, neutral: float, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Change in place the patches of (B, C, D, H, W) that have a value (B, C or 1, …) beside the neutral one."""
    chosen = (values != neutral).flatten(1).any(1).nonzero().flatten()
    if len(chosen):
        there = chosen.to(x.device)
        x[there] = change(x[there], values[chosen].to(x.device)[..., None, None, None])


def place(image: Tensor, classes: Tensor, matrices: np.ndarray, size: Shape) -> tuple[Tensor, Tensor]:
    """Turn and scale about the middle: intensities linearly, classes from the nearest voxel.

    Patches that are neither are cut out of the middle. Where none of the others is tilted or scaled along depth, slices
    are interpolated as 2D images: the same, and faster.

    Args:
        image: (B, C, d, h, w), its sides larger than `size` by even numbers.
        classes: (B, d, h, w).
        matrices: as `Augmentation.matrices`.
    """
    extra = [(n - s) // 2 for n, s in zip(classes.shape[1:], size, strict=True)]
    depth, height, width = (slice(e, e + s) for e, s in zip(extra, size, strict=True))
    patches, labels = image[:, :, depth, height, width].clone(), classes[:, depth, height, width].clone()
    moved = np.nonzero((matrices != np.eye(3)).any((1, 2)))[0]
    if not len(moved):
        return patches, labels
    turns = matrices[moved]
    chosen = torch.from_numpy(moved).to(image.device)
    boxes, targets = image[chosen], classes[chosen]
    if all(is_in_plane(turn) and turn[0, 0] == 1 for turn in turns):
        boxes, targets, turns = boxes[:, :, depth].flatten(1, 2), targets[:, depth], turns[:, 1:, 1:]  # (B, C*D, h, w)
    else:
        targets = targets[:, None]
    shape = tuple(boxes.shape[2:])
    centre = (np.array(shape) - 1) / 2
    grids = torch.cat([grid_of(turn, centre, shape, size[-len(shape) :]) for turn in turns]).to(image.device)
    seen = functional.grid_sample(boxes, grids, padding_mode="border", align_corners=False)
    found = functional.grid_sample(
        targets.to(image.dtype), grids, mode="nearest", padding_mode="border", align_corners=False
    )
    patches[chosen], labels[chosen] = seen.view(patches[chosen].shape), found.view(labels[chosen].shape).long()
    return patches, labels


def blur(x: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur along each axis, mirrored at the borders, as matrix products.

    Args:
        x: (B, C, D, H, W).
        sigmas: (B, C, 3, 1, 1, 1) in voxels; 0 leaves an axis as it is.
    """
    for axis, terms in enumerate(("bcij,bcjhw->bcihw", "bcij,bcdjw->bcdiw", "bcij,bcdhj->bcdhi")):
        sigma = sigmas[:, :, axis, 0, 0]  # (B, C, 1)
        if sigma.any():
            x = torch.einsum(terms, blur_operator(sigma, x.shape[2 + axis]), x)
    return x


def blur_operator(sigma: Tensor, length: int) -> Tensor:
    """(B, C, length, length) matrices that blur a line of voxels; sigma (B, C, 1), 0 for the identity."""
    offsets = torch.arange(-BLUR_REACH, BLUR_REACH + 1, device=sigma.device)
    weights = torch.where(sigma > 0, torch.exp(-0.5 * (offsets / sigma.clamp_min(LEAST)) ** 2), offsets == 0)
    weights = weights / weights.sum(-1, keepdim=True)  # (B, C, 7)
    places = (torch.arange(length, device=sigma.device)[:, None] + offsets).abs()  # (length, 7)
    places = (length - 1 - (length - 1 - places).abs()).clamp_min(0)
    shape = (*sigma.shape[:2], length, len(offsets))
    operator = torch.zeros(*sigma.shape[:2], length, length, device=sigma.device)
    return operator.scatter_add_(3, places.expand(shape), weights[:, :, None].expand(shape))


def change_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Nearer to the mean of each channel or farther from it, within its lowest and highest value."""
    mean = x.mean((2, 3, 4), keepdim=True)
    return ((x - mean) * factor + mean).clamp(x.amin((2, 3, 4), True), x.amax((2, 3, 4), True))


def change_gamma(x: Tensor, power: Tensor) -> Tensor:
    """A power of each channel between its lowest and highest value, with its mean and standard deviation as before."""
    low, high = x.amin((2, 3, 4), True), x.amax((2, 3, 4), True)
    changed = ((x - low) / (high - low).clamp_min(LEAST)).pow(power) * (high - low) + low
    sigma, mean = torch.std_mean(x, (2, 3, 4), correction=0, keepdim=True)
    new_sigma, new_mean = torch.std_mean(changed, (2, 3, 4), correction=0, keepdim=True)
    return (changed - new_mean) * (sigma / new_sigma.clamp_min(LEAST)) + mean


def mirror(
    image: Tensor, classes: Tensor, axes: Sequence[MirrorAxis], generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Turn a patch round along each of the axes every other time; labels that change places in the mirror do.

    Args:
        image: (C, D, H, W).
        classes: (D, H, W) int64.
    """
    for axis in axes:
        if generator.random() < 0.5:
            image, classes = image.flip(axis.array_axis + 1), classes.flip(axis.array_axis)
            classes = torch.tensor(axis.labels.classes)[classes]
    return image, classes


def drop_channels(image: Tensor, missing: Sequence[int], probability: float, generator: np.random.Generator) -> Tensor:
    """With this probability, set some channels to 0, as if the case lacked them; at least one stays.

    Args:
        image: (C, *size); changed in place.
        missing: numbers of channels that are 0 already.
    """
    there = [number for number in range(len(image)) if number not in missing]
    if probability and len(there) > 1 and generator.random() < probability:
        num_dropped = int(generator.integers(1, len(there)))
        image[generator.permutation(there)[:num_dropped].tolist()] = 0
    return image
