"""A small folder of images and a table of their labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from spadunet.formats import write_array

AXIAL = np.eye(4)[[2, 1, 0, 3]]  # the first array axis goes up, the second back, the third left


def write_study_image(path: Path, *, shape: tuple[int, int, int] = (4, 6, 5), spacing_mm=(1.0, 1.0, 1.0)) -> Path:
    """An image of small whole numbers above 0, none like another's."""
    rng = np.random.default_rng(sum(path.name.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    array = rng.integers(1, 200, shape).astype(np.uint8)
    write_array(path, array, AXIAL * np.array([*spacing_mm, 1.0]))
    return path


def write_picture(path: Path, *, is_colour: bool, is_grey_in_truth: bool = False) -> Path:
    """A PNG of 8 × 8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(path.name.encode()))
    array = rng.integers(1, 200, (8, 8, 3) if is_colour else (8, 8), dtype=np.uint8)
    Picture.fromarray(array[..., :1].repeat(3, 2) if is_grey_in_truth else array).save(path)
    return path


def write_studies(folder: Path, table: str, names: Iterable[str] = ("a", "b", "c", "d"), *, ending=".nii.gz") -> Path:
    """images/ with a file each, and labels.csv."""
    for name in names:
        write_study_image(folder / "images" / f"{name}{ending}")
    (folder / "labels.csv").write_text(table, encoding="utf-8")
    return folder
