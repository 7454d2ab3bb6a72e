"""Checks of a raw dataset before any work: everything that is wrong, told at once."""

from __future__ import annotations

from functools import partial

from ..dataset import Dataset, RawCase
from ..errors import InputError
from ..image import Image, LabelMap, geometry_difference, read_image, read_label_map
from ..labels import LabelSet
from ..parallel import map_cases


def check_dataset(dataset: Dataset, *, num_processes: int) -> list[str]:
    """One line a problem, sorted; none if the dataset is sound."""
    check = partial(check_case, labels=dataset.labels, num_channels=len(dataset.channel_names))
    outcomes = map_cases(check, dataset.cases, num_processes=num_processes, title=f"Checking {dataset.name}")
    return sorted(outcome.problem for outcome in outcomes if outcome.problem)


def check_case(case: RawCase, *, labels: LabelSet, num_channels: int) -> None:
    """As `read_checked`, keeping nothing."""
    read_checked(case, labels=labels, num_channels=num_channels)


def read_checked(case: RawCase, *, labels: LabelSet, num_channels: int) -> tuple[Image, LabelMap | None]:
    """Read a case and make sure that it can be used.

    Raises:
        InputError: if a file cannot be read, there are too few or too many channels, one is constant, or the label map
            has another grid or unknown ids.
    """
    image = read_image(case.image_paths, num_channels=num_channels)
    is_colour = len(case.image_paths) < num_channels
    for number, channel in enumerate(image.array):
        if channel.min() == channel.max() and not is_colour:
            raise InputError(
                f"{case.image_paths[number]}: every voxel is {channel.flat[0]:g}; expected an image: "
                "export it again or remove it"
            )
    label_map = None
    if case.label_path is not None:
        label_map = read_label_map(case.label_path)
        difference = geometry_difference(image, label_map)
        if difference:
            raise InputError(
                f"{case.label_path}: does not lie on the grid of {case.image_paths[0]}: {difference}; "
                "resample the labels to the image"
            )
        unknown = labels.unknown_ids(label_map.array)
        if unknown:
            raise InputError(
                f"{case.label_path}: holds label values {unknown} that dataset.json does not name "
                f"(it has {list(labels.ids)}); add them to its labels or correct the file"
            )
    return image, label_map
