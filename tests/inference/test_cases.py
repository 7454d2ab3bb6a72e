"""A folder of DICOM as archives export it: each series a case of its own, under a name that stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_series

from spadunet.dataset import RawCase
from spadunet.errors import InputError
from spadunet.image import read_image
from spadunet.inference.cases import find_cases, tell_series

VOLUME = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def write(folder: Path, uid: str, number: str, description: str, *, value: int = 0, **options) -> None:
    """A series, its files named after its UID, so that several fit into one folder."""
    names = [f"{uid}_{index}" for index in range(len(VOLUME))]
    tags = {"0020_0011": number, "0008_103e": description}
    write_series(folder, VOLUME + value, uid=uid, names=names, **{**tags, **options})


def first_values(cases: list[RawCase]) -> dict[str, float]:
    """The first voxel of each case's image."""
    images = {case.name: read_image(case.image_paths, num_channels=1, series=case.series) for case in cases}
    return {name: float(image.array[0, 0, 0, 0]) for name, image in images.items()}


@pytest.mark.parametrize("is_zipped", [False, True])
def test_series_of_one_folder_are_cases_named_by_number_and_description(tmp_path: Path, is_zipped: bool):
    study = tmp_path / "in/study"
    write(study, "1.2.3", "3", "T1 (axial)/1", value=100)
    write(study, "1.2.4", "12", "T2", value=200)
    write(study, "1.2.5", "", "", value=300)
    if is_zipped:
        shutil.make_archive(str(study), "zip", study)
        shutil.rmtree(study)
    cases = find_cases(tmp_path / "in", 1)
    assert first_values(cases) == {"study_1.2.5": 300, "study_3_T1_axial_1": 100, "study_12_T2": 200}
    (line,) = tell_series(cases)
    assert line.endswith("holds 3 DICOM series, each a case of its own: study_1.2.5, study_3_T1_axial_1, study_12_T2")


def test_the_folder_itself_may_hold_the_series(tmp_path: Path):
    write(tmp_path / "study", "1.2.3", "3", "T1")
    write(tmp_path / "study", "1.2.4", "4", "T2", value=7)
    assert first_values(find_cases(tmp_path / "study", 1)) == {"study_3_T1": 0, "study_4_T2": 7}


def test_a_study_with_a_folder_for_each_series_has_the_folders_names(tmp_path: Path):
    write(tmp_path / "study/AXIAL", "1.2.3", "3", "T1")
    write(tmp_path / "study/SAGITTAL", "1.2.4", "4", "T2", value=7)
    cases = find_cases(tmp_path / "study", 1)
    assert first_values(cases) == {"AXIAL": 0, "SAGITTAL": 7}
    assert tell_series(cases) == []


def test_an_archives_patients_studies_and_series_are_found_at_any_depth(tmp_path: Path):
    write(tmp_path / "in/Roe/2020/S1", "1.2.3", "3", "CT", value=1)
    write(tmp_path / "in/Roe/2021/S1", "1.2.4", "3", "CT", value=2)
    write(tmp_path / "in/Doe/2020/S1", "1.2.5", "3", "CT", value=3)
    assert first_values(find_cases(tmp_path / "in", 1)) == {"Doe": 3, "Roe_3_CT": 1, "Roe_3_CT_2": 2}


def test_echoes_of_one_series_are_cases_too(tmp_path: Path):
    write(tmp_path / "in/a/1", "1.2.3", "3", "GRE", **{"0018_0081": "2.3"})
    write(tmp_path / "in/a/2", "1.2.3", "3", "GRE", value=7, **{"0018_0081": "4.6"})
    assert first_values(find_cases(tmp_path / "in", 1)) == {"a_3_GRE": 0, "a_3_GRE_2": 7}


