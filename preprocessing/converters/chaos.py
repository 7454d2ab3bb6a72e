"""CHAOS's abdominal MR and CT (Kavur et al. 2021, doi:10.1016/j.media.2020.101950) as released on Zenodo.

Its ground truth is a folder of pictures: the n-th of their names belongs to the n-th of the DICOM files' names,
wherever that slice lies. Our arrays hold slices by position, so each picture follows its DICOM file there. Rows and
columns of both are the same: nothing is transposed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator
from tqdm import tqdm

from ...dataset import RawCase
from ...dicom import Series, read_series, the_one_series
from ...errors import InputError
from ...formats import DICOM_ENDING, ending_of, read_channels, write_array
from ...image import grid_difference, read_label_map
from ...record import FormatVersion, PositiveShape, Record, write_record
from ...releases import CHAOS_MR_LABELS
from .folder import new_dataset, require_folder, write_description


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One half of the release."""

    name: str
    """Of its folder below Train_Sets."""
    dataset: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    greys: tuple[tuple[int, int], ...]
    """Lowest and highest grey value of each label in the ground truth."""
    sequences: dict[str, tuple[str, dict[int, str]]]
    """By the ending of a case's name: folder below the patient's, and below that the DICOM files of each channel, those
    that name the slices first."""
    layout: str


MODALITIES = {
    "mr": Modality(
        name="MR",
        dataset="Dataset008_CHAOS",
        channels=("in-phase", "out-phase", "T2-SPIR"),
        labels=CHAOS_MR_LABELS,
        greys=((0, 0), (55, 70), (110, 135), (175, 200), (240, 255)),  # 63, 126, 189 and 252, and what lies near
        sequences={
            "t1": ("T1DUAL", {0: "DICOM_anon/InPhase", 1: "DICOM_anon/OutPhase"}),
            "t2": ("T2SPIR", {2: "DICOM_anon"}),
        },
        layout="Train_Sets/MR/<number>/T1DUAL/{DICOM_anon/{InPhase,OutPhase},Ground} and T2SPIR/{DICOM_anon,Ground}",
    ),
    "ct": Modality(
        name="CT",
        dataset="Dataset009_CHAOSCT",
        channels=("CT",),
        labels=("background", "liver"),
        greys=((0, 0), (255, 255)),
        sequences={"ct": ("", {0: "DICOM_anon"})},
        layout="Train_Sets/CT/<number>/{DICOM_anon,Ground}",
    ),
}
SLICES_JSON = "chaos_slices.json"


class CaseSlices(Record):
    """Which DICOM file each slice of a case was, and its grid: what a submission to the challenge needs."""

    folder: str = Field(pattern=r"^(MR/[0-9]+/(T1DUAL|T2SPIR)|CT/[0-9]+)$")
    """Below Train_Sets or Test_Sets, as MR/1/T1DUAL."""
    is_test: bool
    stems: tuple[Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]{0,99}$")], ...]
    """Names of the DICOM files (in T1-DUAL those of InPhase) without ending, in the order of the array's slices."""
    shape: PositiveShape
    affine: tuple[tuple[float, ...], ...]
    """Of the image as it was written."""

    @model_validator(mode="after")
    def check(self) -> CaseSlices:
        """A picture a slice, and a grid that has a place."""
        if [len(row) for row in self.affine] != [4] * 4:
            raise ValueError("an affine is a (4, 4) matrix")
        if len(set(self.stems)) != len(self.stems) or len(self.stems) != self.shape[0]:
            raise ValueError(f"{len(set(self.stems))} names of files for {self.shape[0]} slices")
        return self


class ChaosSlices(Record):
    """The slices of every training and test case, by case name."""

    format_version: FormatVersion = 1
    cases: dict[str, CaseSlices]


@dataclass(frozen=True, kw_only=True)
class ReleasedCase:
    """One image set of the release."""

    name: str
    patient: str
    folder: str
    """As `CaseSlices.folder`."""
    channels: dict[int, Path]
    """Folder of DICOM files by the channel's number."""
    pictures: dict[str, Path] | None
    """Ground truth by the DICOM file's name; None for a test case."""


