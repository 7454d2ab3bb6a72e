"""dataset.json: what a dataset's channels and labels are called, as nnU-Net, the Decathlon or nobody wrote it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, WrapValidator, field_validator, model_validator

from .channels import usual_names
from .errors import InputError, OutputError
from .formats import IMAGE_ENDINGS, may_be_colour, read_channels, read_header
from .image import read_label_map
from .labels import BACKGROUND, IGNORE, LabelSet, Region, ids_in
from .record import Record, is_unused, read_record, write_record

DATASET_JSON = "dataset.json"

log = logging.getLogger("spadunet")


def check_ids(value: object, handler: Callable[[object], int | list[int]]) -> int | list[int]:
    """One line of error where the value of a label is neither of the two that it may be."""
    try:
        return handler(value)
    except ValidationError as error:
        raise ValueError("expected a whole number, or a list of them for a region") from error


PositiveWeight = Annotated[float, Field(gt=0)]
LabelIds = Annotated[int | list[int], WrapValidator(check_ids)]


class DatasetDescription(Record):
    """dataset.json: the keys that we use; others are the user's own and stay unread.

    The Medical Segmentation Decathlon's keys are understood too: `modality` for channel_names, and labels the other
    way round (`{"0": "background", "1": "liver"}`).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel_names: dict[str, str]
    labels: dict[str, LabelIds]
    """An id, or the ids of a region."""
    regions_class_order: tuple[int, ...] | None = Field(default=None, exclude_if=is_unused)
    """Id that each region is painted with, where there are regions."""
    optional_channels: tuple[str, ...] = Field(default=(), exclude_if=is_unused)
    """Names of channels that a case may lack."""
    mirror_pairs: tuple[tuple[str, str], ...] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Names of labels that are each other's mirror image, where their names do not tell, or tell it wrongly."""
    file_ending: str = ".nii.gz"
    patients: dict[str, str] = {}
    labelled_classes: dict[str, tuple[str, ...]] = Field(default={}, exclude_if=is_unused)
    """By case, the classes or regions that were annotated; of a case that is not here, all."""
    class_weights: dict[str, PositiveWeight] = Field(default={}, exclude_if=is_unused)
    """How much a class or region counts in training; those not here count 1."""

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
    def check_labels(cls, labels: dict[str, int | list[int]]) -> dict[str, int | list[int]]:
        """Background is 0, ignore one id, no label without any."""
        if labels.get(BACKGROUND) != 0:
            raise ValueError('expected "background": 0 among the labels')
        if isinstance(labels.get(IGNORE), list):
            raise ValueError('"ignore" is one id, not a list')
        if [] in labels.values():
            raise ValueError("a region needs at least one id")
        if any(not 0 <= label_id < 2**16 for value in labels.values() for label_id in as_tuple(value)):
            raise ValueError("label ids lie between 0 and 65535")
        return labels

    @field_validator("optional_channels")
    @classmethod
    def check_optional(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """They are channels."""
        channels = list(info.data.get("channel_names", {}).values())
        if not set(names) <= set(channels):
            raise ValueError(f"expected names among channel_names, {channels}")
        return names

    @field_validator("labelled_classes")
    @classmethod
    def check_labelled(cls, cases: dict[str, tuple[str, ...]], info: ValidationInfo) -> dict[str, tuple[str, ...]]:
        """At least one class a case, and only what labels names."""
        names = [name for name in info.data.get("labels", {}) if name not in (BACKGROUND, IGNORE)]
        for case, annotated in cases.items():
            unknown = [name for name in annotated if name not in names]
            if not annotated or unknown:
                found = ", ".join(unknown) or "none"
                raise ValueError(f"{case}: expected at least one of the labels {', '.join(names)}, not {found}")
        return cases

    @model_validator(mode="after")
    def check_weights(self) -> DatasetDescription:
        """Weights are of what the network tells apart."""
        names = self.output_names()
        for name in self.class_weights:
            if name not in names:
                raise ValueError(f"field 'class_weights': {name} is none of the labels {', '.join(names)}")
        return self

    def output_names(self) -> list[str]:
        """Labels that can be weighed: the classes with background, or the regions."""
        left_out = (BACKGROUND, IGNORE) if self.region_ids() else (IGNORE,)
        return [name for name in self.labels if name not in left_out]

    @model_validator(mode="after")
    def check_order(self) -> DatasetDescription:
        """Regions have an id each to be painted with."""
        regions = self.region_ids()
        if regions and len(self.regions_class_order or ()) != len(regions):
            order = self.regions_class_order and list(self.regions_class_order)
            raise ValueError(
                f"field 'regions_class_order': expected an id for each of {', '.join(regions)}, in this order, "
                f"since a label is a region (found {order})"
            )
        return self

    def region_ids(self) -> dict[str, tuple[int, ...]]:
        """Ids of all labels but background and ignore, if one of them has several; else nothing."""
        found = {name: as_tuple(value) for name, value in self.labels.items() if name not in (BACKGROUND, IGNORE)}
        return found if any(len(ids) > 1 for ids in found.values()) else {}

    def label_set(self) -> LabelSet:
        """The labels in the order of their ids, and the regions in their own."""
        regions = self.region_ids()
        labels = {name: as_tuple(value) for name, value in self.labels.items() if name != IGNORE}
        classes = sorted((ids[0], name) for name, ids in labels.items() if len(ids) == 1)
        if regions:  # a class for every id, whether it has a name of its own or not
            names = dict(classes)
            ids_there = sorted({label_id for ids in labels.values() for label_id in ids})
            classes = [(label_id, names.get(label_id, f"label {label_id}")) for label_id in ids_there]
        ignore_id = self.labels.get(IGNORE)
        return LabelSet(
            names=tuple(name for _, name in classes),
            ids=tuple(label_id for label_id, _ in classes),
            regions=tuple(
                Region(
                    name=name,
                    ids=ids,
                    painted_id=painted_id,
                    is_list_of_one=isinstance(self.labels[name], list) and len(ids) == 1,
                )
                for (name, ids), painted_id in zip(regions.items(), self.regions_class_order or (), strict=False)
            ),
            ignore_id=ignore_id if isinstance(ignore_id, int) else None,
            mirror_pairs=self.mirror_pairs,
        )


def as_tuple(value: int | list[int]) -> tuple[int, ...]:
    """The ids of a label."""
    return (value,) if isinstance(value, int) else tuple(value)


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
    has_files = len(numbers) > 1 and "0000" in numbers
    if has_files:
        num_channels = len(numbers)
    elif dry_run:
        header = read_header(images[0])
        num_channels = header.num_channels if header else 1
    else:
        num_channels = len(read_channels(images[0])[0])
    ids: set[int] = set(range(256)) if dry_run else set()
    for path in [] if dry_run else labels:
        ids.update(ids_in(read_label_map(path).array))
    labels_found: dict[str, LabelIds] = {str(label_id): label_id for label_id in sorted(ids - {0})}
    names = usual_names(num_channels, may_be_colour=not has_files and may_be_colour(images[0]))
    description = DatasetDescription(
        channel_names={str(number): name for number, name in enumerate(names)},
        labels={BACKGROUND: 0, **labels_found},
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
