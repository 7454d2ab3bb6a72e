"""spadunet_quality, and what spadunet_predict makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_quality import calibration_of
from random_models import plan_of, write_model

from spadunet.cli import predict, quality
from spadunet.evaluation.evaluate import evaluate_pair
from spadunet.evaluation.pairs import Pair
from spadunet.evaluation.risk_report import QualityCheck
from spadunet.evaluation.scoring import gather_scores
from spadunet.evaluation.tables import write_scores
from spadunet.image import read_label_map
from spadunet.inference.quality_table import read_table
from spadunet.labels import LabelSet
from spadunet.model import load_model
from spadunet.model_changes import set_calibration

HIPPOCAMPUS = "Dataset004_Hippocampus"
LABELS = LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))
QUICK = ("-device", "cpu", "--precision", "float32", "--overlap", 0)
CALIBRATION = calibration_of("Anterior", "Posterior")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> Path:
    """Six real cases cut small, and two folds of random weights that have predicted three held-out cases each."""
    folder = tmp_path_factory.mktemp("data")
    copy_demo(HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, num_cases=6, size=(20, 24, 16))
    patches = {da: (20 if da < 6 else 1, 24, 24) for da in range(7)}
    plan = plan_of(LABELS).model_copy(update={"dataset_name": HIPPOCAMPUS, "patch_sizes_voxels": patches})
    labels = sorted((folder / "raw" / HIPPOCAMPUS / "labelsTr").iterdir())
    for fold in (0, 1):
        write_model(fold_of(folder, fold), fold, plan)
        held_out = labels[3 * fold : 3 * fold + 3]
        scores = [evaluate_pair(Pair(path.name.removesuffix(".nii.gz"), path, path), LABELS) for path in held_out]
        validation = fold_of(folder, fold) / "validation" / HIPPOCAMPUS
        validation.mkdir(parents=True)
        write_scores(validation, gather_scores(scores), LABELS)
    return folder


@pytest.fixture
def workspace(trained: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    shutil.copytree(trained, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def images(trained: Path, tmp_path: Path) -> Path:
    """Two of the images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted((trained / "raw" / HIPPOCAMPUS / "imagesTr").iterdir())[:2]:
        shutil.copy(path, folder)
    return folder


def fold_of(workspace: Path, fold: int) -> Path:
    return workspace / f"results/{HIPPOCAMPUS}/spad_unet_tiny/fold_{fold}"


def stored(workspace: Path, fold: int):
    return load_model(fold_of(workspace, fold)).tasks[HIPPOCAMPUS].calibration


