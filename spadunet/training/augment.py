"""Augmentation of one patch by batchgeneratorsv2's transforms.

Nothing is mirrored unless it is asked for: on small datasets rotation, scaling and gamma teach more (measured on cine
MR), and the body is not symmetric. Nothing is rotated out of plane where slices are thick.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from ..preprocessing.mirror import MirrorAxis
from ..spacing import Shape
from .patch_recipes import PATCH_RECIPES, USUAL, PatchRecipe, Range

BLUR_REACH = 3
"""Voxels that the widest kernel reaches; it is mirrored at the borders, which needs more voxels than that."""
NO_BLUR = 0.05
"""Sigma of a kernel with a single voxel."""
MARGIN = 0.3
"""Share of a patch read beyond each side, so that rotation and zooming out see real voxels, all but the farthest."""


def margin(size: Shape, da: int, recipe: PatchRecipe = PATCH_RECIPES[USUAL]) -> Shape:
    """Voxels read beyond each side of a patch; none along depth where slices are thick and the recipe spares them."""
    depth, height, width = (int(side * MARGIN + 0.5) for side in size)
    return (0 if da >= 1 and recipe.spares_thick_depth else depth), height, width


def augment(
    image: Tensor,
    classes: Tensor,
    da: int,
    size: Shape,
    generator: np.random.Generator,
    recipe: PatchRecipe = PATCH_RECIPES[USUAL],
) -> tuple[Tensor, Tensor]:
    """Cut an augmented patch from the middle of a larger one.

    Args:
        image: (C, D, H, W) in [-1, 1], at least `size` plus the margin.
        classes: (D, H, W) int64.
        generator: the only source of randomness.

    Returns:
        Image (C, *size) in [-1, 1] and classes (*size) int64.
    """
    with seeded(int(generator.integers(2**31))):
        # In [0, 1], where a factor of brightness leaves air black.
        result = transforms(size, da >= 1, recipe)(image=(image + 1) / 2, segmentation=classes[None].to(torch.int16))
    return result["image"].clamp_(0, 1) * 2 - 1, result["segmentation"][0].long()


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


@functools.lru_cache(maxsize=32)
def transforms(size: Shape, is_thick: bool, recipe: PatchRecipe = PATCH_RECIPES[USUAL]) -> BasicTransform:
    """The transforms of a patch size."""
    spares_depth = is_thick and recipe.spares_thick_depth
    spatial = SpatialTransform(
        size,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=recipe.rotation_share,
        rotation=functools.partial(draw_angle, recipe.rotation_thick if is_thick else recipe.rotation),
        p_scaling=recipe.scaling_share,
        scaling=functools.partial(in_plane_scale, recipe.scaling) if spares_depth else recipe.scaling,
        p_synchronize_scaling_across_axes=0 if spares_depth else 1,
        padding_mode_image="border",
        border_mode_seg="border",
    )
    blur_sigma = functools.partial(in_plane_sigma if spares_depth else any_sigma, recipe.blur_sigma)
    intensities = [
        (recipe.noise_share, GaussianNoiseTransform(noise_variance=recipe.noise_sigma, synchronize_channels=True)),
        (recipe.blur_share, GaussianBlurTransform(blur_sigma, benchmark=False)),
        (recipe.brightness_share, MultiplicativeBrightnessTransform(BGContrast(recipe.brightness), False)),
        (recipe.contrast_share, ContrastTransform(BGContrast(recipe.contrast), True, False)),
        (recipe.low_resolution_share, SimulateLowResolutionTransform(recipe.low_resolution, True, True, (0,))),
        (
            recipe.gamma_share,
            GammaTransform(BGContrast(recipe.gamma), recipe.inverted_gamma_share, False, 1, recipe.keeps_statistics),
        ),
    ]
    return ComposeTransforms(
        [spatial, *(RandomTransform(transform, share) for share, transform in intensities if share)]
    )


def draw_angle(largest: Range, image: Tensor, dim: int, **_: object) -> float:
    """Rotation about the depth axis (0) by up to the first angle, about the others by up to the second."""
    angle = largest[0] if dim == 0 else largest[1]
    return np.random.uniform(-angle, angle) if angle else 0.0


def in_plane_scale(scaling: Range, image: Tensor, dim: int, **_: object) -> float:
    """Scaling in plane only."""
    return 1.0 if dim == 0 else np.random.uniform(*scaling)


def any_sigma(sigma: Range, shape: Sequence[int], dim: int) -> float:
    """Blur along any axis (C, D, H, W) that is long enough."""
    return np.random.uniform(*sigma) if shape[dim] > BLUR_REACH else NO_BLUR


def in_plane_sigma(sigma: Range, shape: Sequence[int], dim: int) -> float:
    """Blur in plane only."""
    return NO_BLUR if dim == 1 else any_sigma(sigma, shape, dim)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that the transforms draw from, and put them back as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
