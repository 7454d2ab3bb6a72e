"""Image and plan to case: orient, crop, normalise, resample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..case import Case, Geometry
from ..errors import InputError
from ..image import Image, LabelMap, format_spacing, shape_of
from ..memory import available_bytes
from ..orient import choose_axes, orient
from ..plan import ImagePlan, Plan
from ..spacing import Shape, Spacing
from .crop import Box, crop, nonzero_box, whole_box
from .normalise import scales_of
from .resample import CUBIC, LINEAR, resample_classes, resample_image, shape_at, spline_orders

MAX_SIZE = 1 << 14
"""Voxels along an axis that is resampled, before or after; its operator is a dense matrix."""


@dataclass(frozen=True, kw_only=True)
class OrientedImage:
    """An image turned to depth, height, width and cropped to what is not zero, on its own spacing."""

    array: np.ndarray
    """(C, D, H, W)."""
    spacing_mm: Spacing
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    box: Box

    @property
    def shape(self) -> Shape:
        """(D, H, W)."""
        return shape_of(self.array)

    def follow(self, label_array: np.ndarray) -> np.ndarray:
        """Turn and crop a label array (A0, A1, A2) of the same grid alike, to (D, H, W)."""
        return crop(orient(label_array, self.axes, self.flips), self.box)


def orient_and_crop(image: Image, *, is_whole: bool = False) -> OrientedImage:
    """Turn an image to depth, height, width and crop it to what is not zero.

    Args:
        is_whole: crop nothing.
    """
    axes, flips = choose_axes(image.shape, image.affine)
    array = orient(image.array, axes, flips)  # (C, D, H, W)
    box = whole_box(shape_of(array)) if is_whole else nonzero_box(array)
    depth, height, width = (image.spacing_mm[axis] for axis in axes)
    return OrientedImage(array=crop(array, box), spacing_mm=(depth, height, width), axes=axes, flips=flips, box=box)


def preprocess(
    name: str,
    image: Image,
    label_map: LabelMap | None,
    plan: Plan,
    *,
    dtype: type[np.floating] = np.float32,
    device: str = "cpu",
) -> Case:
    """Bring an image, and its label map where there is one, to what the network sees.

    Args:
        image: as stored, with as many channels as the plan.
        label_map: on the same grid, with ids of the plan's labels only.
        dtype: of the case's image.
        device: where the image is resampled: cpu, or what torch calls a GPU.
    """
    case = preprocess_image(name, image, plan, dtype=dtype, device=device)
    if label_map is None:
        return case
    geometry = case.geometry
    classes = orient(plan.labels.to_classes(label_map.array), geometry.axes, geometry.flips)
    orders = spline_orders(geometry.cropped_spacing_mm, geometry.spacing_mm, LINEAR)
    classes = resample_classes(crop(classes, geometry.crop), geometry.shape, orders)
    return replace(case, classes=np.ascontiguousarray(classes))


def preprocess_image(
    name: str,
    image: Image,
    plan: ImagePlan,
    *,
    size_voxels: Shape | None = None,
    dtype: type[np.floating] = np.float32,
    device: str = "cpu",
) -> Case:
    """Bring an image to what the network sees.

    Args:
        image: as stored, with as many channels as the plan.
        size_voxels: (depth, height, width) that the whole image, uncropped, is brought to in the place of the plan's
            spacing; a single slice stays one.
        dtype: of the case's image.
        device: where the image is resampled: cpu, or what torch calls a GPU.

    Raises:
        InputError: if the result would not fit into memory, or would be a slice of a volume.
    """
    oriented = orient_and_crop(image, is_whole=size_voxels is not None)
    if size_voxels is None:
        spacing_mm = target_spacing(plan, oriented.spacing_mm, num_slices=oriented.shape[0])
        shape = shape_at(oriented.shape, oriented.spacing_mm, spacing_mm)
    else:
        shape = shape_of_size(oriented.shape, size_voxels)
        spacing_mm = spacing_at(oriented.shape, oriented.spacing_mm, shape)
    require_memory(shape, oriented, spacing_mm, np.dtype(dtype).itemsize)
    geometry = Geometry(
        stored_shape=image.shape,
        stored_affine=image.affine.tolist(),
        axes=oriented.axes,
        flips=oriented.flips,
        crop=oriented.box,
        shape=shape,
        spacing_mm=spacing_mm,
    )
    # First to [-1, 1]: a spline's ringing would turn zeros into foreground.
    array = resample_image(
        oriented.array,
        shape,
        spline_orders(oriented.spacing_mm, spacing_mm, CUBIC),
        prepare=scales_of(oriented.array, plan.intensity, image.missing_channels),
        dtype=dtype,
        device=device,
    )
    return Case(name=name, image=array, classes=None, geometry=geometry, missing_channels=image.missing_channels)


def shape_of_size(shape: Shape, size_voxels: Shape) -> Shape:
    """What an image of (depth, height, width) becomes at a size; a single slice stays one.

    Raises:
        InputError: if it is a volume and the size is that of a slice.
    """
    if shape[0] > 1 and size_voxels[0] == 1:
        raise InputError(
            f"a volume of {shape[0]} slices cannot become one slice of {size_voxels[1]}×{size_voxels[2]}; give single "
            "slices, or a plan whose input_size_voxels has several"
        )
    return (1 if shape[0] == 1 else size_voxels[0]), *size_voxels[1:]


def spacing_at(shape: Shape, spacing_mm: Spacing, new_shape: Shape) -> Spacing:
    """Spacing at which as many voxels cover the same extent."""
    sides = [old * size / new for size, old, new in zip(shape, spacing_mm, new_shape, strict=True)]
    return sides[0], sides[1], sides[2]


def require_memory(shape: Shape, oriented: OrientedImage, spacing_mm: Spacing, num_bytes: int) -> None:
    """Refuse what would not fit into memory by its result alone, before the system kills the process.

    Raises:
        InputError: if there is less memory.
    """
    needed, free = math.prod(shape) * len(oriented.array) * num_bytes, available_bytes()
    resampled = [max(sizes) for sizes in zip(oriented.shape, shape, strict=True) if len(set(sizes)) > 1]
    if max(resampled, default=0) > MAX_SIZE or needed > free:
        raise InputError(
            f"an image of {format_spacing(oriented.spacing_mm)} mm becomes {'×'.join(map(str, shape))} voxels of "
            f"{format_spacing(spacing_mm)} mm ({needed / 1e9:.3g} GB); correct its spacing or the plan's"
        )


def target_spacing(plan: ImagePlan, spacing_mm: Spacing, *, num_slices: int) -> Spacing:
    """Spacing that an image is brought to: the plan's, its own if native; a single slice keeps its thickness."""
    if plan.target_spacing_mm == "native":
        return spacing_mm
    depth, height, width = plan.target_spacing_mm
    return (spacing_mm[0] if num_slices == 1 else depth), height, width
