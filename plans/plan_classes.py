"""Studies or a MedMNIST file to the plan of a classification."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from ..channels import COLOURS
from ..classification_plan import ClassificationPlan
from ..dataset import RawCase
from ..errors import InputError
from ..fingerprint import Fingerprint
from ..medmnist import MedMNIST
from ..plan import IntensityRule
from ..record import digest_of
from ..spacing import MAX_DA, Shape, degree_of_anisotropy
from ..study import LabelledStudies
from ..workers import THIS_PROCESS, Workers
from .extract import OrientCase, ReadCase, extract_all, extract_case, summarise_images
from .planner import TargetSpacing, Window, plan_images

MEDMNIST_SIDE = 160
"""Voxels along each axis that the paper interpolates MedMNIST's 28 to (Luo et al. 2024, section 5.2)."""
GREY_LEVELS = IntensityRule(kind="window", low=0, high=255)
GREY = ("grey",)


def plan_medmnist(dataset: MedMNIST, *, side_voxels: int = MEDMNIST_SIDE) -> ClassificationPlan:
    """The paper's way with MedMNIST: every image interpolated to one size, all grey levels to [-1, 1].

    Args:
        side_voxels: of the pictures or cubes that the network sees.
    """
    depth = 1 if dataset.is_planar else side_voxels
    channel_names = GREY if dataset.num_channels == 1 else COLOURS
    return ClassificationPlan(
        dataset_name=dataset.name,
        channel_names=channel_names,
        intensity=(GREY_LEVELS,) * len(channel_names),
        target_spacing_mm="native",
        degree_of_anisotropy=dataset.da,
        input_size_voxels=(depth, side_voxels, side_voxels),
        classes=dataset.classes,
        fingerprint_digest=dataset.digest,
    )


def fingerprint_studies(
    found: LabelledStudies,
    *,
    read: ReadCase,
    orient: OrientCase,
    workers: Workers = THIS_PROCESS,
    memory_of: Callable[[RawCase], int] | None = None,
) -> Fingerprint:
    """Facts of all images that are not of the test split.

    Args:
        read: reads and checks an image.
        orient: turns an image to depth, height, width and crops it, as preprocessing will.
        memory_of: bytes that reading and orienting an image takes at most.

    Raises:
        InputError: if an image cannot be used; all problems in one text, a line each.
    """
    views = planned_views(found)
    extract = partial(extract_case, read=read, orient=orient)
    observed = extract_all(extract, views, f"Reading {found.name}", workers=workers, memory_of=memory_of)
    return summarise_images(found.name, found.folder, observed, source_digest=digest_of_studies(found))


def planned_views(found: LabelledStudies) -> list[RawCase]:
    """All images that are not of the test split."""
    return [view for study in found.studies if study.split != "test" for view in study.views]


def digest_of_studies(found: LabelledStudies) -> str:
    """Changes when one of the files does that a fingerprint is made of."""
    views = sorted(planned_views(found), key=lambda view: view.name)
    return digest_of("".join(view.name + view.content() for view in views))


def plan_studies(
    fingerprint: Fingerprint,
    found: LabelledStudies,
    *,
    target_spacing: TargetSpacing = "median",
    window: Window | None = None,
    input_size_voxels: Shape | None = None,
) -> ClassificationPlan:
    """Decide spacing and intensities as for segmentation, or the size that whole images are interpolated to.

    Args:
        target_spacing: median of the images, native, or given in mm; of no use where a size is given.
        window: intensities that become -1 and 1 in CT channels.
        input_size_voxels: (depth, height, width) that every whole image is interpolated to.

    Raises:
        InputError: if a size and a spacing are given, the size is that of a slice and an image has several, or a
            window and no channel is CT.
    """
    if input_size_voxels is not None and target_spacing not in ("median", "native"):
        raise InputError(
            f"target spacing {target_spacing} and input size {input_size_voxels}: images are brought to either; "
            "give one of them"
        )
    image_plan = plan_images(
        fingerprint,
        found.channel_names,
        optional_channels=found.optional_channels,
        target_spacing=target_spacing if input_size_voxels is None else "native",
        window=window,
    )
    if input_size_voxels is not None:
        da = da_at_size(fingerprint, input_size_voxels)
        image_plan = image_plan.model_copy(update={"degree_of_anisotropy": da})
    return ClassificationPlan(
        **dict(image_plan),
        input_size_voxels=input_size_voxels,
        classes=found.classes,
        fingerprint_digest=fingerprint.digest(),
    )


def da_at_size(fingerprint: Fingerprint, size_voxels: Shape) -> int:
    """Degree of anisotropy of the median volume once it is interpolated to a size.

    Raises:
        InputError: if the size is that of a slice and an image has several.
    """
    if fingerprint.is_planar():
        return MAX_DA
    volumes = fingerprint.volumes()
    if size_voxels[0] == 1:
        raise InputError(
            f"input size {size_voxels}: one slice, but {volumes[0].name} has {volumes[0].shape[0]}; give a depth"
        )
    extents_mm = [[size * side for size, side in zip(it.shape, it.spacing_mm, strict=True)] for it in volumes]
    depth, height, width = (
        statistics.median(along) / size for along, size in zip(zip(*extents_mm, strict=True), size_voxels, strict=True)
    )
    return degree_of_anisotropy((depth, height, width))