@pytest.mark.slow
def test_what_held_out_cases_teach_is_kept_told_and_forgotten(
    workspace: Path, images: Path, tmp_path: Path, run, capsys
):
    folds = ("-d", "Hippocampus", "-f", 0, 1, "--data", workspace)
    fit = ("--fit", *folds, *QUICK, "-np", 1, "--copies", 1)
    before = {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()}
    assert run(quality.main, *fit, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "12 images: each case, and 1 copies of it" in told
    assert "6 references, for volumes" in told
    assert {path: path.read_bytes() for path in workspace.rglob("*") if path.is_file()} == before
    assert run(quality.main, *fit) == 0
    assert "learned from 6 held-out cases and 1 spoilt copies of each" in capsys.readouterr().out
    assert stored(workspace, 0) == stored(workspace, 1) is not None
    assert stored(workspace, 0).classes["Anterior"].volumes.num_cases == 6

    model = ("-m", fold_of(workspace, 0), fold_of(workspace, 1), *QUICK)
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", *model) == 0
    table = read_table(tmp_path / "out/quality.csv")
    assert len(table) == 2
    assert all(rows[-1].expected_dice is not None and rows[-1].agreement is not None for rows in table.values())
    assert "expected Dice: learned from 6 held-out cases" in (tmp_path / "out/spadunet_predict.log").read_text()

    capsys.readouterr()
    assert run(quality.main, "--show", *folds) == 0
    assert capsys.readouterr().out.count("learned from 6 held-out cases") == 2
    assert run(quality.main, "--forget", "-m", fold_of(workspace, 1)) == 0
    assert stored(workspace, 1) is None
    assert run(predict.main, "-i", images, "-o", tmp_path / "apart", *model) == 0
    assert "the models learned it apart" in (tmp_path / "apart/spadunet_predict.log").read_text()
    assert run(quality.main, *fit, "-f", 0) == 2
    assert "3 held-out cases are too few" in capsys.readouterr().err


def test_doubtful_label_maps_go_to_review_and_are_checked_there(
    workspace: Path, images: Path, tmp_path: Path, run, capsys
):
    out, model = tmp_path / "out", ("-m", fold_of(workspace, 0), *QUICK)
    command = ("-i", images, "-o", out, *model)
    assert run(predict.main, *command, "--reject-below", 0.5) == 2
    assert (
        "error: --reject-below 0.5: no expected Dice in quality.csv: spadunet_quality --fit -m"
        in capsys.readouterr().err
    )
    assert not out.exists()
    assert run(predict.main, *command) == 0
    names = sorted(path.name for path in out.glob("*.nii.gz"))
    maps = {name: read_label_map(out / name).array for name in names}
    assert "spadunet_quality --fit -m" in (out / "spadunet_predict.log").read_text()
    assert all(
        row.expected_dice is row.volume_z is None for rows in read_table(out / "quality.csv").values() for row in rows
    )
    check = ("--check", "-p", out, "-r", workspace / "raw" / HIPPOCAMPUS / "labelsTr", "-np", 1)
    assert run(quality.main, *check) == 2
    assert "expects no Dice of these cases" in capsys.readouterr().err

    set_calibration(fold_of(workspace, 0), HIPPOCAMPUS, CALIBRATION)
    assert run(predict.main, *command, "--reject-below", 1) == 0
    assert list(out.glob("*.nii.gz")) == []
    assert sorted(path.name for path in (out / "review").glob("*.nii.gz")) == names
    assert (out / "review/labels.json").is_file()
    assert all(np.array_equal(read_label_map(out / "review" / name).array, maps[name]) for name in names)
    assert all(rows[-1].review for rows in read_table(out / "quality.csv").values())
    assert (
        "2 of 2 label maps lie in review/: mean expected Dice below 1: hippocampus"
        in (out / "spadunet_predict.log").read_text()
    )

    assert run(quality.main, *check, "--dry-run") == 0
    assert not (out / "quality_check.json").exists()
    assert run(quality.main, *check) == 0
    told = capsys.readouterr().out
    assert "mean Dice of the 75% expected to be best" in told
    found = QualityCheck.from_json((out / "quality_check.json").read_text())
    assert [it.case for it in found.cases] == [name.removesuffix(".nii.gz") for name in names]
    assert (out / "risk_coverage.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "spadunet_quality.json").read_text())["command"] == "spadunet_quality"

    rows = read_table(out / "quality.csv")
    assert run(predict.main, *command, "--continue", "--reject-below", 0) == 0
    assert "2 of 2 label maps are there already and kept" in (out / "spadunet_predict.log").read_text()
    assert sorted(path.name for path in out.glob("*.nii.gz")) == names
    kept = read_table(out / "quality.csv")
    assert {case: found[-1].expected_dice for case, found in kept.items()} == {
        case: found[-1].expected_dice for case, found in rows.items()
    }
    assert not any(found[-1].review for found in kept.values())
    assert run(predict.main, *command) == 0  # anew, all of it
    assert not list((out / "review").glob("*.nii.gz"))


def test_an_interrupted_run_keeps_its_rows(workspace: Path, images: Path, tmp_path: Path, run, monkeypatch):
    import spadunet.inference.pipeline as pipeline

    whole, calls = pipeline.segment, []

    def stop(views, engine, times):
        calls.append(views)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return whole(views, engine, times)

    command = ("-i", images, "-o", tmp_path / "out", "-m", fold_of(workspace, 0), *QUICK)
    monkeypatch.setattr(pipeline, "segment", stop)
    assert run(predict.main, *command) == 130
    assert not (tmp_path / "out/quality.csv").exists()
    monkeypatch.undo()
    assert run(predict.main, *command) == 0
    table = read_table(tmp_path / "out/quality.csv")
    assert len(table) == 2
    assert not (tmp_path / "out/quality.unfinished.csv").exists()
    assert run(predict.main, "-i", images, "-o", tmp_path / "whole", *command[4:]) == 0
    assert (tmp_path / "whole/quality.csv").read_text() == (tmp_path / "out/quality.csv").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--check",), "--check: needs -p FOLDER"),
        (("--check", "-p", "nowhere", "-r", "nowhere"), "-p nowhere: folder not found"),
        (("--show", "-p", "nowhere"), "-p nowhere: is for --check"),
        (("--fit", "--copies", "-1"), "-1 is below zero"),
        ((), "one of the arguments --fit --show --forget --check is required"),
    ],
)
def test_wrong_use_is_one_line(options, message: str, run, capsys):
    assert run(quality.main, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_folder_without_a_table_or_references_is_told(tmp_path: Path, run, capsys):
    for name in ("predictions", "references"):
        (tmp_path / name).mkdir()
    check = ("--check", "-p", tmp_path / "predictions", "-r", tmp_path / "references")
    assert run(quality.main, *check) == 2
    assert "labels.json: not found; predict again" in capsys.readouterr().err
    (tmp_path / "predictions/labels.json").write_text(LABELS.to_json())
    assert run(quality.main, *check) == 2
    assert "quality.csv: cannot be read" in capsys.readouterr().err


def test_cases_that_trained_the_model_are_never_learned_from(workspace: Path, run, capsys):
    shutil.rmtree(fold_of(workspace, 1) / "validation")
    assert run(quality.main, "--fit", "-m", fold_of(workspace, 1), "--data", workspace, *QUICK) == 2
    assert "has no scores of held-out cases" in capsys.readouterr().err
    assert stored(workspace, 1) is None


def test_a_case_that_cannot_be_read_stops_the_fit_before_anything_is_kept(workspace: Path, run, capsys):
    damaged = sorted((workspace / "raw" / HIPPOCAMPUS / "imagesTr").iterdir())[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    fit = ("--fit", "-m", fold_of(workspace, 0), "--data", workspace, *QUICK, "-np", 1, "--copies", 0)
    assert run(quality.main, *fit) == 2
    assert damaged.name in capsys.readouterr().err
    assert stored(workspace, 0) is None


def test_kept_label_maps_without_rows_are_told(workspace: Path, images: Path, tmp_path: Path, run):
    command = ("-i", images, "-o", tmp_path / "out", "-m", fold_of(workspace, 0), *QUICK)
    assert run(predict.main, *command) == 0
    (tmp_path / "out/quality.csv").unlink()
    assert run(predict.main, *command, "--continue") == 0
    assert "2 of these have no row in quality.csv" in (tmp_path / "out/spadunet_predict.log").read_text()
    assert read_table(tmp_path / "out/quality.csv") == {}
