"""Augmentation of a batch: parameters are drawn on the processor, and applied to all patches at once on any device.

Nothing is mirrored unless it is asked for: on small datasets rotation, scaling and gamma teach more (measured on cine
MR), and the body is not symmetric. Nothing is rotated out of plane where slices are thick. Letters: B patches, C
channels; D, H, W depth, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..preprocessing.mirror import MirrorAxis
from ..spacing import Shape
from .grids import grid_of, is_in_plane, rotation
from .intensities import BLUR_REACH, add_noise, blur, change_contrast, change_gamma, coarsen
from .patch_recipes import PATCH_RECIPES, USUAL, PatchRecipe, Range


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to a batch, in this order; intensities are changed in [0, 1]. On the processor."""

    size: Shape
    """Of the patches that come out."""
    matrices: np.ndarray
    """(B, 3, 3), voxels that were read a voxel of the patch, over (depth, height, width), about the middle."""
    noise: Tensor
    """(B, 1) standard deviation; 0 for none."""
    noise_seeds: tuple[int, ...]
    """Of each patch."""
    blur: Tensor
    """(B, C, 3) standard deviation in voxels along depth, height and width; 0 for none."""
    brightness: Tensor
    """(B, C) factor."""
    contrast: Tensor
    """(B, C) factor about the mean; no value leaves the range of the patch."""
    zoom: Tensor
    """(B, 1) of the pixels in plane, and back; 1 for none."""
    gamma: Tensor
    """(B, C) power, between the lowest and highest value; below 0 of the inverted patch."""
    keeps_statistics: bool
    """Mean and standard deviation are put back after gamma."""

    @property
    def read_size(self) -> Shape:
        """Voxels that patches are made from: the smallest box that none of them leaves, about the same middle."""
        half = (np.array(self.size) - 1) / 2
        beyond = (np.abs(self.matrices) @ half - half).max(0)
        depth, height, width = (
            int(s + 2 * max(math.ceil(b - 1e-6), 0)) for s, b in zip(self.size, beyond, strict=True)
        )
        return depth, height, width


def draw_augmentation(
    num_patches: int,
    num_channels: int,
    da: int,
    size: Shape,
    generator: np.random.Generator,
    recipe: PatchRecipe = PATCH_RECIPES[USUAL],
) -> Augmentation:
    """Each change now and then; as many numbers are drawn whatever they are."""
    is_thick = da >= 1
    spares_depth = is_thick and recipe.spares_thick_depth

    def chosen(share: float) -> np.ndarray:
        return (generator.random(num_patches) < share)[:, None]

    def drawn(share: float, limits: Range, neutral: float) -> Tensor:
        """One number a patch, evenly between the limits."""
        return as_float(np.where(chosen(share), generator.uniform(*limits, (num_patches, 1)), neutral))

    def factors(share: float, limits: Range, *, is_even: bool = False) -> Tensor:
        """1, or below 1 half of the time and above it the other half; or evenly between the limits."""
        place = generator.uniform(-1, 1, (num_patches, num_channels))
        if is_even:
            factor = limits[0] + (place + 1) / 2 * (limits[1] - limits[0])
        else:
            factor = 1 + np.where(place < 0, place * (1 - limits[0]), place * (limits[1] - 1))
        return as_float(np.where(chosen(share), factor, 1.0))

    about_depth, about_others = recipe.rotation_thick if is_thick else recipe.rotation
    angles = generator.uniform(-1, 1, (num_patches, 3)) * (about_depth, about_others, about_others)
    angles = np.where(chosen(recipe.rotation_share), angles, 0)
    scales = generator.uniform(*recipe.scaling, (num_patches, 3))
    scales = np.where((True, False, False), 1.0, scales) if spares_depth else scales[:, :1].repeat(3, 1)
    scales = np.where(chosen(recipe.scaling_share), scales, 1.0)
    sigmas = generator.uniform(*recipe.blur_sigma, (num_patches, num_channels, 3))
    is_blurred = np.array(size) > BLUR_REACH
    is_blurred[0] &= not spares_depth
    powers = factors(recipe.gamma_share, recipe.gamma, is_even=recipe.has_even_gamma)
    is_inverted = torch.from_numpy(chosen(recipe.inverted_gamma_share)) & (powers != 1)
    return Augmentation(
        size=size,
        matrices=np.stack([rotation(*turn) @ np.diag(scale) for turn, scale in zip(angles, scales, strict=True)]),
        noise=drawn(recipe.noise_share, recipe.noise_sigma, 0),
        noise_seeds=tuple(generator.integers(2**31, size=num_patches).tolist()),
        blur=as_float(np.where(chosen(recipe.blur_share)[..., None] & is_blurred, sigmas, 0)),
        brightness=factors(recipe.brightness_share, recipe.brightness),
        contrast=factors(recipe.contrast_share, recipe.contrast),
        zoom=drawn(recipe.low_resolution_share, recipe.low_resolution, 1),
        gamma=torch.where(is_inverted, -powers, powers),
        keeps_statistics=recipe.keeps_statistics,
    )


