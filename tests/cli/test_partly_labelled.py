"""Cases in which only some classes were annotated, and weights of classes and datasets, through all commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spadunet.cli import check, evaluate, plan_and_preprocess, predict, preprocess, train
from spadunet.fingerprint import Fingerprint
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.model import load_model
from spadunet.preprocessing.store import open_case
from spadunet.scores import Scores
from spadunet.training.curves import read_rows

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"


def describe(folder: Path, **keys: object) -> None:
    """Change keys of dataset.json."""
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(description | keys))


@pytest.fixture
def raw(copy_demo, tmp_path: Path) -> Path:
    """Three hippocampi: of the first and the second just the anterior part, which the second's label map breaks."""
    folder = copy_demo(HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS, num_cases=3, size=(20, 24, 16))
    first, second, _ = sorted((folder / "labelsTr").iterdir())
    label_map = read_label_map(first)
    write_label_map(first, LabelMap(array=np.where(label_map.array == 2, 0, label_map.array), affine=label_map.affine))
    names = [path.name.removesuffix(".nii.gz") for path in (first, second)]
    describe(folder, labelled_classes=dict.fromkeys(names, ["Anterior"]))
    return folder


def test_partly_labelled_cases_go_from_raw_to_scores(
    raw: Path, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    data = ("--data", tmp_path)
    plan_command = (plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, *data)
    assert run(*plan_command) == 0
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    warning = f"{names[1]}.nii.gz: holds labels [2], which labelled_classes in dataset.json does not name for this case"
    assert warning in caplog.text
    assert f"{names[0]}.nii.gz: holds labels" not in caplog.text
    folder = tmp_path / "preprocessed" / raw.name
    cases = [open_case(folder / "cases", name) for name in names]
    assert [case.header.annotated for case in cases] == [("Anterior",), ("Anterior",), ()]
    drawn = [set(case.foreground_voxels()[:, 0].tolist()) for case in cases]
    assert drawn == [{1}, {1}, {1, 2}]

    splits = [{"train": names[1:], "val": names[:1]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    assert run(train.main, "-d", 4, "-f", 0, "--max-steps", 4, *quick, *data) == 0
    model = tmp_path / "results" / raw.name / "spad_unet_tiny/fold_0"
    assert load_model(model).provenance["labelled_classes"].startswith("all but in 1 cases (")
    validation = Scores.from_json((model / "validation" / raw.name / "scores.json").read_text())
    assert [score.is_annotated for score in validation.cases[0].classes.values()] == [True, False]

    output = tmp_path / "predictions"
    assert run(predict.main, "-i", raw / "imagesTr", "-o", output, "-d", 4, "-device", "cpu", *data) == 0
    capsys.readouterr()
    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    summary = Scores.from_json((output / "scores.json").read_text()).summary()
    assert (summary["Anterior"].num_cases, summary["Posterior"].num_cases) == (3, 1)

    # What was annotated is found out later: every stage knows that it must work again.
    fingerprint = Fingerprint.from_json((folder / "fingerprint.json").read_text())
    describe(raw, labelled_classes={names[0]: ["Anterior"]})
    assert run(train.main, "-d", 4, "-f", 0, "--max-steps", 4, "-o", tmp_path / "other", *quick, *data) == 2
    assert "says by now that other classes were annotated; run spadunet_preprocess -d" in capsys.readouterr().err
    caplog.clear()
    assert run(*plan_command) == 0
    assert "1 cases made, 2 kept" in caplog.text
    assert "holds labels" not in caplog.text
    again = Fingerprint.from_json((folder / "fingerprint.json").read_text())
    assert again.source_digest != fingerprint.source_digest
    assert again.intensities != fingerprint.intensities  # the posterior part is foreground by now
    assert set(open_case(folder / "cases", names[1]).foreground_voxels()[:, 0].tolist()) == {1, 2}


def test_a_class_that_was_annotated_nowhere_and_wrong_names_are_told(
    raw: Path, tmp_path: Path, run, caplog, capsys: pytest.CaptureFixture[str]
):
    names = [path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()]
    describe(raw, labelled_classes=dict.fromkeys(names, ["Anterior"]))
    assert run(check.main, "-d", 4, "-np", 1, "--data", tmp_path) == 0
    assert "no training case has a voxel of Posterior (label 2); it cannot be learned" in caplog.text
    for labelled, message in (
        ({"nobody": ["Anterior"]}, "dataset.json: field 'labelled_classes': no case is called nobody; expected names"),
        ({names[0]: ["Middle"]}, "expected at least one of the labels Anterior, Posterior, not Middle"),
    ):
        describe(raw, labelled_classes=labelled)
        for command in (check, preprocess):
            assert run(command.main, "-d", 4, "-np", 1, "--data", tmp_path) == 2
            error = capsys.readouterr().err
            assert message in error
            assert error.count("\n") == 1


def test_regions_that_were_not_annotated_are_left_out(raw: Path, tmp_path: Path, run, quick):
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    describe(
        raw,
        labels={"background": 0, "hippocampus": [1, 2], "posterior": 2},
        regions_class_order=[1, 2],
        labelled_classes={names[0]: ["posterior"]},
    )
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, *data) == 0
    case = open_case(tmp_path / "preprocessed" / raw.name / "cases", names[0])
    _, classes = case.read_patch((0, 0, 0), case.header.geometry.shape)
    assert not classes.any()  # what there was, anterior, belongs to no region that was annotated
    assert run(train.main, "-d", 4, "-f", "all", "--max-steps", 3, *quick, *data) == 0


def test_weights_of_classes_and_datasets_are_told_and_wrong_ones_refused(
    planned: Path, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str]
):
    command = ("-d", 4, 101, "-f", "all", "--max-steps", 6, *quick, "--data", planned, "-o", tmp_path / "model")
    weights = ("--dataset-weights", 1e6, 1, "--class-weights", "Posterior=3", "background=0.5")
    assert run(train.main, *command, *weights) == 0
    rows = read_rows(tmp_path / "model/curves.csv")
    assert [row["task"] for row in rows] == [HIPPOCAMPUS] * 6
    even = [*command[:-1], tmp_path / "even", *weights[:3]]
    assert run(train.main, *even) == 0
    assert abs(float(read_rows(tmp_path / "even/curves.csv")[0]["loss"]) - float(rows[0]["loss"])) > 0.01
    told = load_model(tmp_path / "model").provenance
    assert told["dataset_weights"] == "1e+06 1"
    assert told["class_weights"].startswith(f"{HIPPOCAMPUS} background=0.5 Anterior=1 Posterior=3; {HEART} ")
    assert told["class_weights"].split("; ")[1].startswith(f"{HEART} background=0.5 ")
    assert run(train.main, *command) == 2
    assert "an earlier run had dataset_weights 1e+06 1, not auto auto" in capsys.readouterr().err
    for wrong, message in (
        (
            ["Middle=2"],
            "--class-weights: Middle is no class of the datasets; give some of background, Anterior, Poster",
        ),
        (["Anterior=2", "Anterior=3"], "--class-weights: Anterior is given twice; give each class once"),
        (["Anterior"], "Anterior is not NAME=W, such as liver=2"),
        (["Anterior=x"], "Anterior=x: x is no number"),
        (["Anterior=0"], "0 is not above zero"),
    ):
        assert run(train.main, *command, "--class-weights", *wrong) == 2
        assert message in capsys.readouterr().err
