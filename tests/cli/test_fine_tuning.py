"""Recipes of fine-tuning: the paper's numbers, what wins over them, and real runs on releases as downloaded."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from btcv_release import write_btcv
from chaos_release import write_release

from spadunet.cli import (
    convert_btcv,
    convert_chaos,
    evaluate,
    plan,
    plan_and_preprocess,
    predict,
    predict_options,
    train,
)
from spadunet.cli.fine_tuning import FINE_TUNING, settle_prediction
from spadunet.formats import read_channels
from spadunet.inference.predict import Engine
from spadunet.labels import LabelSet
from spadunet.model import load_model
from spadunet.plan import Plan
from spadunet.preprocessing.converters import btcv as btcv_converter
from spadunet.scores import Scores
from spadunet.sides import PATIENT_AXES
from spadunet.training.loop import MAX_GRADIENT_NORM
from spadunet.training.patch_recipes import PATCH_RECIPES
from spadunet.training.schedule import learning_rate

BTCV, CHAOS = "Dataset007_BTCV", "Dataset008_CHAOS"
SMALL = ("--patch-size", 16, 64, 64)
"""The paper's crops take more memory and time than a test has."""


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> tuple[np.ndarray, np.ndarray]:
    """A hippocampus (slice, row, column) and its labels 1 and 2."""
    folder = copy_demo("Dataset004_Hippocampus", tmp_path_factory.mktemp("cut"), num_cases=1, size=(26, 20, 12))
    image, labels = (next((folder / name).glob("*.nii.gz")) for name in ("imagesTr", "labelsTr"))
    return read_channels(image)[0][0].astype(np.int16), read_channels(labels)[0][0].astype(np.uint8)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, volume, run) -> Path:
    """Both releases, converted."""
    data, (image, labels) = tmp_path_factory.mktemp("workspace"), volume
    organs = np.array([0, 6, 1], np.uint8)[labels]  # liver and spleen
    organs[:, :, 13:][organs[:, :, 13:] == 6] = 13
    assert run(convert_btcv.main, write_btcv(data / "Abdomen", image, organs), "--data", data) == 0
    write_release(data / "CHAOS", image, labels)
    assert run(convert_chaos.main, data / "CHAOS", "--data", data) == 0
    return data


def read_plan(data: Path, name: str) -> Plan:
    return Plan.model_validate_json((data / "preprocessed" / name / "plan.json").read_text())


def test_every_number_is_the_papers():
    shared = {"max_steps": 50_000, "learning_rate": 1e-4, "weight_decay": 0.05, "mirror": ["all"]}
    shared |= {"backbone": "spad_vit", "preset": "base", "channel_dropout": 0, "slice_merging": 0, "spacing_jitter": 0}
    btcv, chaos = FINE_TUNING["paper-btcv"], FINE_TUNING["paper-chaos"]
    assert btcv.train.options == {**shared, "batch_size": 4, "fold": "0"}
    assert chaos.train.options == {**shared, "batch_size": 8, "fold": "all"}
    assert btcv.plan.options == {
        "spacing": ["3", "0.75", "0.75"],
        "window": [-175, 250],
        "patch_size": [48, 192, 192],
    }
    assert chaos.plan.options == {"spacing": ["9", "1.62109", "1.62109"], "patch_size": [32, 192, 192]}
    assert btcv.predict.options == chaos.predict.options == {"overlap": 0.75, "mirror": ["all"]}
    assert MAX_GRADIENT_NORM == 1.0
    assert btcv.split == btcv_converter.SPLIT_JSON
    assert btcv_converter.VALIDATION == (29, 30, 31, 32, 34, 36, 37, 39, 40)


