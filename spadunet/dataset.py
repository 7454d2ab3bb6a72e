"""A raw dataset folder, its cases, and finding the one that `-d` means."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from .description import DATASET_JSON, DatasetDescription, describe, read_description
from .errors import InputError
from .files import sha256_of_file
from .formats import (
    DICOM_ENDING,
    IMAGE_ENDINGS,
    LABEL_ENDINGS,
    ending_of,
    files_of,
    holds_dicom,
    is_packed,
    may_be_colour,
    strip_ending,
)
from .labels import LabelSet
from .patients import patients_of, shorter_names
from .record import first_problem
from .study_table import IMAGE, LABELS_CSV, STUDY, TableRow, read_table

FOLDERS = (("imagesTr", "labelsTr"), ("images", "labels"))
"""Where training images and label maps lie: nnU-Net's and the Decathlon's names, or plain ones."""


@dataclass(frozen=True, kw_only=True)
class RawCase:
    """One image on disk: a file a channel, None where an optional one is missing, and its label map if there is one."""

    name: str
    image_paths: tuple[Path | None, ...]
    label_path: Path | None
    series: str | None = None
    """Which one, where the path holds several DICOM series: its file stem."""
    annotated: tuple[str, ...] = ()
    """Names of the classes or regions that its label map tells of, where not of all."""
    problem: str | None = None
    """Why it cannot be read, where that is known before."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All its files, images first."""
        return tuple(path for path in (*self.image_paths, self.label_path) if path is not None)

    def content(self) -> str:
        """Hashes of all its files, which say too which channels are missing, and what was annotated."""
        missing = "".join(f"-{number}" for number, path in enumerate(self.image_paths) if path is None)
        annotated = "".join(f"-{name}" for name in self.annotated)
        return "".join(sha256_of_file(file) for path in self.paths for file in files_of(path)) + missing + annotated


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A raw dataset: its description and its training cases, sorted by name."""

    name: str
    folder: Path
    channel_names: tuple[str, ...]
    labels: LabelSet
    file_ending: str
    cases: tuple[RawCase, ...]
    patients: dict[str, str]
    """Patient by name of a case, or of an image of which only labels.csv tells."""
    optional_channels: tuple[str, ...] = ()
    """Names of channels that a case may lack."""
    annotated: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of a training or test case, the classes or regions that were annotated; all where it is not here."""
    class_weights: dict[str, float] = field(default_factory=dict)
    """How much classes or regions count in training; those not here count 1."""

    @property
    def is_colour(self) -> bool:
        """True if the channels are the colours of one picture, not contrasts."""
        alone = [paths[0] for paths in (case.image_paths for case in self.cases) if len(paths) == 1]
        return len(self.channel_names) > 1 and any(path and (may_be_colour(path) or is_packed(path)) for path in alone)


