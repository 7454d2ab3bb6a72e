"""What predictions are written as, and what is refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spadunet.dataset import RawCase
from spadunet.errors import InputError
from spadunet.inference.label_format import check_format, label_ending, written_before
from spadunet.labels import LabelSet


def cases_of(*names: str) -> list[RawCase]:
    """A case for each file name; no file is looked at."""
    return [RawCase(name="a", image_paths=(Path(name),), label_path=None) for name in names]


def labels_to(highest: int) -> LabelSet:
    return LabelSet(names=("background", "organ"), ids=(0, highest))


@pytest.mark.parametrize("name", ["a.nii.gz", "a_0000.nrrd", "a.PNG", "a.zip", "a.dcm"])
def test_nifti_is_the_default_of_every_image(name: str):
    assert label_ending(cases_of(name)[0], "nifti") == ".nii.gz"


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.nii", ".nii"), ("a_0000.nrrd", ".nrrd"), ("a.PNG", ".png"), ("a.tiff", ".tiff"), ("a.zip", ".dcm")],
)
def test_the_inputs_format_is_that_of_its_ending(name: str, ending: str):
    assert label_ending(cases_of(name)[0], "input") == ending


def test_the_label_map_of_a_folder_of_slices_is_one_dicom_file(tmp_path: Path):
    case = RawCase(name="a", image_paths=(tmp_path,), label_path=None)
    assert label_ending(case, "input") == label_ending(case, "dicom-seg") == ".dcm"


def test_what_is_written_in_place_of_a_format_is_said():
    assert check_format(cases_of("a.jpg", "b.mhd", "c.jpg"), "input", labels_to(1)) == [
        "label maps of .jpg images are written as .png",
        "label maps of .mhd images are written as .mha",
    ]
    assert check_format(cases_of("a.jpg"), "nifti", labels_to(1)) == []


def test_seg_is_for_dicom_alone():
    with pytest.raises(
        InputError, match=r"--format dicom-seg: the images are \.nii\.gz files, not DICOM; use nifti or"
    ):
        check_format(cases_of("a.nii.gz"), "dicom-seg", labels_to(1))
    assert check_format(cases_of("a.zip", "b.dcm"), "dicom-seg", labels_to(1)) == []


@pytest.mark.parametrize("label_format", ["input", "dicom-seg"])
def test_seg_without_its_library_is_refused(label_format: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install 'spadunet\[dicom\]', or use nifti"):
        check_format(cases_of("a.zip"), label_format, labels_to(1))
    assert check_format(cases_of("a.zip"), "nifti", labels_to(1)) == []


@pytest.mark.parametrize(("name", "highest"), [("a.bmp", 255), ("a.png", 65535), ("a.jpg", 65535), ("a.tif", 65535)])
def test_ids_that_a_picture_cannot_hold_are_refused(name: str, highest: int):
    check_format(cases_of(name), "input", labels_to(highest))
    with pytest.raises(
        InputError, match=rf"files hold ids up to {highest}, the model's labels have {highest + 1}; use"
    ):
        check_format(cases_of(name), "input", labels_to(highest + 1))
    check_format(cases_of(name), "nifti", labels_to(highest + 1))


def test_label_maps_of_a_case_are_found_in_any_format(tmp_path: Path):
    for name in ("a.nii.gz", "a.png", "a.dcm", "a.json", "ab.nii.gz"):
        (tmp_path / name).touch()
    assert {path.name for path in written_before(tmp_path, "a")} == {"a.nii.gz", "a.png", "a.dcm"}
    assert written_before(tmp_path / "nowhere", "a") == []
