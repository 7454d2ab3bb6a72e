"""The file format of predictions: NIfTI, the input's own, or DICOM SEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..dataset import RawCase
from ..errors import InputError
from ..formats import DICOM_ENDING, LABEL_ENDINGS, LOSSY_ENDINGS, NIFTI_ENDINGS, TIFF_ENDINGS, ending_of, is_dicom
from ..labels import LabelSet
from .dicom_seg import require_highdicom

LabelFormat = Literal["nifti", "input", "dicom-seg"]

INSTEAD = dict.fromkeys(LOSSY_ENDINGS, ".png") | {".mhd": ".mha"}
"""JPEG changes values, and a .mhd is two files, which cannot appear at once."""
MAX_ID = {".bmp": 255} | dict.fromkeys((".png", *TIFF_ENDINGS), 65535)
"""Of formats that hold 8 or 16 bits a pixel."""


def image_ending(case: RawCase) -> str:
    """The ending of a case's image; that of DICOM for folders and zip files."""
    path = case.paths[0]
    return DICOM_ENDING if is_dicom(path) else ending_of(path) or NIFTI_ENDINGS[0]


def label_ending(case: RawCase, label_format: LabelFormat) -> str:
    """The ending of a case's label map; with "input" that of its image, or what is written for it instead."""
    if label_format == "nifti":
        return NIFTI_ENDINGS[0]
    if label_format == "dicom-seg":
        return DICOM_ENDING
    return INSTEAD.get(image_ending(case), image_ending(case))


def check_format(cases: Sequence[RawCase], label_format: LabelFormat, labels: LabelSet) -> list[str]:
    """Refuse a format that cannot hold the cases' label maps; lines on what is written in place of another.

    Raises:
        InputError: if SEG is asked for other images than DICOM, highdicom is missing, or an id is too large.
    """
    images = {image_ending(case) for case in cases}
    foreign = sorted(images - {DICOM_ENDING})
    if label_format == "dicom-seg" and foreign:
        raise InputError(f"--format dicom-seg: the images are {foreign[0]} files, not DICOM; use nifti or input")
    written = {label_ending(case, label_format) for case in cases}
    if DICOM_ENDING in written:
        require_highdicom()
    for ending in sorted(written):
        if max(labels.ids) > MAX_ID.get(ending, max(labels.ids)):
            raise InputError(
                f"--format {label_format}: {ending} files hold ids up to {MAX_ID[ending]}, the model's labels have "
                f"{max(labels.ids)}; use nifti"
            )
    if label_format != "input":
        return []
    return [
        f"label maps of {ending} images are written as {INSTEAD[ending]}"
        for ending in sorted(images)
        if ending in INSTEAD
    ]


def written_before(folder: Path, case: str) -> list[Path]:
    """The label maps of a case in a folder, whatever their format."""
    paths = [folder / f"{case}{ending}" for ending in (*LABEL_ENDINGS, DICOM_ENDING)]
    return [path for path in paths if path.is_file()]
