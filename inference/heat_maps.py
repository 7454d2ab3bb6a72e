"""Where networks that classify look: what each patch counts, on the image's own grid.

The weights are those of the pooling: they tell where a network looks, not why, and not whether it is right.

Letters: D, H, W depth, height, width; A0, A1, A2 storage axes; (d, h, w) patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..case import Geometry
from ..files import atomic_path
from ..formats import NIFTI_ENDINGS, write_array
from ..heat_picture import draw_heat
from ..orient import choose_upright_axes, orient
from ..preprocessing.crop import crop
from ..preprocessing.restore import put_back
from ..preprocessing.views import View
from ..spacing import Shape
from .class_sources import ClassSource
from .classify import shape_of
from .predict_classes import ClassAnswer, Focus

HEAT_FOLDER = "heat_maps"
PICTURE_ENDING = ".jpg"
NO_AFFINE = np.eye(4)[[2, 1, 0, 3]]
"""Of an image that has no place in space: 1 mm, from the point 0, as it is stored."""


def heat_paths(folder: Path, view: str) -> tuple[Path, Path]:
    """Where the heat map of a view and its picture go, below the folder of predictions."""
    return folder / HEAT_FOLDER / f"{view}{NIFTI_ENDINGS[0]}", folder / HEAT_FOLDER / f"{view}{PICTURE_ENDING}"


def tell_constant_maps(sources: Sequence[ClassSource]) -> list[str]:
    """A line for each model whose maps tell nothing, whatever the image."""
    return [
        f"{source.folder}: pools by the mean, which weighs all patches alike: its heat maps tell nothing; those of a "
        "model trained with --pooling attention do"
        for source in sources
        if source.network.task.pooling == "mean"
    ]


def tell_one_patch(answer: ClassAnswer) -> str | None:
    """What to say of a study of which each image is one patch to every model, so that its maps are constant."""
    if any(focus.weights.size > 1 for views in answer.focus for focus in views):
        return None
    patch = "×".join(map(str, answer.focus[0][0].patch))
    return (
        f"{answer.views[0][0].name}: the whole image is one patch of the network, {patch} voxels: its heat map is "
        "constant and tells nothing; train with a larger --input-size, or with spad_vit, whose patches are smaller"
    )


def write_heat_maps(folder: Path, answer: ClassAnswer) -> list[Path]:
    """A NIfTI and a picture for each view of a study; their paths.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    written: list[Path] = []
    for number, view in enumerate(answer.views[0]):
        heat = mean_heat([views[number] for views in answer.views], [focus[number] for focus in answer.focus])
        affine = NO_AFFINE if view.geometry is None else np.array(view.geometry.stored_affine)
        paths = heat_paths(folder, view.name)
        write_array(paths[0], heat, affine)
        with atomic_path(paths[1]) as partial:
            partial.write_bytes(picture_of(view, heat))
        written += paths
    return written


def mean_heat(views: Sequence[View], focus: Sequence[Focus]) -> np.ndarray:
    """Mean over models of a view's weights, float32 (A0, A1, A2) on the stored image's grid.

    The sum is what the models gave the view of all that they gave its study.

    Args:
        views: the same, as each model saw it.
    """
    maps = [heat_on(view.geometry, shape_of(view), it) for view, it in zip(views, focus, strict=True)]
    return np.stack(maps).mean(0, dtype=np.float32)


def heat_on(geometry: Geometry | None, shape: Shape, focus: Focus) -> np.ndarray:
    """Weights of a view on the stored grid, or on one of a shape for an image without a place in space."""
    cropped = regrid(focus.weights, shape if geometry is None else geometry.cropped_shape, focus.size, focus.patch)
    return cropped if geometry is None else put_back(cropped, geometry)


def regrid(weights: np.ndarray, shape: Shape, size: Shape | None = None, patch: Shape = (1, 1, 1)) -> np.ndarray:
    """Weights (d, h, w) over the voxels of a grid of the same extent, float32 `shape`, with the same sum.

    Each voxel gets of each patch what it covers of it. As with `network.classify.spread` nothing is interpolated, which
    would show detail that the network does not have.

    Args:
        size: (D, H, W) voxels that the patches were cut from; the last ones may hang over. None for that of weights.
        patch: of these voxels.
    """
    for axis, (length, side, new) in enumerate(zip(size or weights.shape, patch, shape, strict=True)):
        shares = shares_of(weights.shape[axis], length, side, new)
        weights = np.moveaxis(np.tensordot(shares, weights, (1, axis)), 0, axis)
    return np.ascontiguousarray(weights, dtype=np.float32)


def shares_of(num_patches: int, length: int, side: int, new: int) -> np.ndarray:
    """What share of each patch falls into each voxel along one axis, float32 (new, num_patches)."""
    ends = np.minimum(np.arange(num_patches + 1) * side, length) * (new / length)
    cells = np.arange(new)[:, None]
    covered = np.minimum(ends[1:], cells + 1) - np.maximum(ends[:-1], cells)
    return (covered.clip(0) / np.diff(ends)).astype(np.float32)


def picture_of(view: View, heat: np.ndarray) -> bytes:
    """A JPEG of the slices with the most weight, upright where the file tells how the image lies.

    Args:
        heat: on the stored grid.
    """
    volume, geometry = view.array[0], view.geometry
    if geometry is None:
        return draw_heat(volume, heat, (1.0, 1.0, 1.0))
    weights = regrid(crop(orient(heat, geometry.axes, geometry.flips), geometry.crop), shape_of(view))
    affine = affine_of(geometry)
    axes, flips = choose_upright_axes(geometry.shape, affine)
    spacing_mm = geometry.spacing_mm
    return draw_heat(
        orient(volume, axes, flips),
        orient(weights, axes, flips),
        (spacing_mm[axes[0]], spacing_mm[axes[1]], spacing_mm[axes[2]]),
    )


def affine_of(geometry: Geometry) -> np.ndarray:
    """Directions and spacing of a preprocessed array (D, H, W), (4, 4); without its place."""
    stored = np.array(geometry.stored_affine)
    affine = np.eye(4)
    for axis, (source, flip, spacing) in enumerate(
        zip(geometry.axes, geometry.flips, geometry.spacing_mm, strict=True)
    ):
        direction = stored[:3, source] / np.linalg.norm(stored[:3, source])
        affine[:3, axis] = direction * (-spacing if flip else spacing)
    return affine
