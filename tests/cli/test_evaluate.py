"""`spadunet_evaluate` as a user calls it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spadunet
from spadunet.cli.evaluate import main
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.scores import Scores

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Two of the demo's references shifted by a voxel; one without its posterior part."""
    folder = tmp_path / "predictions"
    for name in ("hippocampus_014.nii.gz", "hippocampus_038.nii.gz"):
        reference = read_label_map(DEMO / "labelsTs" / name)
        array = np.roll(reference.array, 1, axis=0)
        if name == "hippocampus_038.nii.gz":
            array[array == 2] = 0
        write_label_map(folder / name, LabelMap(array=array, affine=reference.affine))
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """The two references in a raw dataset's folder, beside its dataset.json."""
    folder = tmp_path / "raw/labelsTs"
    folder.mkdir(parents=True)
    shutil.copy(DEMO / "dataset.json", folder.parent)
    for name in ("hippocampus_014.nii.gz", "hippocampus_038.nii.gz"):
        shutil.copy(DEMO / "labelsTs" / name, folder)
    return folder


def exit_code(*arguments: object) -> int:
    """What the command leaves with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_writes_scores_summary_table_and_manifest(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "scores"
    assert exit_code("-p", predictions, "-r", references, "-o", output, "-np", 1) == 0
    table = capsys.readouterr().out
    assert table.startswith("class ")
    assert "Anterior" in table
    scores = Scores.from_json((output / "scores.json").read_text())
    assert scores.summary()["Anterior"].hd_mm == 1.0
    assert scores.summary()["Posterior"].num_missed == 1
    summary = json.loads((output / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == scores.mean("dice")
    assert len((output / "scores.csv").read_text().splitlines()) == 1 + 2 * 2
    manifest = json.loads((output / "spadunet_evaluate.json").read_text())
    assert manifest["options"]["references"] == str(references)
    assert manifest["files"] == [str(output / name) for name in ("scores.json", "summary.json", "scores.csv")]


def test_writes_beside_the_predictions_unless_told_and_can_be_repeated(predictions: Path, references: Path):
    for _ in range(2):
        assert exit_code("--predictions", predictions, "--references", references, "--num-processes", 1) == 0
    assert (predictions / "scores.json").is_file()


def test_missing_predictions_are_an_error_unless_allowed(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    (predictions / "hippocampus_014.nii.gz").unlink()
    assert exit_code("-p", predictions, "-r", references) == 2
    error = capsys.readouterr().err
    assert "no prediction for 1 of 2 references: hippocampus_014" in error
    assert not (predictions / "scores.json").exists()
    assert exit_code("-p", predictions, "-r", references, "--allow-missing") == 0
    assert "References without a prediction, not counted: 1" in capsys.readouterr().out


def test_a_damaged_prediction_is_named_and_the_others_are_scored(
    predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]
):
    (predictions / "hippocampus_014.nii.gz").write_bytes(b"")
    assert exit_code("-p", predictions, "-r", references, "-np", 1) == 1
    assert "Cases that could not be scored, not counted: hippocampus_014" in capsys.readouterr().out
    scores = Scores.from_json((predictions / "scores.json").read_text())
    assert ([case.case for case in scores.cases], scores.failed) == (["hippocampus_038"], ("hippocampus_014",))
    assert json.loads((predictions / "summary.json").read_text())["failed"] == ["hippocampus_014"]
    assert "hippocampus_014.nii.gz: the file is empty" in (predictions / "spadunet_evaluate.log").read_text()


def test_labels_are_named_by_the_file_given(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    names = tmp_path / "names.json"
    names.write_text('{"channel_names": {"0": "MR"}, "labels": {"background": 0, "head": 1, "tail": 2}}')
    assert exit_code("-p", predictions, "-r", references, "--labels", names, "-np", 1) == 0
    assert "tail" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "nowhere", "-r", "."], "-p nowhere: folder not found"),
        (["-p", ".", "-r", "nowhere"], "-r nowhere: folder not found"),
        (["-p", ".", "-r", ".", "-np", "0"], "argument -np/--num-processes: 0 is not above zero"),
        (["-p", "."], "the following arguments are required: -r/--references"),
        (["-p", ".", "-r", ".", "--tolerance", "2"], "unrecognized arguments: --tolerance 2"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert exit_code(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_help_imports_no_heavy_library():
    code = """
import sys
from spadunet.cli.evaluate import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
heavy = {"torch", "monai", "scipy", "SimpleITK", "numpy", "pydantic"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
