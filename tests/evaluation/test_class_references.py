"""References of classifications: which studies are scored, by which labels, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from medmnist_file import members_of, write_medmnist
from study_folder import write_studies

from spadunet.class_predictions import ClassPredictions
from spadunet.classes import UNKNOWN, ClassSet
from spadunet.errors import InputError
from spadunet.evaluation.class_references import (
    find_classes,
    labels_file,
    match,
    medmnist_references,
    read_references,
)
from spadunet.medmnist import open_medmnist
from spadunet.study_labels import read_studies

SIDES = ("left", "right")
GRADES = ClassSet(kind="ordinal", names=("mild", "severe", "fatal"))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def told(path: Path, split: str | None = None, **options) -> list[str]:
    """What is wrong with a file, without its path."""
    with pytest.raises(InputError) as caught:
        read_references(path, split, **options)
    return [line.removeprefix(f"{path}: ") for line in str(caught.value).splitlines()]


def test_one_column_holds_classes_in_the_order_of_the_predictions(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,label", "a,left", "b,right", "c,")
    found = read_references(path, predicted=SIDES)
    assert found.classes == ClassSet(kind="binary", names=SIDES)
    assert (found.studies, found.labels.tolist()) == (("a", "b", "c"), [[0], [1], [UNKNOWN]])
    assert read_references(path, predicted=SIDES[::-1]).labels.tolist() == [[1], [0], [UNKNOWN]]
    assert read_references(path, predicted=("left", "right", "both")).classes.kind == "multi-class"


def test_several_columns_hold_findings(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,mass,effusion", "a,1,0", "b,,1.0")
    found = read_references(path, predicted=("effusion", "mass"))
    assert found.classes == ClassSet(kind="multi-label", names=("effusion", "mass"))
    assert found.labels.tolist() == [[0, 1], [1, UNKNOWN]]
    one = write(tmp_path / "one.csv", "study,mass", "a,1")
    assert read_references(one, predicted=("mass",)).classes == ClassSet(kind="multi-label", names=("mass",))


def test_a_class_set_says_kind_and_order(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,grade", "a,fatal", "b,mild")
    found = read_references(path, classes=GRADES, predicted=("fatal", "mild", "severe"))
    assert found.classes is GRADES
    assert found.labels.tolist() == [[2], [0]]
    findings = ClassSet(kind="multi-label", names=("mass",))
    more = write(tmp_path / "more.csv", "study,age,mass", "a,71,1")
    assert read_references(more, classes=findings).labels.tolist() == [[1]]


def test_the_test_split_is_scored_unless_another_is_asked_for(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,split,label", "a,train,left", "b,test,right", "c,val,left")
    found = read_references(path, predicted=SIDES)
    assert (found.studies, found.elsewhere) == (("b",), {"a", "c"})
    assert read_references(path, "val", predicted=SIDES).studies == ("c",)
    assert told(path, "tset", predicted=SIDES) == [
        "no study of the split 'tset', only train, val, test; choose another --split"
    ]
    without = write(tmp_path / "without.csv", "study,split,label", "a,train,left", "b,val,right")
    assert read_references(without, predicted=SIDES).studies == ("a", "b")


def test_views_of_a_study_are_one_and_images_name_studies_where_nothing_else_does(tmp_path: Path):
    path = write(
        tmp_path / "r.csv", "image,study,patient,label", "1.nii.gz,a,p,left", "2.nii.gz,a,p,left", "3.png,b,,left"
    )
    found = read_references(path, predicted=SIDES)
    assert (found.studies, found.patients) == (("a", "b"), ("p", "b"))
    images = write(tmp_path / "images.csv", "image,label", "scan_1.nii.gz,left")
    assert read_references(images, predicted=SIDES).studies == ("scan_1",)


def test_a_table_means_to_scoring_what_it_means_to_training(tmp_path: Path):
    rows = [
        "Image;Patient;Split;age;Label",
        "a_0000.nii.gz;p;Train;50;left",
        "b;q;test;51;right",
        "c;Q;TEST;52;left",
        "d;r;test;53;right",
        "e;s;train;54;right",
    ]
    folder = write_studies(tmp_path, "\n".join(rows), [f"{it}_0000" for it in "abcde"])
    (folder / "classes.json").write_text(ClassSet(kind="binary", names=SIDES[::-1]).to_json())
    learned = read_studies(folder)
    scored = read_references(folder / "labels.csv", classes=learned.classes)
    of_test = learned.of("test")
    assert scored.studies == tuple(it.name for it in of_test) == ("b", "c", "d")
    assert scored.labels.tolist() == [list(it.labels) for it in of_test]
    assert scored.patients == tuple(it.patient for it in of_test) == ("q", "q", "r")
    assert scored.elsewhere == {"a", "e"}


def test_labels_of_a_medmnist_file(tmp_path: Path):
    dataset = open_medmnist(write_medmnist(tmp_path / "cubes.npz", members_of()))
    found = medmnist_references(dataset)
    assert found.studies == found.patients == tuple(f"test_{number:05}" for number in range(4))
    assert (found.labels.tolist(), found.classes.kind) == ([[0], [1], [0], [1]], "binary")
    assert len(found.elsewhere) == 9
    assert len(medmnist_references(dataset, "val").studies) == 3
    named = ClassSet(kind="binary", names=SIDES)
    assert medmnist_references(dataset, classes=named).classes is named
    with pytest.raises(InputError, match="no study of the split 'valid', only train, val, test"):
        medmnist_references(dataset, "valid")
    with pytest.raises(InputError, match="c.json: 3 names, ordinal; .*has 2, binary: give the predictions of this"):
        medmnist_references(dataset, classes=GRADES, source=Path("c.json"))


def test_all_wrong_lines_are_told_at_once(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,label", "a,left", "b,lft", "c,middle")
    assert told(path, predicted=SIDES) == [
        f"line {line}: label is {value!r}; expected one of left, right" for line, value in ((3, "lft"), (4, "middle"))
    ]
    nameless = write(tmp_path / "n.csv", "study,label", "a,left", ",left")
    assert told(nameless, predicted=SIDES) == ["line 3: no name of the study; fill in the column study"]
    differ = write(tmp_path / "d.csv", "study,label", "a,left", "b,left", "a,right")
    assert told(differ, predicted=SIDES) == [
        "line 4: study 'a' has the labels 'right', but 'left' in line 2; write the same in each row of a study, "
        "or give it another name"
    ]
    finding = write(tmp_path / "f.csv", "study,mass,rib", "a,2,0")
    assert told(finding, predicted=("mass", "rib"))[0].startswith("line 2: mass is '2'; expected 0, 1 or")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["label", "left"], "no column 'study' or 'image', only label; add it"),
        (["study,patient", "a,p"], "no column of labels"),
        (["study,label", "a,", "b,"], "no study has a label"),
    ],
)
def test_a_file_without_what_is_needed(tmp_path: Path, lines: list[str], words: str):
    assert words in told(write(tmp_path / "r.csv", *lines), predicted=SIDES)[0]


def test_columns_that_do_not_fit_the_classes(tmp_path: Path):
    two = write(tmp_path / "two.csv", "study,left,right", "a,1,0")
    exclusive = ClassSet(kind="binary", names=SIDES)
    assert "which of the columns left, right holds the class" in told(two, classes=exclusive)[0]
    one = write(tmp_path / "one.csv", "study,label", "a,left")
    assert (
        "no column is called 'left', a finding of classes.json, but label"
        in told(one, classes=ClassSet(kind="multi-label", names=SIDES))[0]
    )
    assert "the predictions have probabilities of left alone" in told(one, predicted=("left",))[0]


def test_classes_json_lies_beside_references_or_predictions(tmp_path: Path):
    folders = [tmp_path / name for name in ("predictions", "references")]
    for folder in folders:
        folder.mkdir()
    files = folders[0] / "predictions.csv", folders[1] / "labels.csv"
    files[1].write_text("")
    assert find_classes(*files) == (None, None)
    (folders[0] / "classes.json").write_text(GRADES.to_json())
    assert find_classes(*files) == (GRADES, folders[0] / "classes.json")
    other = ClassSet(kind="multi-class", names=GRADES.names)
    (folders[1] / "classes.json").write_text(other.to_json())
    with pytest.raises(InputError, match="differ; choose one with --labels FILE"):
        find_classes(*files)
    assert find_classes(*files, folders[1] / "classes.json") == (other, folders[1] / "classes.json")
    assert (labels_file(folders[1]), labels_file(files[1])) == (files[1], files[1])
    (folders[1] / "classes.json").write_text('{"kind": "binary", "names": ["a"]}')
    with pytest.raises(InputError, match="exactly 2 names"):
        find_classes(*files)


def test_predictions_come_in_the_order_of_the_references(tmp_path: Path):
    path = write(tmp_path / "r.csv", "study,split,label", "a,test,left", "b,test,right", "c,train,left")
    references = read_references(path, predicted=SIDES)
    rows = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    given = ClassPredictions(studies=("c", "b", "a"), probabilities=rows)
    probabilities, spare = match(references, given, source=path)
    assert (probabilities.tolist(), spare) == ([[0.3, 0.7], [0.2, 0.8]], ())
    more = ClassPredictions(studies=("x", "a", "b"), probabilities=rows)
    probabilities, spare = match(references, more, source=path)
    assert (probabilities.tolist(), spare) == ([[0.2, 0.8], [0.3, 0.7]], ("x",))
    wrong = ClassPredictions(studies=("b", "x", "y"), probabilities=rows)
    with pytest.raises(InputError) as caught:
        match(references, wrong, source=Path("p.csv"))
    assert str(caught.value).splitlines() == [
        "p.csv: no prediction of a; predict them, or choose the predicted --split",
        "p.csv: no reference of x, y; is a study called otherwise?",
    ]
