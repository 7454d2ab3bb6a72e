"""Sizes from headers, of files as every format has them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.sizes import count_values, voxel_volume_mm3


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """5×4×3 voxels of 1×2×4 mm."""
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16))
    image.SetSpacing((1, 2, 4))
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_values_of_volumes_and_colours_are_counted(volume: Path, tmp_path: Path):
    picture = tmp_path / "a.png"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 7, 3), np.uint8), isVector=True), str(picture))
    assert count_values([volume]) == 60
    assert count_values([volume, volume, picture]) == 60 + 60 + 6 * 7 * 3
    assert count_values([]) == 0


def test_a_series_is_judged_by_its_bytes(tmp_path: Path):
    folder, packed = tmp_path / "series", tmp_path / "series.zip"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.dcm").write_bytes(bytes(1000))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(folder / "0.dcm")
    assert count_values([folder]) == 1500
    assert count_values([packed]) == 500  # of what it unpacks to
    assert voxel_volume_mm3(folder) is None


@pytest.mark.parametrize("content", [None, b"", b"not an image"])
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, content: bytes | None):
    path = tmp_path / "a.nii.gz"
    if content is not None:
        path.write_bytes(content)
    assert count_values([path]) == 0
    assert voxel_volume_mm3(path) is None


def test_the_volume_of_a_voxel(volume: Path):
    assert voxel_volume_mm3(volume) == pytest.approx(8)