def convert_chaos(source: Path, folder: Path, modality: Modality) -> int:
    """Write a raw dataset with all labelled image sets, and those of Test_Sets as test images; number of labelled ones.

    Of an MR case's three channels either the first two are there (T1-DUAL) or the third is (T2-SPIR).

    Args:
        source: the folder that holds Train_Sets and, if wanted, Test_Sets; or Train_Sets itself.
        folder: of the dataset, as raw/Dataset008_CHAOS.

    Raises:
        InputError: if folders or files of the release are missing or damaged, pictures and slices do not pair, grids
            of two phases differ, or a grey value is no label; all of it, a line each.
    """
    cases = find_released_cases(source, modality)
    slices: dict[str, CaseSlices] = {}
    problems = []
    with new_dataset(folder):
        for case in tqdm(cases, desc=f"Converting CHAOS {modality.name}", unit="case", disable=None):
            try:
                slices[case.name] = convert_case(case, folder, modality)
            except InputError as error:
                problems.append(str(error))
        if problems:
            raise InputError("\n".join(problems))
        write_record(folder / SLICES_JSON, ChaosSlices(cases=slices))
        write_description(
            folder,
            channel_names=modality.channels,
            labels=modality.labels,
            patients={case.name: case.patient for case in cases if case.pictures is not None},
            about={
                **({"optional_channels": modality.channels} if len(modality.sequences) > 1 else {}),
                "name": f"CHAOS {modality.name}",
                "reference": "Kavur et al. 2021, doi:10.1016/j.media.2020.101950",
                "licence": "CC-BY-NC-SA 4.0",
            },
        )
    return sum(case.pictures is not None for case in cases)


def find_released_cases(source: Path, modality: Modality) -> list[ReleasedCase]:
    """The image sets of Train_Sets, then those of Test_Sets where it is there.

    Raises:
        InputError: as `find_cases`.
    """
    release = source.resolve().parent if source.resolve().name == "Train_Sets" else source
    cases = find_cases(release / "Train_Sets", modality, is_test=False)
    if (release / "Test_Sets" / modality.name).is_dir():
        cases += find_cases(release / "Test_Sets", modality, is_test=True)
    return cases


def find_raw_cases(source: Path, modality: Modality) -> list[RawCase]:
    """The image sets as cases whose files are folders: of DICOM files a channel, and of pictures for the labels."""
    return [
        RawCase(
            name=case.name,
            image_paths=tuple(case.channels.get(number) for number in range(len(modality.channels))),
            label_path=next(iter(case.pictures.values())).parent if case.pictures else None,
        )
        for case in find_released_cases(source, modality)
    ]


def write_raw_case(case: RawCase, folder: Path, *, source: Path, modality: Modality) -> None:
    """Write the image set of this name into a dataset's folder."""
    (released,) = [found for found in find_released_cases(source, modality) if found.name == case.name]
    convert_case(released, folder, modality)


def find_cases(sets: Path, modality: Modality, *, is_test: bool) -> list[ReleasedCase]:
    """The image sets of Train_Sets or Test_Sets, sorted by patient.

    Raises:
        InputError: if a folder is missing or empty, or there are more or fewer pictures than slices.
    """
    top = sets / modality.name
    require_folder(top, modality.layout)
    patients = sorted((path.name for path in top.iterdir() if path.name.isdecimal()), key=int)
    if not patients:
        raise InputError(f"{top}: no patients' folders there; expected {modality.layout}")
    cases = []
    for patient in patients:
        for ending, (sequence, channels) in modality.sequences.items():
            folder = top / patient / sequence
            dicom = {number: folder / below for number, below in channels.items()}
            for needed in (*dicom.values(), *(() if is_test else (folder / "Ground",))):
                require_folder(needed, modality.layout)
            pictures = None if is_test else pair_pictures(next(iter(dicom.values())), folder / "Ground")
            cases.append(
                ReleasedCase(
                    name=f"chaos_{patient:0>2}_{ending}",
                    patient=f"chaos_{patient:0>2}",
                    folder=folder.relative_to(sets).as_posix(),
                    channels=dicom,
                    pictures=pictures,
                )
            )
    return cases


