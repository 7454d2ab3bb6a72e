"""Writes DICOM series as scanners, archives and anonymisers leave them."""

from __future__ import annotations

import locale
from pathlib import Path

import numpy as np
import SimpleITK as sitk

AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


def write_slice(path: Path, plane: np.ndarray, tags: dict[str, str], pixel_mm: tuple[float, float]) -> None:
    """One DICOM file of an array (rows, columns)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(plane[None])
    image.SetSpacing((pixel_mm[1], pixel_mm[0], 1.0))
    for key, value in tags.items():
        image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    kept = locale.setlocale(locale.LC_ALL)
    writer.Execute(image)
    locale.setlocale(locale.LC_ALL, kept)  # GDCM leaves "C", in which files are no UTF-8


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    names: list[str] | None = None,
    directions: tuple[tuple[float, ...], ...] = AXIAL,
    step_mm: tuple[float, ...] = (0.0, 0.0, 5.0),
    first_mm: tuple[float, ...] = (0.0, 0.0, 0.0),
    pixel_mm: tuple[float, float] = (0.5, 0.75),
    uid: str = "1.2.3",
    **tags: str,
) -> None:
    """A series whose slice n lies at first_mm + n · step_mm; pixel_mm between rows and between columns."""
    for number, plane in enumerate(volume):
        position = [first + number * step for first, step in zip(first_mm, step_mm, strict=True)]
        name = names[number] if names else f"{number}.dcm"
        standard = {
            "0008|0060": "MR",
            "0020|000e": uid,
            "0020|000d": "1.2",
            "0008|0018": f"{uid}.{number}.{abs(hash(name)) % 1000}",
            "0020|0032": "\\".join(f"{value:g}" for value in position),
            "0020|0037": "\\".join(f"{value:g}" for direction in directions for value in direction),
            "0018|0050": "1",  # a slice thickness that is not the distance of slices
            "0020|0013": str(len(volume) - number),  # instance numbers against the grain
        }
        changed = {key.replace("_", "|"): value for key, value in tags.items()}
        write_slice(folder / name, plane, standard | changed, pixel_mm)
