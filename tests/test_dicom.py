"""DICOM series as scanners, archives and anonymisers leave them: real files with the tags that matter."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from spadunet.dicom import find_series, holds_slices
from spadunet.errors import InputError
from spadunet.formats import read_channels, read_header

SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize(
    "names",
    [
        ["a.dcm", "b.dcm", "c.dcm", "d.dcm"],
        ["d.dcm", "c.dcm", "b.dcm", "a.dcm"],
        ["IM3", "IM10", "IM1", "IM2"],  # no ending, and no order
    ],
)
def test_slices_are_in_the_order_of_their_positions_whatever_they_are_called(tmp_path: Path, names: list[str]):
    write_series(tmp_path / "case", VOLUME, names=names)
    array, affine = read_channels(tmp_path / "case")
    np.testing.assert_array_equal(array, VOLUME[None])
    np.testing.assert_allclose(affine, [[0, 0, 0.75, 0], [0, 0.5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]])


def test_a_series_that_was_scanned_downwards_is_turned_with_its_affine(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, step_mm=(0, 0, -5))
    array, affine = read_channels(tmp_path / "case")
    np.testing.assert_array_equal(array[0], VOLUME[::-1])
    np.testing.assert_allclose(affine[:3, 0], (0, 0, 5))
    np.testing.assert_allclose(affine[:3, 3], (0, 0, -15))


def test_a_sagittal_series_lies_where_its_tags_say(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, directions=SAGITTAL, step_mm=(-3, 0, 0))
    array, affine = read_channels(tmp_path / "case")
    np.testing.assert_array_equal(array[0], VOLUME)  # the normal of rows to the back and columns down is to the right
    np.testing.assert_allclose(affine[:3, :3], [[-3, 0, 0], [0, 0, 0.75], [0, -0.5, 0]])


def test_what_itk_reads_of_a_sound_series_is_what_we_read(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "case")))
    theirs = reader.Execute()
    array, affine = read_channels(tmp_path / "case")
    np.testing.assert_array_equal(array[0], sitk.GetArrayFromImage(theirs))
    corner = theirs.TransformIndexToPhysicalPoint((5, 4, 3))
    np.testing.assert_allclose((affine @ [3, 4, 5, 1])[:3], corner)


def test_a_zip_file_is_read_like_its_folder(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    (tmp_path / "case/DICOMDIR").write_bytes(b"not an image")
    shutil.make_archive(str(tmp_path / "case"), "zip", tmp_path / "case")
    array, affine = read_channels(tmp_path / "case.zip")
    np.testing.assert_array_equal(array[0], VOLUME)
    np.testing.assert_array_equal(affine, read_channels(tmp_path / "case")[1])


def test_two_series_of_a_folder_are_told_apart_and_a_case_must_be_one(tmp_path: Path):
    write_series(tmp_path / "case/a", VOLUME, **{"0008_103e": "T1", "0020_0011": "3"})
    write_series(tmp_path / "case/b", VOLUME, uid="1.2.4", **{"0008_103e": "T2", "0020_0011": "12"})
    assert [(series.name, len(series.slices)) for series in find_series(tmp_path / "case")] == [("T1", 4), ("T2", 4)]
    with pytest.raises(InputError, match=r"case: holds 2 series: T1 \(4 slices\); T2 \(4 slices\); put each into a fo"):
        read_channels(tmp_path / "case")


def test_echoes_of_one_series_are_taken_apart(tmp_path: Path):
    write_series(tmp_path / "case/a", VOLUME, **{"0018_0081": "2.3"})
    write_series(tmp_path / "case/b", VOLUME + 1000, **{"0018_0081": "4.6"})
    assert [len(series.slices) for series in find_series(tmp_path / "case")] == [4, 4]


def test_slices_in_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path):
    write_series(tmp_path / "case/a", VOLUME)
    write_series(tmp_path / "case/b", VOLUME + 1000)
    with pytest.raises(InputError, match="another slice of its series lies in the same place"):
        read_channels(tmp_path / "case")


def test_a_missing_slice_is_named(tmp_path: Path):
    write_series(tmp_path / "case", np.concatenate([VOLUME, VOLUME + 200]))
    (tmp_path / "case/3.dcm").unlink()
    with pytest.raises(InputError, match=r"2\.dcm: 10 mm to the next slice of .*, but 5 mm between most; slices are"):
        read_channels(tmp_path / "case")


def test_gantry_tilt_is_refused_with_the_remedy(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, step_mm=(0, 1, 5))
    with pytest.raises(InputError, match=r"shifted by 3 mm against each other \(gantry tilt\); resample"):
        read_channels(tmp_path / "case")


def test_a_single_slice_is_a_millimetre_thick(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME[:1])
    array, affine = read_channels(tmp_path / "case")
    assert array.shape == (1, 1, 5, 6)
    np.testing.assert_allclose(affine[:3, 0], (0, 0, 1))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_zip_file_is_told(tmp_path: Path, content: bytes):
    (tmp_path / "case.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"case\.zip: damaged zip file"):
        read_channels(tmp_path / "case.zip")


def test_a_folder_without_dicom_is_told(tmp_path: Path):
    (tmp_path / "case").mkdir()
    (tmp_path / "case/readme.txt").write_text("nothing")
    with pytest.raises(InputError, match="case: holds no DICOM slices with a position; expected one series"):
        read_channels(tmp_path / "case")


def test_a_folder_of_slices_is_known_from_one_of_single_images(tmp_path: Path):
    write_series(tmp_path / "volume", VOLUME)
    write_series(tmp_path / "single", VOLUME[:1])
    write_series(tmp_path / "single", VOLUME[:1], uid="1.2.9", names=["other.dcm"])
    (tmp_path / "empty").mkdir()
    assert [holds_slices(tmp_path / name) for name in ("volume", "single", "empty")] == [True, False, False]


def test_a_damaged_slice_is_named(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME)
    path = tmp_path / "case/2.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"2\.dcm: damaged DICOM file; copy it again from its source"):
        read_channels(tmp_path / "case")


def test_the_header_of_a_folder_is_that_of_its_series(tmp_path: Path):
    write_series(tmp_path / "case", VOLUME, step_mm=(0, 0, -5))
    array, affine = read_channels(tmp_path / "case")
    header = read_header(tmp_path / "case")
    assert header is not None
    assert (header.num_channels, *header.shape) == array.shape
    assert header.voxel_type == array.dtype
    np.testing.assert_array_equal(header.affine, affine)
