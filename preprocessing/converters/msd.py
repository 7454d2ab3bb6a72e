"""The Medical Segmentation Decathlon (Antonelli et al. 2022): one task's folder to a raw dataset.

Such a folder can also be used as it is; converted, its 4D files become a file a channel, as other tools expect.
"""

from __future__ import annotations

import json
from pathlib import Path

from ...dataset import find_images, find_label
from ...description import read_description
from ...errors import InputError
from ...formats import read_channels, write_array
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
    require_folder(source / "imagesTr", LAYOUT)
    description = read_description(source)
    num_channels = len(description.channel_names)
    labels = description.label_set()
    if labels.ids != tuple(range(len(labels.ids))):
        raise InputError(f"{source}/dataset.json: labels {list(labels.ids)}; the Decathlon counts them from 0")
    images = find_images(source / "imagesTr", description.file_ending, num_channels)
    with new_dataset(folder):
        for name, [path, *_] in images.items():
            label = find_label(source / "labelsTr", name, description.file_ending)
            if not label.is_file():
                raise InputError(f"{label}: label file missing; download the release again")
            assert path is not None  # no channel is optional
            write_channels(path, folder / "imagesTr", name, num_channels)
            copy(label, folder / "labelsTr" / f"{name}.nii.gz")
        if (source / "imagesTs").is_dir():
            for name, [path, *_] in find_images(source / "imagesTs", description.file_ending, num_channels).items():
                assert path is not None
                write_channels(path, folder / "imagesTs", name, num_channels)
        original = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
        write_description(
            folder,
            channel_names=[description.channel_names[str(number)] for number in range(num_channels)],
            labels=labels.names,
            about={key: original[key] for key in ABOUT if key in original},
        )
    return len(images)


def write_channels(path: Path, folder: Path, name: str, num_channels: int) -> None:
    """A file as it is, or a 4D file as one file a channel.

    Raises:
        InputError: if it has too few or too many channels.
    """
    if num_channels == 1:
        copy(path, folder / f"{name}_0000.nii.gz")
        return
    array, affine = read_channels(path)
    if len(array) != num_channels:
        raise InputError(f"{path}: holds {len(array)} channels, but dataset.json names {num_channels}")
    for number, channel in enumerate(array):
        write_array(folder / f"{name}_{number:04}.nii.gz", channel, affine)
