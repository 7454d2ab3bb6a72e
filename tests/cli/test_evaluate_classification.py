"""`spadunet_evaluate` with a predictions.csv, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from medmnist_file import members_of, write_medmnist

from spadunet.class_predictions import write_predictions
from spadunet.classes import ClassSet
from spadunet.cli.evaluate import main
from spadunet.evaluation.classification import ClassificationScores

SIDES = ClassSet(kind="binary", names=("left", "right"))


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Of twelve studies; three are wrong."""
    right = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.1, 0.9, 0.8, 0.7, 0.6, 0.4, 0.3])
    path = tmp_path / "predictions/predictions.csv"
    write_predictions(path, SIDES, [f"s{number}" for number in range(12)], np.stack([1 - right, right], axis=1))
    return path


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """A study in the order of the predictions: six left ones, then six right ones."""
    path = tmp_path / "raw/labels.csv"
    path.parent.mkdir()
    lines = [f"s{number},{'left' if number < 6 else 'right'}" for number in range(12)]
    path.write_text("\n".join(["study,side", *lines]) + "\n")
    return path


def exit_code(*arguments: object) -> int:
    """What the command leaves with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_scores_a_table_of_probabilities(predictions: Path, references: Path, capsys: pytest.CaptureFixture[str]):
    assert exit_code("-p", predictions, "-r", references, "--report") == 0
    output = predictions.parent
    scores = ClassificationScores.from_json((output / "scores.json").read_text())
    assert scores.accuracy == 0.75
    assert scores.auc == 31.5 / 36  # pairs in order, of right ones from .9 to .3: 6 + 6 + 6 + 5.5 + 4.5 + 3.5
    assert scores.classes == SIDES
    table = capsys.readouterr().out
    assert table.splitlines()[1].startswith("right")
    assert "12 studies" in table
    names = ["report.html", "scores.csv", "scores.json"]
    assert sorted(Path(it).name for it in json.loads((output / "spadunet_evaluate.json").read_text())["files"]) == names
    assert exit_code("-p", predictions, "-r", references.parent) == 0  # a folder with labels.csv; without a report
    assert not (output / "report.html").exists()


def test_scores_the_split_of_a_medmnist_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = write_medmnist(tmp_path / "cubes.npz", members_of())
    path = tmp_path / "p/predictions.csv"
    numbers = ClassSet(kind="binary", names=("0", "1"))
    right = np.array([0.1, 0.9, 0.2, 0.4])  # labels are 0, 1, 0, 1
    write_predictions(path, numbers, [f"test_{number:05}" for number in range(4)], np.stack([1 - right, right], 1))
    assert exit_code("-p", path, "-r", file) == 0
    scores = ClassificationScores.from_json((path.parent / "scores.json").read_text())
    assert (scores.auc, scores.accuracy) == (1, 0.75)
    assert exit_code("-p", path, "-r", file, "--split", "val", "-o", tmp_path / "v") == 2
    assert "no prediction of val_00000, val_00001, val_00002" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = sorted(tmp_path.rglob("*"))
    assert exit_code("-p", predictions, "-r", references, "-o", tmp_path / "out", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    shown = capsys.readouterr().out
    assert shown.startswith("spadunet_evaluate --dry-run: nothing is written")
    assert "12 studies of 12 patients, binary" in shown
    assert "scores.json: new" in shown


def test_predictions_without_a_reference_are_left_out_and_told(predictions: Path, references: Path, caplog, capsys):
    references.write_text(references.read_text().replace("s10,right\ns11,right\n", ""))
    told = "predictions without a reference, left out: 2 (s10, s11)"
    assert exit_code("-p", predictions, "-r", references, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "10 studies of 10 patients, binary" in shown
    assert told in shown
    assert exit_code("-p", predictions, "-r", references) == 0
    assert told in caplog.text
    scores = ClassificationScores.from_json((predictions.parent / "scores.json").read_text())
    assert (scores.num_studies, scores.accuracy) == (10, 0.9)
    assert told in (predictions.parent / "spadunet_evaluate.log").read_text()


def test_wrong_files_are_told_in_lines_and_nothing_is_written(
    predictions: Path, references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    references.write_text(references.read_text().replace("s11,right", "s12,right"))
    for more in ((), ("--dry-run",)):
        assert exit_code("-p", predictions, "-r", references, "-o", tmp_path / "out", *more) == 2
        told = capsys.readouterr().err.partition(": error: ")[2]
        assert told == (
            f"{predictions}: no prediction of s12; predict them, or choose the predicted "
            f"--split\n{predictions}: no reference of s11; is a study called otherwise?\n"
        )
    assert not (tmp_path / "out/scores.json").exists()


@pytest.mark.parametrize(
    "given",
    [["--metrics", "dice"], ["--protocol", "btcv"], ["--allow-missing"], ["--missing", "zero"], ["--unit", "mm"]],
)
def test_options_of_label_maps_are_refused(predictions: Path, references: Path, given: list[str], capsys):
    assert exit_code("-p", predictions, "-r", references, *given) == 2
    assert f"{given[0]}: is for label maps" in capsys.readouterr().err


def test_options_and_files_that_do_not_go_with_folders_are_refused(predictions: Path, references: Path, capsys):
    assert exit_code("-p", predictions.parent, "-r", references) == 2
    assert "for a classification give its predictions.csv to -p" in capsys.readouterr().err
    assert exit_code("-p", predictions.parent, "-r", references.parent, "--split", "val") == 2
    assert "--split val: is for a classification" in capsys.readouterr().err
    assert exit_code("-p", predictions.parent / "none.csv", "-r", references) == 2
    assert "none.csv: not found" in capsys.readouterr().err


def test_scores_of_the_other_kind_are_not_written_over(predictions: Path, references: Path, tmp_path: Path, capsys):
    scores = predictions.parent / "scores.json"
    scores.write_text('{"format_version": 2, "metrics": ["dice"]}')
    assert exit_code("-p", predictions, "-r", references) == 2
    assert f"{scores}: is of no classification; name another folder with -o" in capsys.readouterr().err
    assert scores.read_text().startswith('{"format_version": 2')
    scores.unlink()
    assert exit_code("-p", predictions, "-r", references) == 0
    before = scores.read_text()
    assert exit_code("-p", predictions.parent, "-r", references.parent) == 2
    assert f"{scores}: is of a classification; name another folder with -o" in capsys.readouterr().err
    assert scores.read_text() == before


def test_classes_json_decides_which_class_is_positive(predictions: Path, references: Path, tmp_path: Path, capsys):
    turned = tmp_path / "classes.json"
    turned.write_text(ClassSet(kind="binary", names=("right", "left")).to_json())
    assert exit_code("-p", predictions, "-r", references, "--labels", turned, "-o", tmp_path / "out") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("left")
