"""What a task predicts depends on the backbone and on itself, not on the model that it is part of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from classifier_model import write_classifier
from random_models import plan_of, write_model
from small_model import shrink_presets
from study_folder import write_study_image

from spadunet.cli import predict, tasks
from spadunet.files import sha256_of_file
from spadunet.inference.sources import open_source
from spadunet.model import load_model, save_model

NAME = "Dataset001_A"
PAPER = {"steps": "1", "recipe": "paper-btcv", "validation_mirror": "left-right"}


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_presets(monkeypatch)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in "ab":
        write_study_image(tmp_path / f"images/{name}_0000.nii.gz", shape=(6, 12, 10))
    return tmp_path / "images"


def label_maps(folder: Path) -> dict[str, str]:
    """SHA-256 by name."""
    return {path.name: sha256_of_file(path) for path in folder.glob("*.nii.gz")}


@pytest.mark.parametrize("is_papers", [True, False])
def test_a_task_that_joined_a_model_is_predicted_by_its_own_recipe(
    is_papers: bool, images: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture
):
    """It goes from a model of the paper's recipe to one of none, or the other way."""
    whole = load_model(write_model(tmp_path / "whole", 0, plan_of(depth=8)))
    told = (PAPER, {"steps": "1", "recipe": "None"})
    own, other = told if is_papers else told[::-1]
    save_model(tmp_path / "first", replace(whole, provenance=own))
    save_model(tmp_path / "second", replace(whole, tasks={}, provenance=other))
    assert run(tasks.main, "export", NAME, "-m", tmp_path / "first", "-o", tmp_path / "a.task.zip") == 0
    assert run(tasks.main, "import", tmp_path / "a.task.zip", "-m", tmp_path / "second") == 0
    assert open_source(tmp_path / "second", None).provenance == own
    for model in ("first", "second"):
        words = ("-m", tmp_path / model, "-i", images, "-o", tmp_path / f"out {model}", "-device", "cpu")
        assert run(predict.main, *words) == 0
    assert caplog.text.count("recipe: paper-btcv: overlap 0.75") == (2 if is_papers else 0)
    assert label_maps(tmp_path / "out first") == label_maps(tmp_path / "out second") != {}


def test_predictions_are_kept_whatever_other_tasks_join_or_leave(images: Path, tmp_path: Path, run, capsys):
    """Of both kinds."""
    segmenting = load_model(write_model(tmp_path / "one", 0, plan_of(depth=8))).tasks
    model, out = write_classifier(tmp_path / "model", size=(8, 8, 8), tasks=segmenting), tmp_path / "out"
    for name in ("cubes", NAME):
        assert run(tasks.main, "export", name, "-m", model, "-o", tmp_path / f"{name}.task.zip") == 0
    files = {"cubes": out / "cubes/predictions.csv", NAME: out / NAME / "a.nii.gz"}
    for name, other in (("cubes", NAME), (NAME, "cubes")):
        words = ("-m", model, "-i", images, "-o", out / name, "-d", name, "-device", "cpu")
        assert run(predict.main, *words) == 0
        made = files[name].stat().st_mtime_ns if name == NAME else files[name].read_text()
        assert run(tasks.main, "remove", other, "-m", model) == 0
        assert run(predict.main, *words, "--continue") == 0
        assert run(tasks.main, "import", tmp_path / f"{other}.task.zip", "-m", model) == 0
        assert run(predict.main, *words, "--continue") == 0
        assert made == (files[name].stat().st_mtime_ns if name == NAME else files[name].read_text())
