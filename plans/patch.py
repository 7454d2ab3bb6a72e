"""How large a patch the network is trained on."""

from __future__ import annotations

from ..spacing import MAX_DA, Shape

VOXELS_PER_GB = 128**3 / 8
"""nnU-Net trains 128³ voxels (two a batch) with 8 GB of a GPU; ours needs the same order for its `base` preset.

The SPAD-ViT of that preset keeps as much per voxel at DA 0, and half as much again from DA 4 on (docs/method.md)."""
IN_PLANE_MULTIPLE = 4
"""Whole multiples waste no padding down to the second halving; coarser ones would waste more around small images."""
ROUNDING = 1e-9
"""The cube root of 128³ is 127.99999999999997 in floating point."""


def choose_patch(da: int, median_shape: Shape, memory_gb: float) -> Shape:
    """Patch (depth, height, width) in voxels: isotropic in mm within the memory, no larger than the median image.

    In voxels its depth is 2^da times smaller than its sides; room that a small image leaves along one axis goes to
    the others. One slice where every depth kernel is pending.
    """
    budget = memory_gb * VOXELS_PER_GB
    multiples = (max(IN_PLANE_MULTIPLE >> da, 1), IN_PLANE_MULTIPLE, IN_PLANE_MULTIPLE)
    limits = [-(-size // multiple) * multiple for size, multiple in zip(median_shape, multiples, strict=True)]
    if da == MAX_DA:
        limits[0] = 1
    sizes = [float(2**-da), 1.0, 1.0]
    growing = [0, 1, 2]
    while growing:
        volume = sizes[0] * sizes[1] * sizes[2]
        factor = (budget / volume) ** (1 / len(growing))
        for axis in growing:
            sizes[axis] *= factor
        reached = [axis for axis in growing if sizes[axis] >= limits[axis]]
        if not reached:
            break
        for axis in reached:
            sizes[axis] = limits[axis]
        growing = [axis for axis in growing if axis not in reached]
    depth, height, width = (
        max(int(size * (1 + ROUNDING)) // multiple * multiple, multiple)
        for size, multiple in zip(sizes, multiples, strict=True)
    )
    return depth, height, width


def scale_patch(patch_size_voxels: Shape, from_da: int, da: int) -> Shape:
    """A patch given at one degree of anisotropy, at another: as long in mm, so half as deep in voxels for each degree.

    No deeper than wide, and one slice where every depth kernel is pending; at its own degree the patch itself.
    """
    depth, height, width = patch_size_voxels
    if da == from_da:
        return patch_size_voxels
    if da == MAX_DA:
        return 1, height, width
    return max(min((depth << from_da) >> da, max(height, width)), 1), height, width