def test_a_name_that_another_case_has_gets_a_number(tmp_path: Path):
    write(tmp_path / "in/a", "1.2.3", "3", "T1")
    write(tmp_path / "in/a", "1.2.4", "4", "T2", value=1)
    write(tmp_path / "in/A_3_t1", "1.2.5", "9", "", value=2)
    assert first_values(find_cases(tmp_path / "in", 1)) == {"A_3_t1": 2, "a_3_T1_2": 0, "a_4_T2": 1}


def test_with_more_channels_than_one_nothing_is_guessed(tmp_path: Path):
    for channel in ("a_0000", "a_0001"):
        write(tmp_path / "in" / channel, "1.2.3", "3", "T1")
    write(tmp_path / "in/a_0001", "1.2.4", "4", "T2")
    (case,) = find_cases(tmp_path / "in", 2)
    assert (case.name, case.series) == ("a", None)
    with pytest.raises(
        InputError, match=r"a_0001: holds 2 series: T1 \(4 slices\); T2 \(4 slices\); put each into a f"
    ):
        read_image(case.image_paths, num_channels=2)


def test_a_case_that_cannot_be_read_stays_one_and_hinders_no_other(tmp_path: Path):
    write(tmp_path / "in/a", "1.2.3", "3", "T1")
    write(tmp_path / "in/a", "1.2.4", "4", "T2")
    damaged = tmp_path / "in/a/1.2.4_2"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    write(tmp_path / "in/b", "1.2.3", "3", "T1")
    (tmp_path / "in/c.zip").write_bytes(b"cut off")
    cases = find_cases(tmp_path / "in", 1)
    assert [(case.name, case.series) for case in cases] == [("a", None), ("b", None), ("c", None)]
    for case, problem in ((cases[0], r"1\.2\.4_2: damaged DICOM file"), (cases[2], r"c\.zip: damaged zip file")):
        with pytest.raises(InputError, match=problem):
            read_image(case.image_paths, num_channels=1)


def test_a_series_whose_slices_lie_in_one_place_hinders_no_other(tmp_path: Path):
    write(tmp_path / "in/a", "1.2.3", "3", "T1")
    for part in ("1", "2"):
        write(tmp_path / "in/a" / part, "1.2.4", "4", "DTI")
    first, second = find_cases(tmp_path / "in", 1)
    assert first_values([first]) == {"a_3_T1": 0}
    with pytest.raises(InputError, match="another slice of its series lies in the same place"):
        read_image(second.image_paths, num_channels=1, series=second.series)


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_folders_beside_images_are_none_but_of_dicom_slices(tmp_path: Path):
    images = touch(tmp_path, "a.nii.gz", "b.nii.gz")
    touch(images / "predictions", "a.nii.gz", "quality.csv", ".hidden")
    touch(images / "predictions/review")
    (images / "old").mkdir()
    assert [case.name for case in find_cases(images, 1)] == ["a", "b"]
    write(images / "study", "1.2.3", "3", "T1")
    with pytest.raises(InputError, match=r"holds both \.nii\.gz and \.dcm files"):
        find_cases(images, 1)


def test_a_folder_alone_is_a_case_whatever_it_holds(tmp_path: Path):
    """So that a study whose files are all broken is named."""
    touch(tmp_path / "in/broken", "1")
    assert [case.name for case in find_cases(tmp_path / "in", 1)] == ["broken"]


def test_a_case_without_a_channel_says_so_in_its_turn(tmp_path: Path):
    images = touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "c_0001.nii.gz")
    a, b, c = find_cases(images, 2)
    assert (a.name, a.problem) == ("a", None)
    assert a.image_paths == (images / "a_0000.nii.gz", images / "a_0001.nii.gz")
    assert b.problem == (
        f"{images / 'b'}: wrong channel count: files for channels [0], expected 2, numbered from _0000; "
        "add the missing or remove the extra files; a model that can do without some of its channels is told by "
        "--channels which are there"
    )
    assert c.paths == (images / "c_0001.nii.gz",)
    (images / "a_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"a: wrong channel count: files for channels \[0\], expected 2"):
        find_cases(images, 2)  # of none are they complete: it is the wrong model