def find_dataset(name: str, raw_folder: Path) -> Path:
    """The folder that `-d` means: a path, `Dataset004_Hippocampus`, `Hippocampus`, `4` or `004`.

    Raises:
        InputError: if there is none, or if several fit; lists what there is.
    """
    for path in (Path(name), raw_folder / name):
        if (path / DATASET_JSON).is_file() or any((path / images).is_dir() for images, _ in FOLDERS):
            return path
    folders = sorted(path for path in raw_folder.glob("*") if path.is_dir()) if raw_folder.is_dir() else []
    fitting = [path for path in folders if is_named(path.name, name)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(path.name for path in fitting)
        raise InputError(f"-d {name}: fits several datasets in {raw_folder}: {names}; give the full name")
    there = ", ".join(path.name for path in folders) or "none"
    raise InputError(f"-d {name}: dataset not found; datasets in {raw_folder}: {there}; give one of them or a path")


def is_named(folder_name: str, name: str) -> bool:
    """True if a folder `Dataset004_Hippocampus` is meant by its full name, `Hippocampus`, `4` or `004`."""
    match = re.fullmatch(r"Dataset(\d+)_(.+)", folder_name)
    if match is None:
        return folder_name.lower() == name.lower()
    number, title = match.groups()
    same_number = name.isdecimal() and int(name) == int(number)
    return same_number or name.lower() in (title.lower(), folder_name.lower())


def load_dataset(folder: Path, *, dry_run: bool = False) -> Dataset:
    """Read dataset.json and pair images with labels by name.

    nnU-Net's and the Decathlon's folders are read as they are, and so is a plain pair of folders images/ and labels/,
    for which a dataset.json is written. Images without a label map that have a row in labels.csv are no cases: what is
    known of them are findings.

    Args:
        dry_run: write nothing and read no label map; of such a pair, labels are then any.

    Raises:
        InputError: if dataset.json is missing or wrong, a folder is empty, files of a case are missing, or no case has
            some optional channel, or patients or labelled_classes have a key that is no case.
    """
    folder = folder.resolve()
    image_folder, label_folder = next(
        ((folder / images, folder / labels) for images, labels in FOLDERS if (folder / images).is_dir()),
        (folder / FOLDERS[0][0], folder / FOLDERS[0][1]),
    )
    if image_folder.name == FOLDERS[1][0] and not (folder / DATASET_JSON).is_file():
        description = describe_pair(folder, image_folder, label_folder, dry_run=dry_run)
    else:
        description = read_description(folder)
    try:
        labels = description.label_set()
    except ValidationError as error:
        raise InputError(f"{folder / DATASET_JSON}: field 'labels': {first_problem(error)}") from error
    num_channels = len(description.channel_names)
    channel_names = tuple(description.channel_names[str(index)] for index in range(num_channels))
    optional = numbers_of(description.optional_channels, channel_names)
    images = find_images(image_folder, description.file_ending, num_channels, optional)
    for number in optional:
        if not any(len(paths) < num_channels or paths[number] for paths in images.values()):
            raise InputError(
                f"{image_folder}: no case has channel {number} ({channel_names[number]}); "
                f"add its files (…_{number:04}) or take it out of {DATASET_JSON}"
            )
    cases = [
        RawCase(name=name, image_paths=paths, label_path=find_label(label_folder, name, description.file_ending))
        for name, paths in images.items()
    ]
    cases = with_label_maps(folder, cases)
    annotated = {case: names for case, names in description.labelled_classes.items() if not tells_all(names, labels)}
    dataset = Dataset(
        name=folder.name,
        folder=folder,
        channel_names=channel_names,
        labels=labels,
        file_ending=description.file_ending,
        cases=tuple(replace(case, annotated=annotated.get(case.name, ())) for case in cases),
        patients=patients_of(list(images), description.patients),
        optional_channels=description.optional_channels,
        annotated=annotated,
        class_weights=description.class_weights,
    )
    require_cases(dataset, "labelled_classes", description.labelled_classes, images, lambda name: [name])
    require_cases(dataset, "patients", description.patients, [*images, *names_of_rows(folder)], shorter_names)
    return dataset


def require_cases(
    dataset: Dataset, field: str, keys: Iterable[str], known: Iterable[str], forms: Callable[[str], Sequence[str]]
) -> None:
    """Refuse a key of a field of dataset.json that is neither known nor that of a test case.

    Args:
        forms: under which names a case may be meant.

    Raises:
        InputError: names the first such key.
    """
    strange = set(keys) - {form for name in known for form in forms(name)}
    strange = strange and strange - {form for case in find_test_cases(dataset) for form in forms(case.name)}
    if strange:
        first = dataset.cases[0]
        raise InputError(
            f"{dataset.folder / DATASET_JSON}: field '{field}': no case is called {min(strange)}; "
            f"expected names as in {first.paths[0].parent.name}, such as {first.name}"
        )


def names_of_rows(folder: Path) -> set[str]:
    """Studies and images that labels.csv tells of, images without folder, ending and number of a channel."""
    rows = rows_of(folder)
    images = {re.sub(r"_\d{4}$", "", strip_ending(Path(row.keys[IMAGE]))) for row in rows}
    return images | {row.keys[STUDY] for row in rows if STUDY in row.keys}


def rows_of(folder: Path) -> tuple[TableRow, ...]:
    """Of labels.csv; none of one that is not there, or of another kind: whoever needs it tells."""
    with contextlib.suppress(InputError):
        return read_table(folder / LABELS_CSV).rows
    return ()


def with_label_maps(folder: Path, cases: list[RawCase]) -> list[RawCase]:
    """Those that have a label map.

    Raises:
        InputError: if another one has no row in labels.csv either, or there is none with a label map.
    """
    unlabelled = [case for case in cases if case.label_path is None or not case.label_path.is_file()]
    rows = {row.keys[IMAGE] for row in rows_of(folder)} if unlabelled else set()
    missing = [case for case in unlabelled if rows.isdisjoint(names_of(case))]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        where = next(path for path in missing[0].image_paths if path is not None).parent.name
        rest = f", or give it a row in {LABELS_CSV}" if (folder / LABELS_CSV).is_file() else ""
        raise InputError(
            f"{missing[0].label_path}: label file missing{more}; add it or take its image out of {where}{rest}"
        )
    if len(unlabelled) == len(cases):
        raise InputError(
            f"{folder}: no image has a label map, only rows in {LABELS_CSV}; add label maps, or learn from these alone "
            "by spadunet_train --task classification"
        )
    return [case for case in cases if case not in unlabelled]


def names_of(case: RawCase) -> set[str]:
    """What a table may call it: its name, or that of a file with or without its ending."""
    files = [path for path in case.image_paths if path is not None]
    return {case.name, *(text for path in files for text in (path.name, strip_ending(path)))}


def tells_all(names: Collection[str], labels: LabelSet) -> bool:
    """True if these are all classes or regions."""
    return {structure.name for structure in labels.structures} <= set(names)


def numbers_of(names: Collection[str], channel_names: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the channels that have one of these names."""
    return tuple(number for number, name in enumerate(channel_names) if name in names)


def find_test_cases(dataset: Dataset) -> list[RawCase]:
    """The images of imagesTs, with their label maps where labelsTs has them; none if there is no such folder."""
    folder = dataset.folder / "imagesTs"
    if not folder.is_dir() or not any(stem_of(path, dataset.file_ending) is not None for path in folder.iterdir()):
        return []
    optional = numbers_of(dataset.optional_channels, dataset.channel_names)
    images = find_images(folder, dataset.file_ending, len(dataset.channel_names), optional)
    labels = {name: find_label(dataset.folder / "labelsTs", name, dataset.file_ending) for name in images}
    return [
        RawCase(
            name=name,
            image_paths=paths,
            label_path=labels[name] if labels[name].is_file() else None,
            annotated=dataset.annotated.get(name, ()),
        )
        for name, paths in images.items()
    ]


def describe_pair(folder: Path, image_folder: Path, label_folder: Path, *, dry_run: bool = False) -> DatasetDescription:
    """Description of a plain pair of folders, as `describe`.

    Raises:
        InputError: if the images have several endings or none, or there is no label map.
    """
    endings = image_endings(image_folder)
    if len(endings) != 1:
        found = " and ".join(endings) or "no images"
        raise InputError(f"{image_folder}: holds {found}; expected images of one ending")
    images = sorted(path for path in image_folder.iterdir() if stem_of(path, endings[0]) is not None)
    labels = [path for path in sorted(label_folder.glob("[!.]*")) if ending_of(path, LABEL_ENDINGS)]
    if not labels:
        raise InputError(f"{label_folder}: holds no label maps ({', '.join(LABEL_ENDINGS)}); put them there")
    return describe(folder, images, labels, endings[0], dry_run=dry_run)


def find_label(folder: Path, case: str, ending: str) -> Path:
    """The label map of a case: with the images' ending if there is one, else with any that a label map may have."""
    endings = (ending, *LABEL_ENDINGS) if ending in LABEL_ENDINGS else LABEL_ENDINGS
    paths = [folder / f"{case}{label_ending}" for label_ending in endings]
    return next((path for path in paths if path.is_file()), paths[0])


def find_images(
    folder: Path, ending: str, num_channels: int, optional: Collection[int] = ()
) -> dict[str, tuple[Path | None, ...]]:
    """Images of a folder by case name, one path a channel: case_0000, case_0001, … or plain names for one channel.

    A colour picture and a 4D file without a channel's number hold all channels; DICOM series are folders or zip files.

    Args:
        optional: numbers of channels that may be missing, and are None then. Where there are any, a file that holds
            all channels has no channel's number.

    Raises:
        InputError: if the folder is missing or empty, or a case has too few or too many channels.
    """
    return {
        name: in_order(folder / name, channels, ending, num_channels, optional)
        for name, channels in find_files(folder, ending, num_channels).items()
    }


def find_files(folder: Path, ending: str, num_channels: int) -> dict[str, dict[int, Path]]:
    """As `find_images`: by case name, the files by the number of their channel; 0 where a name has none.

    Raises:
        InputError: if the folder is missing or empty, or a channel has two files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: folder not found; it must hold the images")
    stems = {path: stem for path in sorted(folder.iterdir()) if (stem := stem_of(path, ending)) is not None}
    if not stems:
        raise InputError(f"{folder}: no *{ending} files; put the images there (or set file_ending in dataset.json)")
    known = set(stems.values())
    found: dict[str, dict[int, Path]] = {}
    for path, stem in stems.items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match and num_channels == 1 and f"{match[1]}_0000" not in known:
            match = None  # scan_2019 is a name, no channel
        name, channel = (match[1], int(match[2])) if match else (stem, 0)
        if channel in found.setdefault(name, {}):
            raise InputError(f"{path}: a second file for channel {channel} of case {name}; keep one of them")
        found[name][channel] = path
    return found


def in_order(
    case: Path, channels: dict[int, Path], ending: str, num_channels: int, optional: Collection[int]
) -> tuple[Path | None, ...]:
    """The files of a case, one a channel, or the one that holds all; as `find_images`.

    Args:
        case: its folder and name.

    Raises:
        InputError: if there are too few or too many.
    """
    if list(channels) == [0]:
        path = channels[0]
        if stem_of(path, ending) == case.name or (may_be_colour(path) and not optional):
            return (path,)  # it holds all channels
    if set(channels) | set(optional) != set(range(num_channels)):
        may_miss = f" ({', '.join(map(str, optional))} may be missing)" if optional else ""
        raise InputError(
            f"{case}: wrong channel count: files for channels {sorted(channels)}, "
            f"expected {num_channels}, numbered from _0000{may_miss}; add the missing or remove the extra files"
        )
    return tuple(channels.get(number) for number in range(num_channels))


def image_endings(folder: Path) -> list[str]:
    """The endings of the images in a folder, as `find_images` takes them.

    A folder in it counts as one of DICOM slices if there are no images of another kind, or if such slices are in it:
    beside images may lie their label maps.
    """
    shown = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = {ending_of(path, (*IMAGE_ENDINGS, ".zip")) for path in shown if not path.is_dir()}
    inner = [path for path in shown if path.is_dir()]
    if ".zip" in found or (inner and found.isdisjoint(IMAGE_ENDINGS)) or any(map(holds_dicom, inner)):
        found.add(DICOM_ENDING)
    return [ending for ending in IMAGE_ENDINGS if ending in found]


def stem_of(path: Path, ending: str) -> str | None:
    """A file's name without the ending; None if it is no image of this ending (hidden files are none)."""
    if path.name.startswith("."):
        return None
    if ending == DICOM_ENDING and path.is_dir():
        return path.name
    endings = (DICOM_ENDING, ".zip") if ending == DICOM_ENDING else (ending,)
    found = ending_of(path, endings)
    return None if found is None else path.name[: -len(found)]