@pytest.mark.parametrize("name", FINE_TUNING)
def test_the_schedule_rises_for_5000_steps_to_1e_4_and_falls_to_1e_6(name: str):
    recipe = FINE_TUNING[name].train
    assert recipe.warm_up_share * 50_000 == 5000
    rates = [
        learning_rate(step / 50_000, 1e-4, warm_up=recipe.warm_up_share, lowest=recipe.lowest_rate)
        for step in (2500, 5000, 27_500, 50_000)
    ]
    assert rates == pytest.approx([0.5e-4, 1e-4, 0.505e-4, 1e-6], rel=0.01)


def test_augmentation_has_the_released_numbers():
    btcv, chaos = PATCH_RECIPES["paper-btcv"], PATCH_RECIPES["paper-chaos"]
    assert (btcv.foreground_share, chaos.foreground_share) == (0.75, 0)
    assert (btcv.scaling, chaos.scaling) == ((0.7, 1.4), (0.7, 1.1))
    for recipe in (btcv, chaos):
        assert (recipe.rotation_share, recipe.scaling_share) == (0.2, 0.2)
        assert recipe.rotation == recipe.rotation_thick == (pytest.approx(np.deg2rad(90)), 0)
        assert (recipe.noise_share, recipe.noise_sigma) == (0.1, (0, 0.1))
        assert (recipe.blur_share, recipe.blur_sigma) == (0.1, (0.8, 1.2))
        assert (recipe.brightness_share, recipe.brightness) == (0.15, (0.75, 1.25))
        assert (recipe.contrast_share, recipe.contrast) == (0.15, (0.75, 1.25))
        assert (recipe.low_resolution_share, recipe.low_resolution) == (0.15, (0.5, 1))
        # None, gamma and inverted gamma as 9 : 3 : 1.
        inverted = recipe.gamma_share * recipe.inverted_gamma_share
        assert (recipe.gamma_share - inverted, inverted) == (pytest.approx(3 / 13), pytest.approx(1 / 13))
        assert recipe.gamma == (0.7, 1.5)


def test_btcv_may_be_mirrored_across_all_axes_and_its_kidneys_change_places():
    labels = LabelSet(names=btcv_converter.LABELS, ids=tuple(range(14)))
    assert all(labels.mirrored(axis) is not None for axis in PATIENT_AXES)
    swapped = labels.mirrored("left-right")
    assert swapped is not None
    assert swapped.classes == (0, 1, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11, 13, 12)


def test_plans_are_the_recipes_and_what_is_typed_beside_it_wins(workspace: Path, run, caplog):
    assert run(plan.main, "-d", BTCV, "--recipe", "paper-btcv", "-np", 1, "--data", workspace) == 0
    made = read_plan(workspace, BTCV)
    assert (made.target_spacing_mm, made.degree_of_anisotropy) == ((3, 0.75, 0.75), 2)
    assert made.patch_sizes_voxels == {da: (192 >> da, 192, 192) for da in range(6)} | {6: (1, 192, 192)}
    assert [(rule.kind, rule.low, rule.high) for rule in made.intensity] == [("window", -175, 250)]
    assert "recipe: paper-btcv: spacing 3 0.75 0.75, window -175 250, patch size 48 192 192" in caplog.text
    assert "not as published" not in caplog.text
    [split] = json.loads((workspace / "preprocessed" / BTCV / "splits_final.json").read_text())
    assert split == {"train": ["btcv_0021", "btcv_0028"], "val": ["btcv_0029"]}

    assert run(plan.main, "-d", CHAOS, "--recipe", "paper-chaos", "-np", 1, *SMALL, "--data", workspace) == 0
    made = read_plan(workspace, CHAOS)
    assert (made.target_spacing_mm, made.patch_size_voxels) == ((9, 1.62109, 1.62109), (16, 64, 64))
    assert "not as published: --patch-size 16 64 64, not 32 192 192; intensities by percentiles" in caplog.text


