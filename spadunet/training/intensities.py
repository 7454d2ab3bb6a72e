"""Changes of intensity, of a whole batch at once. Letters: B patches, C channels; D, H, W depth, height, width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BLUR_REACH = 3
"""Voxels of the kernel to either side; it is mirrored at the borders, and shorter axes are not blurred."""
LEAST = 1e-7
"""Keeps a patch of one value from a division by zero."""
ALONG = ("bcij,bcjhw->bcihw", "bcij,bcdjw->bcdiw", "bcij,bcdhj->bcdhi")
"""Matrices (B, C, i, j) applied along depth, height or width."""


def add_noise(x: Tensor, sigmas: Tensor, seeds: Sequence[int]) -> None:
    """Gaussian noise, in place; each patch's own, whichever others are in the batch.

    Args:
        x: (B, C, D, H, W).
        sigmas: (B, 1) standard deviation; 0 for none.
        seeds: of each patch.
    """
    for patch, sigma, seed in zip(x, sigmas.flatten().tolist(), seeds, strict=True):
        if sigma:
            generator = torch.Generator(x.device).manual_seed(seed)
            patch.add_(torch.randn(patch.shape, generator=generator, device=x.device), alpha=sigma)


def blur(x: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur along each axis, mirrored at the borders, as matrix products.

    Args:
        x: (B, C, D, H, W).
        sigmas: (B, C, 3, 1, 1, 1) in voxels; 0 leaves an axis as it is.
    """
    for axis, terms in enumerate(ALONG):
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


def coarsen(x: Tensor, zoom: Tensor) -> Tensor:
    """Fewer pixels in plane, each the nearest one, and back to as many as before by linear interpolation.

    Args:
        x: (B, C, D, H, W).
        zoom: (B, 1, 1, 1, 1), coarse pixels a pixel, above 0 and up to 1.
    """
    for axis in (1, 2):
        operator = coarse_operator(zoom.flatten(), x.shape[2 + axis])
        x = torch.einsum(ALONG[axis], operator[:, None].expand(-1, x.shape[1], -1, -1), x)
    return x


def coarse_operator(zoom: Tensor, length: int) -> Tensor:
    """(B, length, length) matrices that take a line of voxels to a whole number of coarse ones, and back; zoom (B,)."""
    number = (zoom.double() * length).round().clamp_min(1)[:, None]  # (B, 1) coarse pixels
    place = (torch.arange(length, device=zoom.device) + 0.5) * number / length - 0.5  # of each voxel among them
    place = place.clamp_min(0).minimum(number - 1)
    before = place.floor()
    after = (before + 1).minimum(number - 1)
    operator = torch.zeros(len(zoom), length, length, device=zoom.device)
    for coarse, weight in ((before, 1 - (place - before)), (after, place - before)):
        source = ((coarse + 0.5) * length / number).floor().long()  # the voxel nearest to the middle of the pixel
        operator.scatter_add_(2, source[..., None], weight.float()[..., None])
    return operator


def change_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Nearer to the mean of each channel or farther from it, within its lowest and highest value."""
    mean = x.mean((2, 3, 4), keepdim=True)
    return ((x - mean) * factor + mean).clamp(x.amin((2, 3, 4), True), x.amax((2, 3, 4), True))


def change_gamma(x: Tensor, power: Tensor, *, keeps_statistics: bool = True) -> Tensor:
    """A power of each channel between its lowest and highest value.

    Args:
        x: (B, C, D, H, W).
        power: (B, C, 1, 1, 1); where it is below 0, its absolute value, with black and white exchanged meanwhile.
        keeps_statistics: mean and standard deviation of each channel stay as before.
    """
    x = x * power.sign()
    low, high = x.amin((2, 3, 4), True), x.amax((2, 3, 4), True)
    changed = ((x - low) / (high - low).clamp_min(LEAST)).pow(power.abs()) * (high - low) + low
    if keeps_statistics:
        sigma, mean = torch.std_mean(x, (2, 3, 4), correction=0, keepdim=True)
        new_sigma, new_mean = torch.std_mean(changed, (2, 3, 4), correction=0, keepdim=True)
        changed = (changed - new_mean) * (sigma / new_sigma.clamp_min(LEAST)) + mean
    return changed * power.sign()
