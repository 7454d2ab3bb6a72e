"""What a network that classifies sees of an image: a study's views, or an image out of a MedMNIST file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..case import Case, Geometry
from ..classification_plan import ClassificationPlan
from ..dataset import RawCase
from ..errors import InputError
from ..image import Image, LabelMap, read_image
from ..study import Study
from .integrity import constant_channels
from .normalise import normalise
from .preprocess import preprocess_image


@dataclass(frozen=True, kw_only=True)
class View:
    """One image as a network sees it."""

    name: str
    array: np.ndarray
    """(C, D, H, W) float32 in [-1, 1]; 0 in a channel that is missing."""
    da: int
    """Degree of anisotropy."""
    geometry: Geometry | None
    """The way back to the image on disk; None of an image that has no place in space, as MedMNIST's."""


def views_of_study(
    study: Study,
    plan: ClassificationPlan,
    *,
    device: str = "cpu",
    read: Callable[[RawCase], Image] | None = None,
) -> Iterator[View]:
    """Each view of a study, read and preprocessed by the plan, in the study's order.

    Args:
        device: where images are resampled: cpu, or what torch calls a GPU.
        read: gives an image with the plan's channels; None where the files have them, in the plan's order.

    Raises:
        InputError: if an image cannot be read, is constant, or does not fit the plan; names the file.
    """
    for raw in study.views:
        yield view_of_case(preprocess_view(raw, plan, device=device, read=read))


def preprocess_view(
    raw: RawCase,
    plan: ClassificationPlan,
    *,
    dtype: type[np.floating] = np.float32,
    device: str = "cpu",
    read: Callable[[RawCase], Image] | None = None,
) -> Case:
    """Read an image and bring it to the plan's spacing or size; a case without classes.

    Raises:
        InputError: as `views_of_study`.
    """
    image = read(raw) if read else read_view(raw, num_channels=len(plan.channel_names))[0]
    try:
        return preprocess_image(raw.name, image, plan, size_voxels=plan.input_size_voxels, dtype=dtype, device=device)
    except InputError as error:
        raise InputError(f"{raw.paths[0]}: {error}") from error


def read_view(raw: RawCase, *, num_channels: int) -> tuple[Image, LabelMap | None]:
    """Read an image without a label map, and make sure that it shows something; as `extract_case` takes it.

    Raises:
        InputError: if a file cannot be read, there are too few or too many channels, or one is constant.
    """
    image = read_image(raw.image_paths, num_channels=num_channels, series=raw.series)
    if problems := list(constant_channels(raw.image_paths, image)):
        raise InputError("\n".join(problems))
    return image, None


def view_of_case(case: Case) -> View:
    """A preprocessed image, as read or as stored."""
    array = case.image.astype(np.float32, copy=False)
    return View(name=case.name, array=array, da=case.geometry.da, geometry=case.geometry)


def view_of_array(name: str, array: np.ndarray, plan: ClassificationPlan) -> View:
    """An image (C, D, H, W) of a MedMNIST file, at its own size: the network interpolates a batch at once.

    Args:
        array: uint8, as `read_images` gives it.
    """
    return View(name=name, array=normalise(array, plan.intensity), da=plan.degree_of_anisotropy, geometry=None)