def test_a_split_that_is_not_the_papers_is_kept_and_one_that_is_missing_told(workspace: Path, run, caplog, tmp_path):
    shutil.copytree(workspace / "raw" / BTCV, tmp_path / "raw" / BTCV)
    own = tmp_path / "preprocessed" / BTCV / "splits_final.json"
    own.parent.mkdir(parents=True)
    own.write_text("[]")
    call = ("-d", BTCV, "--recipe", "paper-btcv", "-np", 1, "--data", tmp_path)
    assert run(plan.main, *call) == 0
    assert own.read_text() == "[]"
    assert "splits_final.json: kept, though it is not the paper's" in caplog.text
    own.unlink()
    (tmp_path / "raw" / BTCV / "splits_21_9.json").unlink()
    assert run(plan.main, *call) == 0
    assert "splits_21_9.json: not found, so folds are not the paper's" in caplog.text
    assert not own.exists()


def test_a_dry_run_plans_by_the_recipe_and_writes_nothing(workspace: Path, run, tmp_path: Path, capsys):
    shutil.copytree(workspace / "raw" / BTCV, tmp_path / "raw" / BTCV)
    call = ("-d", BTCV, "--recipe", "paper-btcv", "--dry-run", "-np", 1, "--data", tmp_path)
    assert run(plan_and_preprocess.main, *call) == 0
    assert "48×192×192" in capsys.readouterr().out
    assert not (tmp_path / "preprocessed").exists()


def test_a_window_needs_ct_and_a_patch_has_an_end(workspace: Path, run, capsys):
    assert run(plan.main, "-d", CHAOS, "--recipe", "paper-btcv", "--data", workspace) == 2
    assert "--window -175 250: none of the channels" in capsys.readouterr().err
    assert run(plan.main, "-d", CHAOS, "--patch-size", 2000, 2000, 2000, "--data", workspace) == 2
    assert "--patch-size 2000 2000 2000: more than" in capsys.readouterr().err


def test_training_takes_every_number_and_tells_what_differs(workspace: Path, run, monkeypatch, tmp_path: Path):
    import spadunet.training.train as module

    seen = []

    def note(network, tasks, folder, options, *, run, **_):
        seen.append((tasks, options, run))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_network", note)
    recipe = ("--recipe", "paper-btcv", "-np", 1, *SMALL)
    assert run(plan_and_preprocess.main, "-d", BTCV, *recipe, "--data", workspace) == 0
    options = ("-d", BTCV, "--recipe", "paper-btcv", "--preset", "tiny", "--batch-size", 3, "-device", "cpu")
    assert run(train.main, *options, "-o", tmp_path, "--data", workspace) == 130
    [([task], options, request)] = seen
    assert (options.max_steps, options.max_minutes) == (50_000, None)
    assert (options.learning_rate, options.weight_decay) == (1e-4, 0.05)
    assert (options.warm_up_share, options.lowest_rate) == (0.1, 1e-6)
    assert (options.overlap, options.mirror) == (0.75, PATIENT_AXES)
    assert (task.batch_size, task.variety.patches, task.variety.mirror) == (3, "paper-btcv", PATIENT_AXES)
    assert (task.variety.channel_dropout, task.variety.slice_merging, task.variety.spacing_jitter) == (0, 0, 0)
    assert [case.name for case in task.cases] == ["btcv_0021", "btcv_0028"]
    assert (request["recipe"], request["backbone"], request["fold"]) == ("paper-btcv", "spad_vit", "0")
    log = (tmp_path / "training.log").read_text()
    assert re.search("not as published: --batch-size 3, not 4; --preset tiny, not base; no --init", log)
    assert "its plan is not that of paper-btcv: patch size 16 64 64, not 48 192 192; for that run" in log


