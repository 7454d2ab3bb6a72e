"""Which files of any folders are images for a corpus, told by their names."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..dataset import FOLDERS
from ..description import DATASET_JSON, read_description
from ..dicom import DICOM_MAGIC
from ..errors import InputError
from ..formats import DICOM_ENDING, IMAGE_ENDINGS, ending_of, strip_ending
from ..record import digest_of
from .corpus import SkippedImage
from .modality import UNKNOWN

PASSED_FOLDERS = re.compile(
    r"(images|labels)(Ts|Va?l)|(labels?|masks?|segmentations?|segs?|gts?|ground_?truths?)(Tr)?", re.I
)
"""Test images, and label maps."""
LABEL_FILES = re.compile(r".*[-_.](seg|dseg|segmentation|labels?|masks?|gt)", re.I)
"""File names, without ending, of label maps beside their images."""
TAKEN_BEFORE = "that were found before, under another name"
MAX_KEY = 120
"""Characters of a file name; systems allow 255 bytes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file or DICOM series that gives an image, or several."""

    dataset: str
    path: Path
    """The file, or the folder of the slices."""
    key: str
    """Unique among the sources; how its images' keys begin."""
    slices: tuple[Path, ...] = ()
    """Files of a DICOM series in a folder."""
    series: str | None = None
    """File stem of a DICOM series in a zip file."""
    channel_names: tuple[str, ...] = ()
    """What dataset.json calls the channels that the file holds."""
    modality: str = UNKNOWN
    """What DICOM tags say."""
    is_film: bool = False
    """A DICOM file that says of no place: its frames are pictures."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        return str(self.path) if self.series is None else f"{self.path}#{self.series}"

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is read."""
        return self.slices or (self.path,)


@dataclass(frozen=True, kw_only=True)
class DicomFiles:
    """DICOM files of one folder, or a zip file: which series they are, their headers tell."""

    dataset: str
    path: Path
    place: str
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What the user calls them."""
        return str(self.path)


@dataclass(kw_only=True)
class Walk:
    """What was found in folders."""

    sources: list[Source] = field(default_factory=list)
    dicom: list[DicomFiles] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    """What was left out by its name: how many files, by the reason."""
    skipped: list[SkippedImage] = field(default_factory=list)
    """Folders and files that cannot be looked into, and links to nothing."""
    seen: set[str] = field(default_factory=set)
    """Real paths of folders and files, so that none is taken twice."""

    def skip(self, error: OSError) -> None:
        """Name a file or folder that could not be looked into."""
        path = str(error.filename)
        reason = f"{path}: cannot be looked into ({error.strerror})"
        if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):  # as git-annex and DVC leave them
            reason = f"{path}: a link to {os.readlink(path)}, which is not there; fetch that, or delete the link"
        self.skipped.append(SkippedImage(source=path, reason=reason))


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Patterns of paths below a dataset's folder, as in a shell; `*` goes over folders too."""

    include: tuple[str, ...] = ()
    """One must fit, where there are any."""
    exclude: tuple[str, ...] = ()

    def keeps(self, place: str) -> bool:
        """True for the path of an image that is wanted."""
        wanted = not self.include or any(fnmatch.fnmatch(place, pattern) for pattern in self.include)
        return wanted and not any(fnmatch.fnmatch(place, pattern) for pattern in self.exclude)


