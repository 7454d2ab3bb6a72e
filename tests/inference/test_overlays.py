"""Pictures from the files of a case: upright, on one grid, in true proportions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

import spadunet
from spadunet.errors import InputError
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.inference.overlays import draw_case
from spadunet.labels import LabelSet
from spadunet.overlay import densest_planes
from spadunet.page import COLOURS

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"
IMAGE = DEMO / "imagesTs/hippocampus_014_0000.nii.gz"
REFERENCE = DEMO / "labelsTs/hippocampus_014.nii.gz"
LABELS = LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))


def pixels(picture: bytes) -> np.ndarray:
    """(height, width, 3)."""
    return imread(io.BytesIO(picture), format="jpg").astype(int)


def has_colour(picture: bytes, number: int) -> bool:
    """Whether a class is outlined."""
    colour = [int(COLOURS[number][place : place + 2], 16) for place in (1, 3, 5)]
    return bool((np.abs(pixels(picture) - colour).max(axis=2) < 40).sum() > 50)


def test_three_planes_of_a_real_case_with_both_classes():
    pictures = draw_case(IMAGE, REFERENCE, REFERENCE, LABELS, densest_planes)
    assert len(pictures) == 3
    assert all(has_colour(picture, 0) or has_colour(picture, 1) for picture in pictures)
    assert any(has_colour(picture, 0) and has_colour(picture, 1) for picture in pictures)


def test_pictures_do_not_depend_on_how_files_are_stored(tmp_path: Path):
    def turned(path: Path, name: str) -> Path:
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "ASR")
        sitk.WriteImage(image, str(tmp_path / name))
        return tmp_path / name

    image, reference = turned(IMAGE, "image.nii.gz"), turned(REFERENCE, "reference.nii.gz")
    expected = draw_case(IMAGE, REFERENCE, REFERENCE, LABELS, densest_planes)
    # The reference is turned with the image, the prediction is not: it is brought onto the image's grid.
    for prediction in (reference, REFERENCE):
        found = draw_case(image, reference, prediction, LABELS, densest_planes)
        for picture, other in zip(found, expected, strict=True):
            assert np.abs(pixels(picture) - pixels(other)).mean() < 1


def test_label_maps_on_another_grid_are_refused(tmp_path: Path):
    reference = read_label_map(REFERENCE)
    write_label_map(tmp_path / "cut.nii.gz", LabelMap(array=reference.array[1:], affine=reference.affine))
    with pytest.raises(InputError, match=r"cut\.nii\.gz: does not lie on the grid of"):
        draw_case(IMAGE, REFERENCE, tmp_path / "cut.nii.gz", LABELS, densest_planes)
