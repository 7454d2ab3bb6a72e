"""dataset.json: what a dataset's channels and labels are called, as nnU-Net, the Decathlon or nobody wrote it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, field_validator, model_validator

from .errors import InputError, OutputError
from .formats import IMAGE_ENDINGS, read_channels, read_header
from .image import read_label_map
from .labels import BACKGROUND, LabelSet
from .record import Record, read_record, write_record

DATASET_JSON = "dataset.json"

log = logging.getLogger("spadunet")


class DatasetDescription(Record):
    """dataset.json: the keys that we use; others are the user's own and stay unread.

    The Medical Segmentation Decathlon's keys are understood too: `modality` for channel_names, and labels the other
    way round (`{"0": "background", "1": "liver"}`).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel_names: dict[str, str]
    labels: dict[str, int]
    file_ending: str = ".nii.gz"
    patients: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def convert_decathlon(cls, data: object) -> object:
        """The Decathlon's keys to nnU-Net's."""
        if not isinstance(data, dict) or "modality" not in data or "channel_names" in data:
            return data
        labels = data.get("labels")
        if isinstance(labels, dict) and all(str(key).isdecimal() for key in labels):
            labels = {BACKGROUND if key == "0" else str(name): int(key) for key, name in labels.items()}
        return {**data, "channel_names": data["modality"], "labels": labels}

    @field_validator("channel_names")
    @classmethod
    def check_channels(cls, channels: dict[str, str]) -> dict[str, str]:
        """Channels are numbered 0, 1, 2, …"""
        if sorted(channels) != sorted(str(index) for index in range(len(channels))) or not channels:
            raise ValueError('channels are numbered "0", "1", …')
        return channels

    @field_validator("file_ending")
    @classmethod
    def check_ending(cls, ending: str) -> str:
        """Only formats that can be read."""
        if ending not in IMAGE_ENDINGS:
            raise ValueError(f"expected one of {', '.join(IMAGE_ENDINGS)}")
        return ending

    @field_validator("labels")
    @classmethod
    def check_labels(cls, labels: dict[str, int]) -> dict[str, int]:
        """Background is 0."""
        if labels.get(BACKGROUND) != 0:
            raise ValueError('expected "background": 0 among the labels')
        if "ignore" in labels:
            raise ValueError("an ignore label is not supported yet; leave it out and give its voxels another label")
        if any(not 0 <= value < 2**16 for value in labels.values()):
            raise ValueError("label ids lie between 0 and 65535")
        return labels

    def label_set(self) -> LabelSet:
        """The labels in the order of their ids."""
        names = sorted(self.labels, key=lambda name: self.labels[name])
        return LabelSet(names=tuple(names), ids=tuple(self.labels[name] for name in names))


def read_description(folder: Path) -> DatasetDescription:
    """A folder's dataset.json.

    Raises:
        InputError: if it is missing or wrong.
    """
    return read_record(
        folder / DATASET_JSON, DatasetDescription, remedy="write one that names channels and labels, as for nnU-Net"
    )


def describe(
    folder: Path, images: list[Path], labels: list[Path], ending: str, *, dry_run: bool = False
) -> DatasetDescription:
    """Describe a plain pair of folders by what is in them, and write dataset.json for its user to improve.

    Channels are those of the file names (case_0000, case_0001) or of the first file; labels are called by their ids.

    Args:
        images: files of one ending.
        labels: label maps.
        dry_run: look at no voxel and write nothing; the labels are then all that a small label map may hold.
    """
    numbers = {match[1] for path in images if (match := re.search(r"_(\d{4})(?=\.|$)", path.name))}
    if len(numbers) > 1 and "0000" in numbers:
        num_channels = len(numbers)
    elif dry_run:
        header = read_header(images[0])
        num_channels = header.num_channels if header else 1
    else:
        num_channels = len(read_channels(images[0])[0])
    ids: set[int] = set(range(256)) if dry_run else set()
    for path in [] if dry_run else labels:
        ids.update(np.unique(read_label_map(path).array).tolist())
    description = DatasetDescription(
        channel_names={str(number): f"channel {number}" for number in range(num_channels)},
        labels={BACKGROUND: 0} | {str(label_id): label_id for label_id in sorted(ids - {0})},
        file_ending=ending,
    )
    if dry_run:
        return description
    try:
        write_record(folder / DATASET_JSON, description)
        said = f"{folder / DATASET_JSON} written"
    except (OutputError, InputError):
        said = f"{folder}: has no {DATASET_JSON}, and none can be written"
    log.info(
        "%s: %d channels, labels %s; a name with CT in it makes a channel CT", said, num_channels, sorted(ids - {0})
    )
    return description