@pytest.mark.parametrize(
    ("typed", "axes", "kept"),
    [
        ((), PATIENT_AXES, "all"),
        (("--mirror", "none"), (), "none"),
        (("--mirror", "left-right"), ("left-right",), "left-right"),
    ],
)
def test_mirror_images_typed_beside_a_recipe_hold_for_validation_and_prediction(
    typed, axes, kept: str, workspace: Path, run, monkeypatch, tmp_path: Path
):
    import spadunet.training.train as module

    seen = []

    def note(network, tasks, folder, options, *, run, **_):
        seen.append((options, run))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_network", note)
    recipe = ("--recipe", "paper-btcv", *SMALL, "-np", 1)
    assert run(plan_and_preprocess.main, "-d", BTCV, *recipe, "--data", workspace) == 0
    options = ("-d", BTCV, "--recipe", "paper-btcv", "--preset", "tiny", "-device", "cpu", *typed)
    assert run(train.main, *options, "-o", tmp_path, "--data", workspace) == 130
    [(of_run, request)] = seen
    assert (of_run.mirror, request["validation_mirror"]) == (axes, kept)
    by_model = argparse.Namespace(recipe=None, overlap=None, mirror=None)
    settle_prediction(by_model, predict_options.USUAL, request)
    assert (by_model.overlap, by_model.mirror) == (0.75, [kept])
    told = argparse.Namespace(recipe="paper-btcv", overlap=None, mirror=None)
    settle_prediction(told, predict_options.USUAL, request)
    assert told.mirror == ["all"]


def test_a_model_is_predicted_by_its_recipe_unless_told_otherwise():
    usual = predict_options.USUAL
    by_model = argparse.Namespace(recipe=None, overlap=None, mirror=None)
    settle_prediction(by_model, usual, {"recipe": "paper-chaos"})
    assert (by_model.overlap, by_model.mirror) == (0.75, ["all"])
    told = argparse.Namespace(recipe=None, overlap=0.25, mirror=["none"])
    settle_prediction(told, usual, {"recipe": "paper-chaos"})
    assert (told.overlap, told.mirror) == (0.25, ["none"])
    for provenance in ({}, {"recipe": "None"}, {"recipe": "of a later version"}):
        plain = argparse.Namespace(recipe=None, overlap=None, mirror=None)
        settle_prediction(plain, usual, provenance)
        assert (plain.overlap, plain.mirror) == (0.5, ["none"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "recipe"), [(BTCV, "paper-btcv"), (CHAOS, "paper-chaos")])
def test_a_release_goes_all_the_way(workspace: Path, run, caplog, monkeypatch, tmp_path: Path, name: str, recipe: str):
    """As published but for size, steps and crops."""
    import spadunet.training.validate as module

    engines = []
    monkeypatch.setattr(module, "Engine", lambda **given: engines.append(given) or Engine(**given))
    data = ("--data", workspace)
    assert run(plan_and_preprocess.main, "-d", name, "--recipe", recipe, *SMALL, "-np", 1, *data) == 0
    short = ("--max-steps", 2, "--preset", "tiny", "-device", "cpu", "--num-workers", 0)
    assert run(train.main, "-d", name, "--recipe", recipe, *short, "-o", tmp_path / "model", *data) == 0
    model = load_model(tmp_path / "model")
    assert (model.provenance["recipe"], model.provenance["steps"]) == (recipe, "2")
    assert all((engine["overlap"], engine["mirror"]) == (0.75, PATIENT_AXES) for engine in engines)
    assert len(engines) == (recipe == "paper-btcv")
    assert (tmp_path / "model/validation" / name / "scores.json").is_file() == (recipe == "paper-btcv")

    images, labels = workspace / "raw" / name / "imagesTr", workspace / "raw" / name / "labelsTr"
    caplog.clear()
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-m", tmp_path / "model", "-device", "cpu") == 0
    assert f"recipe: {recipe}: overlap 0.75, mirror all" in (tmp_path / "out/spadunet_predict.log").read_text()
    assert "not mirrored" not in caplog.text
    assert run(evaluate.main, "-p", tmp_path / "out", "-r", labels) == 0
    scores = Scores.from_json((tmp_path / "out/scores.json").read_text())
    assert len(scores.cases) == len(list(labels.iterdir()))
    assert not scores.failed
