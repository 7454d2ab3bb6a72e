"""The cases in a folder of images to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ..dataset import RawCase, find_files, image_endings, in_order
from ..dicom import find_series, holds_slices, opened, unused_name
from ..errors import InputError
from ..formats import DICOM_ENDING, NIFTI_ENDINGS, ending_of, is_dicom
from ..parallel import map_cases


def find_cases(
    folder: Path, num_channels: int, optional: Collection[int] = (), *, may_mix: bool = False
) -> list[RawCase]:
    """Images of one ending, named as for training, or the slices of a DICOM series.

    A folder or zip file of several DICOM series is a case a series, if a case has one channel: with more, nothing
    says which series is which.

    A case without one of its channels is there all the same, and says so when its turn comes.

    Args:
        optional: numbers of channels that a case may lack.
        may_mix: images may be of several endings.

    Raises:
        InputError: if there are no images, or of several formats, or of one name, or channels are missing of all.
    """
    if not folder.is_dir():
        raise InputError(f"-i {folder}: folder not found; give the folder that holds the images")
    endings = image_endings(folder)
    if len(endings) > 1 and not may_mix:
        raise InputError(f"-i {folder}: holds both {' and '.join(endings)} files; put them into one folder each")
    if endings in ([], [DICOM_ENDING]) and holds_slices(folder):
        cases = [RawCase(name=folder.resolve().name, image_paths=(folder,), label_path=None)]
    else:
        cases = [
            case_of(folder / name, found, ending, num_channels, optional)
            for ending in endings or NIFTI_ENDINGS[:1]
            for name, found in find_files(folder, ending, num_channels).items()
        ]
        twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
        if twice:
            raise InputError(f"-i {folder}: several images are called {twice[0]}; rename or remove all but one")
        if all(case.problem for case in cases):
            raise InputError(cases[0].problem)
    return split_series(cases) if num_channels == 1 else cases


def case_of(
    path: Path, channels: dict[int, Path], ending: str, num_channels: int, optional: Collection[int]
) -> RawCase:
    """A case of these files; as `in_order`, but what is wrong with it is part of it."""
    try:
        return RawCase(
            name=path.name, image_paths=in_order(path, channels, ending, num_channels, optional), label_path=None
        )
    except InputError as error:
        problem = str(error)
        if set(channels) < set(range(num_channels)):
            problem += "; a model that can do without some of its channels is told by --channels which are there"
        return RawCase(name=path.name, image_paths=tuple(channels.values()), label_path=None, problem=problem)


def split_series(cases: Sequence[RawCase]) -> list[RawCase]:
    """Each case of several DICOM series as a case a series, <case>_<number>_<description>; the others as they are."""
    stacks = [case for case in cases if is_dicom(case.paths[0]) and not ending_of(case.paths[0])]
    # What cannot be read stays one case, and says what is wrong when its turn comes.
    outcomes = map_cases(series_of, stacks, title="Looking for DICOM series")
    stems = {outcome.item.name: outcome.result or [] for outcome in outcomes}
    several = {name: found for name, found in stems.items() if len(found) > 1}
    taken = {case.name.casefold() for case in cases if case.name not in several}
    parted = []
    for case in cases:
        if case.name not in several:
            parted.append(case)
        for stem in several.get(case.name, []):
            parted.append(replace(case, name=unused_name(f"{case.name}_{stem}", taken), series=stem))
    return parted


def series_of(case: RawCase) -> list[str]:
    """File stems of the DICOM series in a case's folder or zip file."""
    with opened(case.paths[0]) as folder:
        return [series.file_stem for series in find_series(folder)]


def tell_series(cases: Sequence[RawCase]) -> list[str]:
    """A line for each folder or zip file whose series became cases."""
    names: dict[Path, list[str]] = {}
    for case in cases:
        if case.series is not None:
            names.setdefault(case.paths[0], []).append(case.name)
    return [
        f"{path}: holds {len(found)} DICOM series, each a case of its own: {', '.join(found)}"
        for path, found in names.items()
    ]