def join(parts: Sequence[Augmentation]) -> Augmentation:
    """What is done to a batch of the patches of all parts, which are of one recipe, size and number of channels."""
    return replace(
        parts[0],
        matrices=np.concatenate([part.matrices for part in parts]),
        noise=torch.cat([part.noise for part in parts]),
        noise_seeds=tuple(seed for part in parts for seed in part.noise_seeds),
        blur=torch.cat([part.blur for part in parts]),
        brightness=torch.cat([part.brightness for part in parts]),
        contrast=torch.cat([part.contrast for part in parts]),
        zoom=torch.cat([part.zoom for part in parts]),
        gamma=torch.cat([part.gamma for part in parts]),
    )


def as_float(array: np.ndarray) -> Tensor:
    """float32."""
    return torch.from_numpy(array.astype(np.float32))


def augment(image: Tensor, classes: Tensor, changes: Augmentation) -> tuple[Tensor, Tensor]:
    """Augmented patches, on the device of the image.

    Args:
        image: (B, C, *read_size) in [-1, 1]; a channel that is 0 everywhere is missing.
        classes: (B, k·d, h, w) int64, where (d, h, w) is the read size: k slices of labels for each of the image.

    Returns:
        Image (B, C, *size) in [-1, 1], 0 where a channel is missing, and classes (B, k·D, H, W) int64. Noise alone
        differs from device to device.
    """
    is_there = image.flatten(2).any(2)[..., None, None, None]  # (B, C, 1, 1, 1)
    image, classes = place(image, classes, changes.matrices, changes.size)
    x = image.add_(1).mul_(0.5)  # a factor of brightness leaves air black
    add_noise(x, changes.noise, changes.noise_seeds)
    for values, neutral, change in (
        (changes.blur, 0, blur),
        (changes.brightness, 1, torch.mul),
        (changes.contrast, 1, change_contrast),
        (changes.zoom, 1, coarsen),
        (changes.gamma, 1, partial(change_gamma, keeps_statistics=changes.keeps_statistics)),
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

    Patches that are neither are cut out of the middle. Those that are neither tilted nor scaled along depth are
    interpolated slice by slice, as 2D images: the same, and faster.

    Args:
        image: (B, C, d, h, w), its sides larger than `size` by even numbers.
        classes: (B, k·d, h, w). Of the k slices of a merged one, each is taken where their middle goes.
        matrices: as `Augmentation.matrices`.
    """
    extra = [(n - s) // 2 for n, s in zip(image.shape[2:], size, strict=True)]
    depth, height, width = (slice(e, e + s) for e, s in zip(extra, size, strict=True))
    num_merged = classes.shape[1] // image.shape[2]
    classes = classes.unflatten(1, (-1, num_merged)).movedim(2, 1)  # (B, k, d, h, w)
    patches, labels = (x[:, :, depth, height, width].clone() for x in (image, classes))
    is_moved = (matrices != np.eye(3)).any((1, 2))
    keeps_slices = np.array([is_in_plane(matrix) and matrix[0, 0] == 1 for matrix in matrices])
    for is_chosen, is_2d in ((is_moved & keeps_slices, True), (is_moved & ~keeps_slices, False)):
        if not is_chosen.any():
            continue
        chosen = torch.from_numpy(np.nonzero(is_chosen)[0]).to(image.device)
        boxes, targets, turns = image[chosen], classes[chosen], matrices[is_chosen]
        if is_2d:
            boxes, targets = (x[:, :, depth].flatten(1, 2) for x in (boxes, targets))  # (B, C*D, h, w)
            turns = turns[:, 1:, 1:]
        seen, found = sample(boxes, targets, turns, size[-turns.shape[-1] :])
        patches[chosen], labels[chosen] = seen.view(patches[chosen].shape), found.view(labels[chosen].shape)
    return patches, labels.movedim(1, 2).flatten(1, 2)


def sample(boxes: Tensor, targets: Tensor, turns: np.ndarray, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """As `place`, of N axes: images (B, C, …) and classes (B, c, …) of this size about the middle of their boxes."""
    shape = tuple(boxes.shape[2:])
    centre = (np.array(shape) - 1) / 2
    grids = torch.cat([grid_of(turn, centre, shape, size) for turn in turns]).to(boxes.device)
    seen = functional.grid_sample(boxes, grids, padding_mode="border", align_corners=False)
    found = functional.grid_sample(
        targets.to(boxes.dtype), grids, mode="nearest", padding_mode="border", align_corners=False
    )
    return seen, found.long()


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
