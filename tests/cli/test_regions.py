"""Regions and an ignore label through all commands, on real cases whose label maps are rewritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spadunet.cli import evaluate, plan_and_preprocess, predict, train
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.model import load_model
from spadunet.preprocessing.store import open_case
from spadunet.scores import Scores

HIPPOCAMPUS = "Dataset004_Hippocampus"
NUM_CASES = 3
IGNORE = 200

Relabel = Callable[[int, np.ndarray], np.ndarray]


@pytest.fixture
def make_labels(copy_demo, tmp_path: Path) -> Callable[..., Path]:
    """A raw dataset of cut hippocampi: other label maps, made of a case's number and array, and other keys."""

    def make(relabel: Relabel, **keys: object) -> Path:
        folder = copy_demo(HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS, num_cases=NUM_CASES, size=(20, 24, 16))
        description = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(description | keys))
        for number, path in enumerate(sorted((folder / "labelsTr").iterdir())):
            label_map = read_label_map(path)
            write_label_map(path, LabelMap(array=relabel(number, label_map.array), affine=label_map.affine))
        return folder

    return make


def split_anterior(number: int, array: np.ndarray) -> np.ndarray:
    """Ids 1 and 2 for the lower and the upper half of the anterior part, 4 for the posterior one."""
    upper = np.arange(len(array))[:, None, None] >= len(array) // 2
    return np.select([array == 2, (array == 1) & upper, array == 1], [4, 2, 1], 0).astype(np.uint8)


def test_regions_go_from_raw_to_scores(make_labels, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str]):
    labels = {"background": 0, "hippocampus": [1, 2, 4], "posterior": 4}
    raw = make_labels(split_anterior, labels=labels, regions_class_order=[2, 4])
    regions = {"hippocampus": (1, 2, 4), "posterior": (4,)}
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, *data) == 0
    assert run(train.main, "-d", 4, "-f", 0, "--max-steps", 8, *quick, *data) == 0
    folder = tmp_path / "results" / raw.name / "spad_unet_tiny/fold_0"
    task = load_model(folder).tasks[raw.name]
    assert task.state["heads.0.weight"].shape[0] == 2  # an output a region, none for background
    assert task.plan.labels.names == ("background", "label 1", "label 2", "posterior")
    validation = Scores.from_json((folder / "validation" / raw.name / "scores.json").read_text())
    assert list(validation.summary()) == list(regions)

    output = tmp_path / "predictions"
    assert run(predict.main, "-i", raw / "imagesTr", "-o", output, "-d", 4, "-device", "cpu", *data) == 0
    capsys.readouterr()
    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    assert "hippocampus" in capsys.readouterr().out
    scores = Scores.from_json((output / "scores.json").read_text())
    assert len(scores.cases) == NUM_CASES
    painted: set[int] = set()
    for case in scores.cases:
        masks = [read_label_map(it / f"{case.case}.nii.gz").array for it in (output, raw / "labelsTr")]
        assert list(case.classes) == list(regions)
        painted |= set(np.unique(masks[0]).tolist())
        for name, ids in regions.items():
            predicted, reference = (np.isin(array, ids) for array in masks)
            assert case.classes[name].num_reference_voxels == reference.sum() > 0
            assert case.classes[name].num_prediction_voxels == predicted.sum()
            assert case.classes[name].dice == pytest.approx(
                2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())
            )
    assert {2} <= painted <= {0, 2, 4}  # never 1, which is in the references but not in regions_class_order
    summary = json.loads((output / "summary.json").read_text())
    assert summary["labels"] == {"(1, 2, 4)": "hippocampus", "4": "posterior"}


def test_an_ignore_label_goes_from_raw_to_scores(
    make_labels, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture
):
    def hide(number: int, array: np.ndarray) -> np.ndarray:
        """All of the first case, and half of the others."""
        hidden = array.astype(np.uint8)
        hidden[:, :, 0 if number == 0 else array.shape[2] // 2 :] = IGNORE
        return hidden

    raw = make_labels(hide, labels={"background": 0, "Anterior": 1, "ignore": IGNORE, "Posterior": 2})
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, *data) == 0
    assert caplog.text.count("no voxel is labelled") == 1
    cases = tmp_path / "preprocessed" / raw.name / "cases"
    names = sorted(path.stem for path in cases.glob("*.json"))
    for number, name in enumerate(names):
        case = open_case(cases, name)
        _, classes = case.read_patch((0, 0, 0), case.header.geometry.shape)
        assert (classes == 3).mean() == (1 if number == 0 else pytest.approx(0.5, abs=0.1))  # the class after the last
        assert set(case.foreground_voxels()[:, 0].tolist()) == (set() if number == 0 else {0, 1, 2})

    assert run(train.main, "-d", 4, "-f", "all", "--max-steps", 6, *quick, *data) == 0
    folder = tmp_path / "results" / raw.name / "spad_unet_tiny/fold_all"
    assert load_model(folder).tasks[raw.name].state["heads.0.weight"].shape[0] == 3
    output = tmp_path / "predictions"
    assert run(predict.main, "-i", raw / "imagesTr", "-o", output, "-d", 4, "-device", "cpu", *data) == 0
    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    scores = Scores.from_json((output / "scores.json").read_text())
    assert list(scores.summary()) == ["Anterior", "Posterior"]
    for case in scores.cases:
        predicted, reference = (read_label_map(it / f"{case.case}.nii.gz").array for it in (output, raw / "labelsTr"))
        assert set(np.unique(predicted).tolist()) <= {0, 1, 2}
        for label_id, score in enumerate(case.classes.values(), start=1):
            counted = (predicted == label_id) & (reference != IGNORE)
            assert score.num_prediction_voxels == counted.sum()
    assert scores.cases[0].classes["Anterior"].dice is None
