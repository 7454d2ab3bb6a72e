"""Which images DICOM files are, told by their headers before a pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..dicom import SERIES_DESCRIPTION, find_series, in_series, opened, printable, read_slice
from ..errors import InputError
from ..formats import DICOM_ENDING, ending_of, open_reader
from .corpus import SkippedImage
from .modality import DICOM_MODALITIES, UNKNOWN, modality_in, more_telling
from .sources import DicomFiles, Source, key_of, starts_as_dicom

MODALITY, PHOTOMETRIC = "0008|0060", "0028|0004"
NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG")
"""DICOM modalities that are made of images, and are none."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the headers of DICOM files tell."""

    sources: tuple[Source, ...]
    skipped: tuple[SkippedImage, ...]


def look_into(item: DicomFiles) -> Look:
    """Which series the files are; a file that lies nowhere, such as an ultrasound picture, is an image of its own."""
    if not item.files:
        return look_into_zip(item)
    sources, skipped, slices = [], [], []
    for path in item.files:
        try:
            member = read_slice(path)
            if member is not None:
                slices.append(member)
            elif tags_of(path).get(MODALITY) not in NO_IMAGES:
                place = f"{item.place}/{path.name}".removeprefix("./")
                sources.append(Source(dataset=item.dataset, path=path, key=key_of(item.dataset, place)))
        except InputError as error:
            skipped.append(SkippedImage(source=str(path), reason=str(error)))
    for series in in_series(slices):
        paths = tuple(member.path for member in series.slices)
        if tags_of(paths[0]).get(MODALITY) in NO_IMAGES:
            continue
        path = item.path if len(paths) > 1 else paths[0]
        if series.problem:
            skipped.append(SkippedImage(source=str(path), reason=series.problem))
            continue
        place = f"{item.place}/{series.file_stem if len(paths) > 1 else path.name}".removeprefix("./")
        sources.append(Source(dataset=item.dataset, path=path, key=key_of(item.dataset, place), slices=paths))
    return Look(sources=tuple(sources), skipped=tuple(skipped))


def look_into_zip(item: DicomFiles) -> Look:
    """The series of a zip file."""
    try:
        with opened(item.path) as folder:
            series = find_series(folder)
            kept = [it for it in series if tags_of(it.slices[0].path).get(MODALITY) not in NO_IMAGES]
    except InputError as error:
        return Look(sources=(), skipped=(SkippedImage(source=str(item.path), reason=str(error)),))
    if not series:
        reason = f"{item.path}: holds no DICOM slices; unpack other images"
        return Look(sources=(), skipped=(SkippedImage(source=str(item.path), reason=reason),))
    return Look(
        sources=tuple(
            Source(
                dataset=item.dataset,
                path=item.path,
                key=key_of(item.dataset, f"{item.place[:-4]}/{it.file_stem}"),
                series=it.file_stem,
            )
            for it in kept
        ),
        skipped=(),
    )


def tags_of(path: Path) -> dict[str, str]:
    """Modality, kind of grey and description of a DICOM file; nothing of another.

    Raises:
        InputError: if it cannot be read as an image.
    """
    if not (ending_of(path, (DICOM_ENDING,)) or starts_as_dicom(path)):
        return {}
    reader = open_reader(path)
    keys = [key for key in (MODALITY, PHOTOMETRIC, SERIES_DESCRIPTION) if reader.HasMetaDataKey(key)]
    return {key: printable(reader.GetMetaData(key)) for key in keys}


def modality_of(tags: dict[str, str]) -> str:
    """What DICOM tags say of the modality."""
    found = DICOM_MODALITIES.get(tags.get(MODALITY, ""), UNKNOWN)
    return more_telling(found, modality_in(tags.get(SERIES_DESCRIPTION, "")))
