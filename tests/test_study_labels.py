"""labels.csv, classes.json and images/ to studies, and every slip in them."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from study_folder import write_picture, write_studies, write_study_image

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.errors import InputError
from spadunet.study_labels import read_studies

TWO = "image,grade\na,low\nb,high\nc,low\nd,high\n"


def write_classes(folder: Path, kind: str, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps({"kind": kind, "names": names}))


def test_one_column_holds_classes_and_each_image_is_a_study(tmp_path: Path):
    found = read_studies(write_studies(tmp_path / "Grades", TWO))
    assert (found.name, found.channel_names, found.has_splits) == ("Grades", ("channel 0",), False)
    assert found.classes == ClassSet(kind="binary", names=("high", "low"))
    assert [(study.name, study.patient, study.split, study.labels) for study in found.studies] == [
        ("a", "a", None, (1,)),
        ("b", "b", None, (0,)),
        ("c", "c", None, (1,)),
        ("d", "d", None, (0,)),
    ]
    assert found.studies[0].views[0].paths == (tmp_path / "Grades/images/a.nii.gz",)


def test_numbers_are_sorted_by_value(tmp_path: Path):
    table = "image,grade\na,10\nb,9\nc,2\nd,10\n"
    found = read_studies(write_studies(tmp_path, table))
    assert found.classes == ClassSet(kind="multi-class", names=("2", "9", "10"))


def test_several_columns_are_findings_that_may_be_unknown(tmp_path: Path):
    table = "image,effusion,nodule\na,1,\nb,0,1\nc,,0\nd,1.0,0.0\n"
    found = read_studies(write_studies(tmp_path, table))
    assert found.classes == ClassSet(kind="multi-label", names=("effusion", "nodule"))
    assert [study.labels for study in found.studies] == [(1, UNKNOWN), (0, 1), (UNKNOWN, 0), (1, 0)]


def test_rows_with_one_study_are_its_views(tmp_path: Path):
    table = "image,study,patient,split,grade\na,s1,p,train,low\nc,s2,p,Train,high\nb,s1,p,train,low\nd,,q,test,high\n"
    found = read_studies(write_studies(tmp_path, table))
    assert [(it.name, it.patient, it.split, [view.name for view in it.views]) for it in found.studies] == [
        ("s1", "p", "train", ["a", "b"]),
        ("s2", "p", "train", ["c"]),
        ("d", "q", "test", ["d"]),
    ]
    assert [study.name for study in found.of("train")] == ["s1", "s2"]
    assert found.has_splits


def test_classes_json_fixes_kind_and_order_and_other_columns_stay_out(tmp_path: Path):
    write_classes(tmp_path, "ordinal", "low", "mid", "high")
    table = "image,age,label\na,63,low\nb,70,high\nc,51,low\nd,44,high\n"
    found = read_studies(write_studies(tmp_path, table))
    assert found.classes == ClassSet(kind="ordinal", names=("low", "mid", "high"))
    assert [study.labels for study in found.studies] == [(0,), (2,), (0,), (2,)]


def test_one_finding_or_some_of_the_columns_are_chosen_by_classes_json(tmp_path: Path):
    write_classes(tmp_path, "multi-label", "nodule")
    found = read_studies(write_studies(tmp_path, "image,age,nodule\na,63,1\nb,70,0\nc,51,0\nd,44,0\n"))
    assert [study.labels for study in found.studies] == [(1,), (0,), (0,), (0,)]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, delimiter: str):
    write_studies(tmp_path, "")
    (tmp_path / "labels.csv").write_text("\ufeff" + TWO.replace(",", delimiter).replace("\n", "\r\n"))
    assert len(read_studies(tmp_path).studies) == 4


def test_images_may_be_called_by_their_files_and_be_of_several_formats(tmp_path: Path):
    write_studies(tmp_path, TWO.replace("a,", "a.nii.gz,").replace("d,", "d.mha,"), ["a", "b", "c"])
    write_study_image(tmp_path / "images/d.mha")
    views = [study.views[0].paths[0].name for study in read_studies(tmp_path).studies]
    assert views == ["a.nii.gz", "b.nii.gz", "c.nii.gz", "d.mha"]


def test_pictures_are_colours_and_folders_or_zip_files_are_dicom_series(tmp_path: Path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        path = tmp_path / "pictures/images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(rng.integers(0, 255, (6, 5, 3), dtype=np.uint8), isVector=True), path)
        write_series(
            tmp_path / "series/images" / name, rng.integers(0, 99, (3, 6, 5)).astype(np.int16), uid=f"1.{name}"
        )
    shutil.make_archive(str(tmp_path / "series/images/a"), "zip", tmp_path / "series/images/a")
    shutil.rmtree(tmp_path / "series/images/a")
    pictures, series = (read_studies(write_studies(tmp_path / name, TWO, ())) for name in ("pictures", "series"))
    assert pictures.channel_names == ("red", "green", "blue")
    assert series.channel_names == ("channel 0",)
    assert [study.views[0].paths[0].name for study in series.studies] == ["a.zip", "b", "c", "d"]


def test_grey_and_colour_pictures_in_one_folder_are_told_in_one_line(tmp_path: Path, caplog):
    write_studies(tmp_path, TWO, ())
    for name in "abcd":
        write_picture(tmp_path / "images" / f"{name}.png", is_colour=name in "cd", is_grey_in_truth=name == "c")
    message = r"^[^\n]*images: 2 of 4 images are colour pictures, such as d\.png, but one channel is expected; [^\n]*$"
    with pytest.raises(InputError, match=message):
        read_studies(tmp_path)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "red", "1": "green", "2": "blue"}}')
    assert len(read_studies(tmp_path).channel_names) == 3
    assert "images: 2 of 4 images are grey pictures, such as a.png, but colours are expected: each" in caplog.text


def test_channels_are_those_of_dataset_json_or_of_the_files_names(tmp_path: Path):
    names = [f"{case}_{number:04}" for case in "abcd" for number in range(2)]
    write_studies(tmp_path, TWO.replace("a,", "a_0001,").replace("b,", "b_0000.nii.gz,"), names)
    found = read_studies(tmp_path)
    assert found.channel_names == ("channel 0", "channel 1")
    assert [study.name for study in found.studies] == ["a", "b", "c", "d"]
    assert [path.name for path in found.studies[0].views[0].paths] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "T1", "1": "T2"}, "optional_channels": ["T2"]}')
    (tmp_path / "images/b_0001.nii.gz").unlink()
    found = read_studies(tmp_path)
    assert (found.channel_names, found.optional_channels) == (("T1", "T2"), ("T2",))
    assert found.studies[1].views[0].image_paths[1] is None


def test_patients_are_told_by_names_or_by_dataset_json(tmp_path: Path):
    names = ["anna_visit1", "anna_visit2", "ben_visit1", "c"]
    table = "image,grade\n" + "".join(
        f"{name},{grade}\n" for name, grade in zip(names, ("x", "y", "x", "y"), strict=True)
    )
    write_studies(tmp_path, table, names)
    assert [study.patient for study in read_studies(tmp_path).studies] == ["anna", "anna", "ben", "c"]
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "patients": {"c": "anna"}}')
    assert [study.patient for study in read_studies(tmp_path).studies] == ["anna", "anna", "ben", "anna"]


def test_images_without_a_row_are_told_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_studies(tmp_path, TWO, "abcdef")
    with caplog.at_level(logging.WARNING, "spadunet"):
        assert len(read_studies(tmp_path).studies) == 4
    assert "labels.csv: 2 images have no row and are not used: e, f" in caplog.text


def test_classes_that_a_split_lacks_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = "image,split,grade\na,train,low\nb,train,high\nc,val,low\nd,test,high\n"
    with caplog.at_level(logging.WARNING, "spadunet"):
        read_studies(write_studies(tmp_path, table))
    assert "labels.csv: split val has no study of high: its AUC is not defined there" in caplog.text
    assert "split test has no study of low" in caplog.text
    assert "split train" not in caplog.text


def test_a_class_that_no_training_study_has_cannot_be_learned(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = "image,split,grade\na,train,low\nb,train,high\nc,test,mid\nd,test,high\n"
    read_studies(write_studies(tmp_path, table))
    assert "labels.csv: mid cannot be learned: no training study\n" in caplog.text
    table = "image,split,x,y\na,train,0,1\nb,train,0,0\nc,test,1,1\nd,test,0,0\n"
    read_studies(write_studies(tmp_path, table))
    assert "labels.csv: x cannot be learned: every training study has the same value" in caplog.text


def test_a_class_of_one_study_or_patient_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = "image,patient,grade\na,p,low\nb,q,low\nc,p,hgih\nd,q,high\ne,q,high\n"
    read_studies(write_studies(tmp_path, table, "abcde"))
    assert "a single study has the class hgih (c); are these names spelled as they should be?" in caplog.text
    assert "a single patient has the class high (q); are these" in caplog.text
    assert not [it for it in caplog.records if it.levelname == "WARNING" and "low" in it.getMessage()]


def test_classes_that_pandas_wrote_as_floats_are_whole_numbers(tmp_path: Path):
    found = read_studies(write_studies(tmp_path, "image,grade\na,0.0\nb,1.0\nc,0\nd,1.\n"))
    assert found.classes == ClassSet(kind="binary", names=("0", "1"))
    assert [study.labels for study in found.studies] == [(0,), (1,), (0,), (1,)]
    found = read_studies(write_studies(tmp_path, "image,grade\na,0.5\nb,1.0\nc,0.5\nd,1.0\n"))
    assert found.classes.names == ("0.5", "1.0")


def test_a_word_for_a_missing_label_is_a_class_where_classes_json_says_so(tmp_path: Path):
    write_classes(tmp_path, "ordinal", "none", "high")
    found = read_studies(write_studies(tmp_path, TWO.replace("low", "none")))
    assert [study.labels for study in found.studies] == [(0,), (1,), (0,), (1,)]


def test_a_column_of_ages_beside_the_classes_is_told_in_one_line(tmp_path: Path):
    table = "image,age,grade\na,63,1\nb,70,0\nc,1,1\nd,44,0\n"
    with pytest.raises(InputError, match=r"^[^\n]*but age holds 63, 70, 44; leave one .* in classes\.json [^\n]*$"):
        read_studies(write_studies(tmp_path, table))


def test_images_may_be_called_with_their_folder(tmp_path: Path):
    table = "image,grade\nimages/a.nii.gz,low\n./images/b,high\nimages\\c.nii.gz,low\nd,high\n"
    assert [study.name for study in read_studies(write_studies(tmp_path, table)).studies] == ["a", "b", "c", "d"]


def test_spellings_of_one_patient_are_one_patient(tmp_path: Path):
    table = "image,study,patient,grade\na,s,Anna B,low\nb,s,anna  b,low\nc,t,ANNAB,high\nd,u,ben,high\n"
    assert [study.patient for study in read_studies(write_studies(tmp_path, table)).studies] == [
        "Anna B",
        "Anna B",
        "ben",
    ]


def test_images_that_are_in_two_splits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = "image,split,grade\na,train,low\nb,train,high\nc,test,low\nd,test,high\ne,test,low\nf,train,high\n"
    write_studies(tmp_path, table, "abcdef", ending=".nii")  # all of one size
    read_studies(tmp_path)
    assert "there are images" not in caplog.text
    shutil.copy(tmp_path / "images/a.nii", tmp_path / "images/d.nii")
    shutil.copy(tmp_path / "images/b.nii", tmp_path / "images/f.nii")  # of one split
    read_studies(tmp_path)
    told = "labels.csv: there are images in two splits: 1, such as d (test) and a (train); what is"
    assert told in caplog.text


def test_images_of_two_patients_that_are_the_same_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_studies(tmp_path, TWO)
    shutil.copy(tmp_path / "images/a.nii.gz", tmp_path / "images/d.nii.gz")
    read_studies(tmp_path)
    assert "there are images of two patients: 1, such as d (d) and a (a);" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "has no header; expected the columns image, study"),
        ("name,grade\na,low\n", "line 1: no column 'image', only name, grade; add it"),
        ("image,split\na,train\n", "line 1: no column of labels beside image, split"),
        ("image,grade,grade\na,x,y\n", "line 1: column 'grade' is there twice"),
        ("image,grade,\na,x,y\n", "line 1: a column has no name"),
        ("image,grade\n", "has a header but no rows; expected"),
        ("image,grade\na,x,y\n", "line 2: 3 cells, where the header has 2; correct the line"),
        ('image,grade\na,"x\n', "line 2: unexpected end of data"),
        (TWO.replace("b,", "x,"), "line 3: image 'x' is not in"),
        (TWO.replace("b,", ","), "line 3: image is empty"),
        (TWO.replace("b,", "../a,"), "line 3: image '../a' is not in"),
        (TWO.replace("b,", "a.nii.gz,"), "line 3: image 'a.nii.gz' stands in line 2 too"),
        (TWO.replace("b,high", "b,"), "line 3: grade is empty; give one of high, low, or take the row out"),
        (TWO.replace("high", "low"), "column grade: every label is 'low'; expected at least two classes"),
        (TWO.replace("d,high", "d,High"), "line 3: grade is 'high', elsewhere 'High'; write one class in one way"),
        (TWO.replace("d,high", "d,NaN"), "line 5: grade is 'NaN', which reads as no label; take the row out, or write"),
        (TWO.replace("d,high", "d,?"), "line 5: grade is '?', which reads as no label; take the row out, or write"),
        ("image,g\na,0\nb,1\nc,-1\nd,1\n", "line 4: g is '-1', which reads as no label; take the row out, or write"),
        ("image,age\na,50\nb,51\nc,52\nd,53\n", "column age: each of 4 studies has a class of its own, such as '50'"),
        ("image,x,y\na,1,0\nb,2,1\nc,0,0\nd,0,1\n", "line 3: x is '2'; expected 0, 1 or empty (unknown)"),
        ("image,x,y\na,1,0\nb,yes,1\nc,0,0\nd,0,1\n", "line 3: x is 'yes'; expected 0, 1 or empty (unknown)"),
        ("image,x,y\na,1,0\nb,,\nc,0,0\nd,0,1\n", "line 3: no finding is known, all 2 are empty"),
        ("image,x,y\na,1,0\nb,1,0\nc,,0\nd,1,\n", "every study has the label (1, 0); expected at least two"),
        ("image,split,g\na,train,x\nb,train,y\nc,valid,x\nd,test,x\n", "line 4: split is 'valid'; expected train, val"),
        ("image,split,g\na,train,x\nb,train,y\nc,,x\nd,test,x\n", "line 4: split is ''; expected train, val, test"),
        ("image,split,g\na,test,x\nb,test,y\nc,val,x\nd,val,x\n", "no row has the split train"),
        ("image,split,g\na,train,x\nb,train,x\nc,val,x\nd,val,y\n", "every training study has the label x"),
        ("image,study,g\na,s,x\nb,t,y\nc,s,y\nd,d,x\n", "line 4: study 's' has the labels 'y', but 'x' in line 2"),
        (
            "image,study,patient,g\na,s,p,x\nb,t,q,y\nc,s,q,x\nd,d,r,x\n",
            "line 4: study 's' has the patient 'q', but 'p' in line 2",
        ),
        (
            "image,study,split,g\na,s,train,x\nb,t,train,y\nc,s,test,x\nd,d,train,x\n",
            "line 4: study 's' has the split 'test', but 'train' in line 2",
        ),
        (
            "image,patient,split,g\na,p,train,x\nb,q,train,y\nc,p,test,y\nd,r,test,x\n",
            "line 4: patient 'p' is in test, but in train in line 2; put all studies of a patient into one split",
        ),
        (
            "image,patient,split,g\na,p 1,train,x\nb,q,train,y\nc,P1,test,y\nd,r,test,x\n",
            "line 4: patient 'P1' is in test, but in train in line 2; put all studies of a patient into one split",
        ),
        (
            "image,patient,g\na,p,x\nb,,y\nc,q,y\nd,r,x\n",
            "line 3: patient is empty, but others have one; fill it in, or take the row out",
        ),
    ],
)
def test_a_slip_is_told_with_file_line_value_and_remedy(tmp_path: Path, table: str, message: str):
    write_studies(tmp_path, table)
    where = re.escape(f"{tmp_path / 'labels.csv'}: {message}")
    with pytest.raises(InputError, match=f"^{where}[^\n]*$"):
        read_studies(tmp_path)


def test_patients_that_names_tell_may_not_be_in_two_splits_either(tmp_path: Path):
    names = ["anna_visit1", "anna_visit2", "ben_visit1", "ben_visit2"]
    rows = zip(names, ("train", "val", "train", "train"), "xyxy", strict=True)
    write_studies(tmp_path, "image,split,g\n" + "".join(f"{','.join(row)}\n" for row in rows), names)
    with pytest.raises(InputError, match="line 3: patient 'anna' is in val, .* or tell patients apart by a column"):
        read_studies(tmp_path)


def test_all_slips_of_a_kind_are_told_at_once_up_to_ten(tmp_path: Path):
    table = "image,g\n" + "".join(f"none{number},x\n" for number in range(12))
    with pytest.raises(InputError) as caught:
        read_studies(write_studies(tmp_path, table))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "… and 2 more"


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        ("ordinal", ["low", "mid"], r"labels\.csv: line 3: grade is 'high'; expected one of low, mid"),
        ("multi-label", ["nodule"], r"labels\.csv: line 1: no column is called 'nodule', a finding of classes\.json"),
        ("multi-label", ["grade"], r"labels\.csv: line 2: grade is 'low'; expected 0, 1 or empty"),
        ("ordered", ["low", "high"], r"classes\.json: field 'kind': Input should be 'multi-class'.*found 'ordered'"),
        ("binary", ["low"], r"classes\.json: a binary set has exactly 2 names, not 1; write"),
    ],
)
def test_a_table_that_does_not_fit_classes_json_is_refused(tmp_path: Path, kind: str, names: list[str], message: str):
    write_classes(tmp_path, kind, *names)
    with pytest.raises(InputError, match=message):
        read_studies(write_studies(tmp_path, TWO))


def test_which_column_holds_the_class_must_be_clear(tmp_path: Path):
    write_classes(tmp_path, "binary", "low", "high")
    table = "image,age,grade\na,63,low\nb,70,high\nc,51,low\nd,44,high\n"
    with pytest.raises(InputError, match=r"which of the columns age, grade holds the class .* Call it label"):
        read_studies(write_studies(tmp_path, table))


def test_folders_that_are_not_complete_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"labels\.csv: not found; expected the columns"):
        read_studies(tmp_path)
    (tmp_path / "labels.csv").write_text(TWO)
    with pytest.raises(InputError, match=r"has no folder images or imagesTr; put"):
        read_studies(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images: holds no images \(\.nii\.gz"):
        read_studies(tmp_path)
    write_studies(tmp_path, TWO)
    write_study_image(tmp_path / "images/a.mha")
    with pytest.raises(InputError, match=r"several images are called a \(.*a\.mha.*\); rename or remove"):
        read_studies(tmp_path)
    (tmp_path / "images/a.mha").unlink()
    (tmp_path / "dataset.json").write_text('{"channel_names": {"1": "CT"}}')
    with pytest.raises(InputError, match=r'dataset\.json: .*channels are numbered "0", "1", …; expected'):
        read_studies(tmp_path)


def test_a_table_that_is_no_text_is_refused(tmp_path: Path):
    write_studies(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes(b"image,grade\na,\xff\n")
    with pytest.raises(InputError, match=r"labels\.csv: cannot be read as UTF-8 text .* save it as CSV UTF-8"):
        read_studies(tmp_path)