def pair_pictures(dicom: Path, ground: Path) -> dict[str, Path]:
    """The n-th picture by the name of the n-th DICOM file.

    Raises:
        InputError: if there are more or fewer pictures than DICOM files.
    """
    files, pictures = files_of(dicom, DICOM_ENDING), files_of(ground, ".png")
    if len(files) != len(pictures):
        lone = {path.stem for path in files} ^ {path.stem for path in pictures}
        named = f", {min(lone)} without a partner" if len(lone) == abs(len(files) - len(pictures)) else ""
        raise InputError(
            f"{ground}: holds {len(pictures)} pictures, but {dicom.name} {len(files)} DICOM files{named}; "
            "download the release again"
        )
    return {file.name: picture for file, picture in zip(files, pictures, strict=True)}


def files_of(folder: Path, ending: str) -> list[Path]:
    """Files of a folder by name, numbers in the names by their value; hidden ones are passed over."""
    paths = [path for path in folder.iterdir() if ending_of(path, (ending,)) and not path.name.startswith(".")]
    return sorted(paths, key=lambda path: (natural_key(path.name), path.name))


def natural_key(name: str) -> list[str | int]:
    """Sorts 9.dcm before 10.dcm."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def convert_case(case: ReleasedCase, folder: Path, modality: Modality) -> CaseSlices:
    """Read and check all of a case, then write its channels and its label map.

    Raises:
        InputError: as `convert_chaos`.
        OutputError: if the disk is full or the folder cannot be written.
    """
    volumes = {number: read_volume(path) for number, path in case.channels.items()}
    first, (series, array, affine) = next(iter(volumes.items()))
    for number, (_, other, other_affine) in volumes.items():
        difference = grid_difference(array.shape, affine, other.shape, other_affine)
        if difference:
            raise InputError(
                f"{case.channels[number]}: does not lie on the grid of {case.channels[first]}: {difference}; "
                "download the release again"
            )
    is_test = case.pictures is None
    if case.pictures is not None:
        planes = [read_labels(case.pictures[member.path.name], array.shape[1:], modality) for member in series.slices]
        write_array(folder / "labelsTr" / f"{case.name}.nii.gz", np.stack(planes), affine)
    images = folder / ("imagesTs" if is_test else "imagesTr")
    for number, (_, channel, _) in volumes.items():
        write_array(images / f"{case.name}_{number:04}.nii.gz", channel, affine)
    # NIfTI has right angles only: a stack that leans a little stands upright once it is written.
    _, affine = read_channels(images / f"{case.name}_{first:04}.nii.gz")
    a, b, c = array.shape
    return CaseSlices(
        folder=case.folder,
        is_test=is_test,
        stems=tuple(member.path.stem for member in series.slices),
        shape=(a, b, c),
        affine=affine.tolist(),
    )


def read_volume(folder: Path) -> tuple[Series, np.ndarray, np.ndarray]:
    """The one series of a folder, its voxels (A0, A1, A2) and its affine.

    Raises:
        InputError: if there is none or more than one, or a DICOM file is no slice of it.
    """
    series = the_one_series(folder, folder)
    lone = set(files_of(folder, DICOM_ENDING)) ^ {member.path for member in series.slices}
    if lone:
        raise InputError(f"{min(lone)}: is no slice of the volume in its folder; download the release again")
    channels, affine = read_series(series)
    return series, channels[0], affine


def read_labels(path: Path, shape: tuple[int, ...], modality: Modality) -> np.ndarray:
    """Label ids (A1, A2), uint8, of one picture.

    Args:
        shape: rows and columns of its slice.

    Raises:
        InputError: if the picture has another size, is coloured or damaged, or a grey value is no label.
    """
    grey = read_label_map(path).array[0]
    if grey.shape != shape:
        raise InputError(f"{path}: shape {grey.shape} against {shape} pixels of its slice; download the release again")
    labels = np.zeros(shape, np.uint8)
    is_known = np.zeros(shape, bool)
    for label, (low, high) in enumerate(modality.greys):
        inside = (low <= grey) & (grey <= high)
        labels[inside] = label
        is_known |= inside
    if not is_known.all():
        wanted = ", ".join(f"{low}" if low == high else f"{low} to {high}" for low, high in modality.greys)
        raise InputError(
            f"{path}: holds the grey value {grey[~is_known][0]}, which is no label of {modality.name} "
            f"(they are {wanted}); is it from another release, or was it resampled?"
        )
    return labels