def walk(folders: Sequence[tuple[str, Path]], filters: Filters, *, are_named: bool = False) -> Walk:
    """Images in folders and below them, whatever the order in which these are given.

    A raw dataset (imagesTr beside dataset.json) is a dataset of its own name, of which training images only are taken.
    Folders and files of label maps, and those of test images, are passed over by their names.

    Args:
        folders: name of the dataset, and where it lies.
        are_named: a raw dataset below one of them has that one's name.

    Raises:
        InputError: if a folder is not there, or two datasets would have one name.
    """
    found = Walk()
    homes: dict[str, Path] = {}
    for name, folder in sorted(folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: folder not found; it must hold images")
        for dataset, home, images, channel_names in parts_of(name, folder, found, is_named=are_named):
            if homes.setdefault(dataset, home) != home:
                raise InputError(
                    f"{homes[dataset]} and {home}: two datasets would be called {dataset}; rename one folder, or "
                    "name them in a manifest"
                )
            add_files(found, dataset, home, images, channel_names, filters)
    found.sources = with_unique_keys(found.sources)
    return found


def parts_of(
    name: str, folder: Path, found: Walk, *, is_named: bool
) -> Iterator[tuple[str, Path, Path, tuple[str, ...]]]:
    """Every folder whose files are to be looked at: its dataset, that one's home, itself, names of channels."""
    for place, inner, files in os.walk(folder, followlinks=True, onerror=found.skip):
        here = Path(place)
        real = os.path.realpath(here)
        if real in found.seen:
            inner.clear()
            continue
        found.seen.add(real)
        kept = [child for child in sorted(inner) if not child.startswith(".")]
        is_decathlon = os.path.isfile(here / DATASET_JSON) and not os.path.isdir(here / FOLDERS[0][0])
        images = here / FOLDERS[1 if is_decathlon else 0][0]
        if os.path.isdir(images):  # False where it cannot be looked into
            dataset, home = (name, folder) if is_named or here == folder else (here.name, here)
            names = channel_names_of(here)
            for below, more, _ in os.walk(images, followlinks=True, onerror=found.skip):
                more.sort()
                if (real := os.path.realpath(below)) not in found.seen:
                    found.seen.add(real)
                    yield dataset, home, Path(below), names
            kept.remove(images.name)
            for child in kept:
                found.passed_over[f"in {child} of raw datasets"] += num_files(here / child)
            inner.clear()
            continue
        passed = [child for child in kept if PASSED_FOLDERS.fullmatch(child)]
        for child in passed:
            found.passed_over[f"in folders called {child}"] += num_files(here / child)
        inner[:] = [child for child in kept if child not in passed]
        if files:
            yield name, folder, here, ()


def num_files(folder: Path) -> int:
    """How many files lie in a folder and below it."""
    return sum(len(files) for _, _, files in os.walk(folder))


def channel_names_of(folder: Path) -> tuple[str, ...]:
    """What dataset.json calls the channels; nothing where there is none that can be read."""
    try:
        names = read_description(folder).channel_names
    except InputError:
        return ()
    return tuple(names[str(number)] for number in range(len(names)))


def add_files(
    found: Walk, dataset: str, home: Path, folder: Path, channel_names: tuple[str, ...], filters: Filters
) -> None:
    """Sort the files of one folder (not below it)."""
    slices: list[Path] = []
    for name in names_in(folder, found):
        path = folder / name
        place = path.relative_to(home).as_posix()
        ending = ending_of(path, (*IMAGE_ENDINGS, ".zip"))
        stem = strip_ending(path, (*IMAGE_ENDINGS, ".zip"))
        real = os.path.realpath(path)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                continue
        except OSError as error:
            may_be_image = (ending is not None or not path.suffix) and not LABEL_FILES.fullmatch(stem)
            if may_be_image and filters.keeps(place):
                found.skip(error)
            continue
        if ending is None and not starts_as_dicom(path):
            continue
        if not filters.keeps(place):
            found.passed_over["by --include and --exclude"] += 1
        elif real in found.seen:
            found.passed_over[TAKEN_BEFORE] += 1
        elif ending in (None, DICOM_ENDING):
            slices.append(path)
        elif LABEL_FILES.fullmatch(stem):
            found.passed_over["called as label maps are"] += 1
        elif ending == ".zip":
            found.dicom.append(DicomFiles(dataset=dataset, path=path, place=place, files=()))
        else:
            names = names_in_file(stem, channel_names)
            found.sources.append(Source(dataset=dataset, path=path, key=key_of(dataset, place), channel_names=names))
        found.seen.add(real)
    if slices:
        place = folder.relative_to(home).as_posix()
        found.dicom.append(DicomFiles(dataset=dataset, path=folder, place=place, files=tuple(slices)))


def names_in(folder: Path, found: Walk) -> list[str]:
    """Names of what lies in a folder and is not hidden; none where it cannot be looked into (any more)."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        found.skip(error)
        return []


def names_in_file(stem: str, channel_names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the channels that one file holds: of its number, else all."""
    match = re.search(r"_(\d{4})$", stem)
    if match and int(match[1]) < len(channel_names):
        return (channel_names[int(match[1])],)
    return channel_names


def starts_as_dicom(path: Path) -> bool:
    """True for a DICOM file under any name, unless it is a directory of others."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == DICOM_MAGIC and path.name.upper() != "DICOMDIR"
    except OSError:
        return False


def key_of(dataset: str, place: str) -> str:
    """A file name for what lies in a place below a dataset's folder."""
    ending = ending_of(Path(place), (*IMAGE_ENDINGS, ".zip")) or ""
    text = f"{dataset}-{place[: len(place) - len(ending)]}"
    key = re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("._-") or "image"
    return key if len(key) <= MAX_KEY else f"{key[:MAX_KEY]}-{digest_of(text)[:8]}"


def with_unique_keys(sources: Iterable[Source]) -> list[Source]:
    """The sources sorted by key, those that would share one (in any case) told apart by a digest of their paths."""
    ordered = sorted(sources, key=lambda source: (source.key, source.name))
    times = Counter(source.key.casefold() for source in ordered)
    return [
        replace(source, key=f"{source.key}-{digest_of(source.name)[:8]}")
        if times[source.key.casefold()] > 1
        else source
        for source in ordered
    ]
