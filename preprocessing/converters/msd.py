"""The Medical Segmentation Decathlon (Antonelli et al. 2022): one task's folder to a raw dataset.

Such a folder can also be used as it is; converted, its 4D files become a file a channel, as other tools expect.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...dataset import RawCase, find_images, find_label
from ...description import read_description
from ...errors import InputError
from ...formats import read_channels, read_header, write_array
from .folder import copy, new_dataset, require_folder, write_description

ABOUT = ("name", "description", "reference", "licence", "release")
"""Keys of the release's dataset.json that are kept."""
LAYOUT = "imagesTr, labelsTr and dataset.json, as in Task04_Hippocampus"


def convert_msd(source: Path, folder: Path) -> int:
    """Write a raw dataset; number of labelled cases.

    Args:
        source: a task's folder, as Task04_Hippocampus.
        folder: of the dataset, as raw/Dataset004_Hippocampus.

    Raises:
        InputError: if the release's folders or files are not there or damaged.
    """
    cases = find_cases(source)
    description = read_description(source)
    num_channels = len(description.channel_names)
    labels = description.label_set()
    with new_dataset(folder):
        for case in cases:
            write_case(case, folder, num_channels=num_channels)
        original = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
        write_description(
            folder,
            channel_names=[description.channel_names[str(number)] for number in range(num_channels)],
            labels=labels.names,
            about={key: original[key] for key in ABOUT if key in original},
        )
    return sum(case.label_path is not None for case in cases)


def find_cases(source: Path) -> list[RawCase]:
    """The labelled cases, then those for testing.

    Raises:
        InputError: if the release's folders or files are not there.
    """
    require_folder(source / "imagesTr", LAYOUT)
    description = read_description(source)
    num_channels = len(description.channel_names)
    labels = description.label_set()
    if labels.ids != tuple(range(len(labels.ids))):
        raise InputError(f"{source}/dataset.json: labels {list(labels.ids)}; the Decathlon counts them from 0")
    cases = []
    for name, paths in find_images(source / "imagesTr", description.file_ending, num_channels).items():
        label = find_label(source / "labelsTr", name, description.file_ending)
        if not label.is_file():
            raise InputError(f"{label}: label file missing; download the release again")
        cases.append(RawCase(name=name, image_paths=paths, label_path=label))
    if (source / "imagesTs").is_dir():
        tests = find_images(source / "imagesTs", description.file_ending, num_channels)
        cases += [RawCase(name=name, image_paths=paths, label_path=None) for name, paths in tests.items()]
    return cases


def write_case(case: RawCase, folder: Path, *, num_channels: int | None = None) -> None:
    """Write a case's channels and copy its labels into a dataset's folder.

    Args:
        num_channels: how many there must be; None for as many as there are.

    Raises:
        InputError: if it has too few or too many channels.
    """
    images = "imagesTs" if case.label_path is None else "imagesTr"
    write_channels(case.paths[0], folder / images, case.name, num_channels)
    if case.label_path is not None:
        copy(case.label_path, folder / "labelsTr" / f"{case.name}.nii.gz")


def write_channels(path: Path, folder: Path, name: str, num_channels: int | None) -> None:
    """A file as it is, or a 4D file as one file a channel.

    Raises:
        InputError: if it has too few or too many channels.
    """
    if num_channels is None and (header := read_header(path)) is not None:
        num_channels = header.num_channels
    if num_channels == 1:
        copy(path, folder / f"{name}_0000.nii.gz")
        return
    array, affine = read_channels(path)
    if num_channels is not None and len(array) != num_channels:
        raise InputError(f"{path}: holds {len(array)} channels, but dataset.json names {num_channels}")
    for number, channel in enumerate(array):
        write_array(folder / f"{name}_{number:04}.nii.gz", channel, affine)
