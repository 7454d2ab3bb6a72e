"""The images of a classified dataset: a folder of any formats, whose channels dataset.json may name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, model_validator

from .channels import usual_names
from .dataset import FOLDERS, RawCase, find_images, image_endings, numbers_of, stem_of
from .description import DATASET_JSON
from .errors import InputError
from .formats import IMAGE_ENDINGS, may_be_colour, read_channels, read_header, strip_ending
from .record import Record, read_record

IMAGE_FOLDERS = tuple(images for images, _ in reversed(FOLDERS))
"""images/, or nnU-Net's imagesTr/."""


class ChannelDescription(Record):
    """What dataset.json says of images; the rest of it is for segmentation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel_names: dict[str, str]
    optional_channels: tuple[str, ...] = ()
    patients: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def convert_decathlon(cls, data: object) -> object:
        """The Decathlon calls channels modality."""
        if isinstance(data, dict) and "modality" in data and "channel_names" not in data:
            return {**data, "channel_names": data["modality"]}
        return data

    @model_validator(mode="after")
    def check(self) -> ChannelDescription:
        """Channels are numbered 0, 1, 2, …; only channels are optional."""
        if sorted(self.channel_names) != sorted(map(str, range(len(self.channel_names)))) or not self.channel_names:
            raise ValueError('field channel_names: channels are numbered "0", "1", …')
        if not set(self.optional_channels) <= set(self.channel_names.values()):
            raise ValueError("field optional_channels: expected names among channel_names")
        return self


@dataclass(frozen=True, kw_only=True)
class StudyImages:
    """All images of a folder."""

    folder: Path
    channel_names: tuple[str, ...]
    optional_channels: tuple[str, ...]
    patients: Mapping[str, str]
    """Patient by name of an image or study, where dataset.json tells."""
    views: Mapping[str, RawCase]
    """By name: that of the file, without its ending and the number of its channel."""
    by_file: Mapping[str, str]
    """Name of the view by each name of a file, with and without its ending."""

    def find(self, text: str) -> RawCase | None:
        """The image that a table means: by the name of one of its files, or without ending and channel.

        The folder of the images may stand before it.
        """
        bare = re.sub(rf"^(\./)?({'|'.join(IMAGE_FOLDERS)})/", "", text.replace("\\", "/"))
        names = (text, self.by_file.get(text, ""), bare, self.by_file.get(bare, ""))
        return next((self.views[name] for name in names if name in self.views), None)


def find_study_images(folder: Path) -> StudyImages:
    """The images below a dataset's folder, of any formats that can be read.

    Channels are those of dataset.json; without it, those of the files' names (_0000, _0001) or of the first file.

    Raises:
        InputError: if there is no folder of images or none in it, dataset.json is wrong, two images have one name, or
            an image has too few or too many channels.
    """
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    if images is None:
        raise InputError(f"{folder}: has no folder {' or '.join(IMAGE_FOLDERS)}; put the images there")
    endings = image_endings(images)
    if not endings:
        raise InputError(f"{images}: holds no images ({', '.join(IMAGE_ENDINGS)}); put them there")
    description = describe_channels(folder, images, endings)
    names = tuple(description.channel_names[str(number)] for number in range(len(description.channel_names)))
    optional = numbers_of(description.optional_channels, names)
    views: dict[str, RawCase] = {}
    for ending in endings:
        for name, paths in find_images(images, ending, len(names), optional).items():
            if name in views:
                twice = ", ".join(path.name for path in (*views[name].paths, *paths) if path)
                raise InputError(f"{images}: several images are called {name} ({twice}); rename or remove all but one")
            views[name] = RawCase(name=name, image_paths=paths, label_path=None)
    return StudyImages(
        folder=images,
        channel_names=names,
        optional_channels=description.optional_channels,
        patients=description.patients,
        views=views,
        by_file=names_by_file(views),
    )


def names_by_file(views: Mapping[str, RawCase]) -> dict[str, str]:
    """Name of a view by each name of a file, with and without its ending; not of a file that holds several views."""
    pairs = {(text, name) for name, view in views.items() for it in view.paths for text in (it.name, strip_ending(it))}
    counts = Counter(text for text, _ in pairs)
    return {text: name for text, name in pairs if counts[text] == 1}


def describe_channels(folder: Path, images: Path, endings: Sequence[str]) -> ChannelDescription:
    """What dataset.json says; without it, channels of the files' names or of the first file."""
    if (folder / DATASET_JSON).is_file():
        remedy = 'expected "channel_names": {"0": "CT"}; a name with CT in it makes a channel CT'
        return read_record(folder / DATASET_JSON, ChannelDescription, remedy=remedy)
    paths = [path for path in sorted(images.iterdir()) if any(stem_of(path, ending) is not None for ending in endings)]
    numbers = {match[1] for path in paths if (match := re.search(r"_(\d{4})(?=\.|$)", path.name))}
    has_files = len(numbers) > 1 and "0000" in numbers
    if has_files:
        num_channels = len(numbers)
    else:
        header = read_header(paths[0])
        num_channels = len(read_channels(paths[0])[0]) if header is None else header.num_channels
    names = usual_names(num_channels, may_be_colour=not has_files and may_be_colour(paths[0]))
    return ChannelDescription(channel_names={str(number): name for number, name in enumerate(names)})
