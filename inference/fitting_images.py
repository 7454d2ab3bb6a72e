"""Whether images are of the kind that a plan was made for, pictures or volumes, grey or colour."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..classification_plan import ClassificationPlan
from ..colours import is_picture, require_colours
from ..dataset import RawCase
from ..errors import InputError
from ..formats import TIFF_ENDINGS, ending_of
from ..image import Image
from ..medmnist import MedMNIST
from ..preprocessing.estimate import HeaderCase, read_case_headers
from ..preprocessing.preprocess import target_spacing
from ..spacing import MAX_DA, degree_of_anisotropy

MOST = 0.5
"""Share of an image's voxels outside the window from which on it is told."""

log = logging.getLogger("spadunet")


def require_fitting_file(dataset: MedMNIST, plan: ClassificationPlan) -> None:
    """Refuse a MedMNIST file whose images a model cannot mean.

    Raises:
        InputError: if they have other channels than the plan, are pictures where it is for volumes or the other way
            round, or the plan needs a spacing, which the file does not have.
    """
    path, names = dataset.path, ", ".join(plan.channel_names)
    if dataset.num_channels != len(plan.channel_names):
        raise InputError(
            f"{path}: its images have {dataset.num_channels} channels, the model {len(plan.channel_names)}: {names}; "
            "give the file of the dataset that the model learned, or one like it"
        )
    if not plan.is_native:
        raise InputError(
            f"{path}: tells no spacing, but the model sees images at {plan.target_spacing_mm} mm; give a folder of "
            "images that tell theirs, or a model of MedMNIST files"
        )
    if dataset.is_planar != plan.is_planar:
        here, there = ("pictures", "volumes") if dataset.is_planar else ("volumes", "pictures of one slice")
        shape = "×".join(map(str, dataset.shape))
        raise InputError(
            f"{path}: its images are {here}, {shape}, but the model learned {there}; give a file of {there}, or a "
            f"model of {here}"
        )


def require_fitting_images(folder: Path, cases: Sequence[RawCase], plan: ClassificationPlan, num_channels: int) -> None:
    """Refuse images of which headers show that a model cannot mean them; what cannot be read is told in its turn.

    Args:
        num_channels: of an image on disk.

    Raises:
        InputError: in one line, if there are volumes where the model learned slices, or colours where it learned grey.
    """
    if plan.is_planar:
        volumes = [header for header in headers_of(cases) if is_volume(header, plan)]
        if volumes:
            shape = "×".join(map(str, volumes[0].facts.shape))
            raise InputError(
                f"-i {folder}: {len(volumes)} of {len(cases)} images are volumes, such as {volumes[0].case.name} of "
                f"{shape} voxels, but the model learned single slices; give single slices, or a model of volumes"
            )
    elif are_slices(cases):
        log.warning("%s: all images are single slices, but the model learned volumes", folder)
    learned = f"the model learned {', '.join(plan.channel_names)}"
    remedy = "convert them to grey, or give a model of colours"
    require_colours(f"-i {folder}", cases, num_channels, reason=learned, remedy=remedy)


def are_slices(cases: Sequence[RawCase]) -> bool:
    """Whether all images that can be read are single slices, and there is one."""
    is_known = all(map(is_picture, cases))
    for header in headers_of(cases):
        if header.facts.shape[0] > 1:
            return False
        is_known = True
    return is_known


def headers_of(cases: Sequence[RawCase]) -> Iterator[HeaderCase]:
    """Headers of the images that may have several slices, of those that can be read."""
    for case in cases:
        if is_picture(case) and not ending_of(case.paths[0], TIFF_ENDINGS):
            continue
        try:
            header = read_case_headers(case)
        except InputError:
            continue
        if header is not None:
            yield header


def is_volume(header: HeaderCase, plan: ClassificationPlan) -> bool:
    """Whether an image has several slices that a plan for pictures would take for one, or for neighbours."""
    facts = header.facts
    if facts.shape[0] == 1 or plan.input_size_voxels is not None:
        return facts.shape[0] > 1
    spacing_mm = target_spacing(plan, facts.spacing_mm, num_slices=facts.shape[0])
    return degree_of_anisotropy(spacing_mm) < MAX_DA


def tell_saturation(image: Image, plan: ClassificationPlan) -> str | None:
    """What to say of an image of which a fixed window shows hardly anything: most voxels lie outside it.

    Voxels of 0, which most scans have around the body, do not count.
    """
    for array, name, rule in zip(image.array, plan.channel_names, plan.intensity, strict=True):
        inside = array[array != 0]
        if rule.kind != "window" or not inside.size:
            continue
        share = float(np.mean((inside < rule.low) | (inside > rule.high)))
        if share > MOST:
            return (
                f"{share:.0%} of its voxels lie outside {rule.low:g} to {rule.high:g}, all that the model sees of the "
                f"channel {name}; its intensities run from {inside.min():g} to {inside.max():g}: are they those that "
                "the model learned?"
            )
    return None
