"""Several models, some of the labels, and post-processing, as a user asks for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_models import REGIONS, plan_of, write_model

from spadunet.cli import evaluate, postprocess, predict
from spadunet.evaluation.evaluate import evaluate_pair
from spadunet.evaluation.pairs import Pair
from spadunet.evaluation.scoring import gather_scores
from spadunet.evaluation.tables import write_scores
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.labels import LabelSet
from spadunet.model import load_model
from spadunet.scores import Scores

HIPPOCAMPUS = "Dataset004_Hippocampus"
LABELS = LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))
QUICK = ("-device", "cpu", "--precision", "float32", "--overlap", 0)


def small_plan(labels: LabelSet = LABELS, **more):
    """Windows as large as the images of these tests."""
    patches = {da: (20 if da < 6 else 1, 24, 24) for da in range(7)}
    given = {"dataset_name": HIPPOCAMPUS, "patch_sizes_voxels": patches}
    return plan_of(labels, **more).model_copy(update=given)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> Path:
    """Six real cases cut small, and two folds of random weights."""
    folder = tmp_path_factory.mktemp("data")
    copy_demo(HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, num_cases=6, size=(20, 24, 16))
    for fold in (0, 1):
        write_model(folder / f"results/{HIPPOCAMPUS}/spad_unet_tiny/fold_{fold}", fold, small_plan())
    return folder


@pytest.fixture(scope="module")
def images(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the images."""
    folder = tmp_path_factory.mktemp("images")
    for path in sorted((workspace / "raw" / HIPPOCAMPUS / "imagesTr").iterdir())[:2]:
        shutil.copy(path, folder)
    return folder


def fold_of(workspace: Path, fold: int) -> Path:
    return workspace / f"results/{HIPPOCAMPUS}/spad_unet_tiny/fold_{fold}"


def label_maps(folder: Path) -> np.ndarray:
    """All of a folder, one after the other."""
    return np.concatenate([read_label_map(path).array.ravel() for path in sorted(folder.glob("*.nii.gz"))])


@pytest.mark.slow
def test_folds_and_models_are_averaged_and_said(workspace: Path, images: Path, tmp_path: Path, run, caplog):
    one, other = fold_of(workspace, 0), fold_of(workspace, 1)
    asked = {
        "folds": ("-d", 4, "-f", 0, 1, "--data", workspace),
        "models": ("-m", other, one),
        "parent": ("-m", one.parent, "-f", 0, 1),
        "alone": ("-m", one),
        "twice": ("-m", one, one),
    }
    for name, options in asked.items():
        assert run(predict.main, "-i", images, "-o", tmp_path / name, *options, *QUICK) == 0
    found = {name: label_maps(tmp_path / name) for name in asked}
    for name in ("models", "parent"):
        assert (found[name] != found["folds"]).mean() < 1e-4
    assert (found["twice"] != found["alone"]).mean() < 1e-4
    assert (found["alone"] != found["folds"]).mean() > 0.01
    assert "the mean of 2 models counts" in (tmp_path / "folds/spadunet_predict.log").read_text()
    assert "of 3 outputs, the mean of 2 models, are added up as" in caplog.text
    manifest = json.loads((tmp_path / "folds/spadunet_predict.json").read_text())
    assert manifest["options"]["fold"] == ["0", "1"]


def test_what_cannot_be_averaged_is_refused_before_any_work(workspace: Path, images: Path, tmp_path: Path, run, capsys):
    one = fold_of(workspace, 0)
    regions = write_model(tmp_path / "regions", 2, small_plan(REGIONS))
    spaced = write_model(tmp_path / "spaced", 2, small_plan(spacing=(2.0, 1.0, 1.0)))
    for model, message in ((regions, "their labels differ"), (spaced, "give --spacing native")):
        assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-m", one, model, *QUICK) == 2
        error = capsys.readouterr().err
        assert message in error
        assert f"{one} and {model} cannot be averaged" in error
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-d", 4, "-f", 0, 7, "--data", workspace) == 2
    assert "has no folder fold_7" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    native = ("-m", one, spaced, "--spacing", "native", *QUICK)
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", *native) == 0


def test_a_subset_is_predicted_and_its_labels_are_written(workspace: Path, images: Path, tmp_path: Path, run, capsys):
    model = ("-m", fold_of(workspace, 0), *QUICK)
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", *model, "--roi-subset", "lung") == 2
    assert "--roi-subset: lung is not among the labels: Anterior, Posterior" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(predict.main, "-i", images, "-o", tmp_path / "full", *model) == 0
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", *model, "--roi-subset", "Posterior") == 0
    full, found = label_maps(tmp_path / "full"), label_maps(tmp_path / "out")
    assert (found == np.where(full == 2, 2, 0)).mean() >= 0.999  # a single window: only interpolation may differ
    labels = LabelSet.from_json((tmp_path / "out/labels.json").read_text())
    assert (labels.names, labels.ids) == (("background", "Posterior"), (0, 2))
    assert "only Posterior is predicted" in (tmp_path / "out/spadunet_predict.log").read_text()
    references = tmp_path / "references"
    references.mkdir()
    for path in (tmp_path / "out").glob("*.nii.gz"):
        shutil.copy(workspace / "raw" / HIPPOCAMPUS / "labelsTr" / path.name, references)
    for name in ("full", "out"):  # of references with all labels
        assert run(evaluate.main, "-p", tmp_path / name, "-r", references) == 0
    full_scores, scores = (Scores.from_json((tmp_path / name / "scores.json").read_text()) for name in ("full", "out"))
    assert scores.classes == ["Posterior"]
    assert scores.summary()["Posterior"].dice == pytest.approx(full_scores.summary()["Posterior"].dice, abs=0.01)


def test_probabilities_are_saved_beside_label_maps_and_made_good_where_they_lack(
    workspace: Path, images: Path, tmp_path: Path, run, caplog
):
    command = ("-i", images, "-o", tmp_path, "-m", fold_of(workspace, 0), *QUICK)
    assert run(predict.main, *command) == 0
    before = label_maps(tmp_path)
    assert not list(tmp_path.glob("*.npz"))
    assert run(predict.main, *command, "--continue", "--save_probabilities") == 0  # as nnU-Net writes it
    files = sorted(tmp_path.glob("*.npz"))
    assert [path.with_suffix(".nii.gz").is_file() for path in files] == [True, True]
    arrays = [np.load(path, allow_pickle=False)["probabilities"] for path in files]
    assert np.array_equal(np.concatenate([array.argmax(axis=0).ravel() for array in arrays]), before)
    assert np.array_equal(label_maps(tmp_path), before)
    assert "its probabilities take" in caplog.text
    assert str(files[0]) in json.loads((tmp_path / "spadunet_predict.json").read_text())["files"]
    files[0].unlink()
    caplog.clear()
    assert run(predict.main, *command, "--continue", "--save-probabilities") == 0
    assert "1 of 2 label maps are there already and kept" in caplog.text
    assert files[0].is_file()


def test_an_interrupted_run_goes_on_only_where_the_same_was_asked_for(
    workspace: Path, images: Path, tmp_path: Path, run, caplog, monkeypatch
):
    command = ("-i", images, "-o", tmp_path, "-m", fold_of(workspace, 0), *QUICK)
    import spadunet.inference.pipeline as pipeline

    whole, calls = pipeline.segment, []

    def stop(views, engine, times):
        calls.append(views)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return whole(views, engine, times)

    monkeypatch.setattr(pipeline, "segment", stop)
    assert run(predict.main, *command, "--roi-subset", "Anterior") == 130
    assert len(list(tmp_path.glob("*.nii.gz"))) == 1
    monkeypatch.undo()
    caplog.clear()
    assert run(predict.main, *command) == 0
    assert "are there already and kept" not in caplog.text
    assert 2 in label_maps(tmp_path)


def test_no_run_goes_on_with_label_maps_of_another_model(
    workspace: Path, images: Path, tmp_path: Path, run, caplog, capsys, monkeypatch
):
    import spadunet.inference.pipeline as pipeline

    def command(fold: int):
        return "-i", images, "-o", tmp_path / "out", "-m", fold_of(workspace, fold), *QUICK

    assert run(predict.main, *command(0)) == 0
    before = label_maps(tmp_path / "out")
    capsys.readouterr()
    assert run(predict.main, *command(1), "--roi-subset", "Posterior", "--continue") == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert f"{fold_of(workspace, 0)} (task {HIPPOCAMPUS}" in error
    assert f"→ {fold_of(workspace, 1)} (task" in error
    assert "; --roi-subset all → Posterior; give the same options" in error
    assert np.array_equal(label_maps(tmp_path / "out"), before)
    assert len(LabelSet.from_json((tmp_path / "out/labels.json").read_text()).names) == 3

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "segment", stop)
        assert run(predict.main, *command(1)) == 130
    caplog.clear()
    assert run(predict.main, *command(1)) == 0
    assert "0 of 2 label maps are there already and kept" in caplog.text
    assert run(predict.main, "-i", images, "-o", tmp_path / "whole", *command(1)[4:]) == 0
    assert np.array_equal(label_maps(tmp_path / "out"), label_maps(tmp_path / "whole"))


def test_label_maps_whose_images_are_gone_are_told(workspace: Path, images: Path, tmp_path: Path, run, caplog):
    shutil.copytree(images, tmp_path / "in")
    command = ("-i", tmp_path / "in", "-o", tmp_path / "out", *QUICK)
    assert run(predict.main, *command, "-m", fold_of(workspace, 0)) == 0
    assert "without an image" not in caplog.text
    gone = sorted((tmp_path / "in").iterdir())[0]
    gone.unlink()
    label_map = tmp_path / "out" / gone.name.replace("_0000", "")
    before = label_map.read_bytes()
    assert run(predict.main, *command, "-m", fold_of(workspace, 1)) == 0
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert f"1 label map of earlier runs, without an image in -i, beside the new ones: {label_map.name}" in (
        warning.getMessage()
    )
    assert label_map.read_bytes() == before


def test_label_maps_may_lie_below_the_images(workspace: Path, images: Path, tmp_path: Path, run, caplog):
    shutil.copytree(images, tmp_path / "in")
    command = ("-i", tmp_path / "in", "-o", tmp_path / "in/predictions", "-m", fold_of(workspace, 0), *QUICK)
    assert run(predict.main, *command) == 0
    assert run(predict.main, *command, "--continue") == 0
    assert "2 of 2 label maps are there already and kept" in caplog.text


def test_a_budget_that_cannot_be_kept_is_told(workspace: Path, images: Path, tmp_path: Path, run, caplog):
    command = ("-i", images, "-o", tmp_path, "-m", fold_of(workspace, 0), *QUICK)
    assert run(predict.main, *command, "--memory-gb", 1e-6) == 0
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "takes at least 0.000" in warning
    assert "more than the 1e-06 GB that may be taken" in warning


def test_a_surplus_channel_fails_its_own_case_alone(workspace: Path, images: Path, tmp_path: Path, run, caplog):
    shutil.copytree(images, tmp_path / "in")
    good, bad = sorted((tmp_path / "in").iterdir())
    shutil.copy(bad, bad.with_name(bad.name.replace("_0000", "_0001")))
    assert run(predict.main, "-i", tmp_path / "in", "-o", tmp_path, "-m", fold_of(workspace, 0), *QUICK) == 1
    assert f"failed: {tmp_path / 'in' / bad.name.removesuffix('_0000.nii.gz')}: wrong channel count" in caplog.text
    assert [path.name for path in tmp_path.glob("*.nii.gz")] == [good.name.replace("_0000", "")]


@pytest.mark.slow
def test_the_dry_run_of_an_ensemble_names_all_models(
    workspace: Path, images: Path, tmp_path: Path, run, capsys, monkeypatch
):
    from spadunet.measure import measure

    monkeypatch.setattr("spadunet.measure.measure_apart", lambda function, *given: measure(lambda: function(*given)))
    options = ("-m", fold_of(workspace, 0), fold_of(workspace, 1), "--dry-run", *QUICK)
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", *options) == 0
    told = capsys.readouterr().out
    assert str(fold_of(workspace, 0)) in told
    assert str(fold_of(workspace, 1)) in told
    assert "4 windows of" in told
    assert not (tmp_path / "out").exists()


@pytest.fixture
def validated(workspace: Path, tmp_path: Path) -> Path:
    """A copy whose folds have predicted three held-out cases each: the references with a piece of dust."""
    shutil.copytree(workspace, tmp_path / "data")
    labels = sorted((tmp_path / "data/raw" / HIPPOCAMPUS / "labelsTr").iterdir())
    for fold in (0, 1):
        folder = fold_of(tmp_path / "data", fold) / "validation" / HIPPOCAMPUS
        folder.mkdir(parents=True)
        scores = []
        for path in labels[3 * fold : 3 * fold + 3]:
            reference = read_label_map(path)
            array = reference.array.copy()
            array[:2, :3, :2] = 2
            write_label_map(folder / path.name, LabelMap(array=array, affine=reference.affine))
            name = path.name.removesuffix(".nii.gz")
            scores.append(evaluate_pair(Pair(name, folder / path.name, path), LABELS))
        write_scores(folder, gather_scores(scores), LABELS)
    return tmp_path / "data"


def test_post_processing_is_chosen_kept_applied_and_forgotten(
    validated: Path, images: Path, tmp_path: Path, run, capsys
):
    folds = ("-d", "Hippocampus", "-f", 0, 1, "--data", validated)
    assert run(postprocess.main, "--choose", *folds, "-np", 1, "--dry-run") == 0
    assert "hippocampus" in capsys.readouterr().out
    assert run(postprocess.main, "--choose", *folds, "-np", 1) == 0
    told = capsys.readouterr().out
    assert "Posterior: keep the largest component: Dice 0." in told
    assert "→ 1.0000" in told
    assert "6 cases" in told
    stored = [load_model(fold_of(validated, fold)).tasks[HIPPOCAMPUS].postprocessing for fold in (0, 1)]
    assert stored[0] == stored[1] is not None
    assert stored[0].num_cases == 6

    model = ("-m", fold_of(validated, 0), fold_of(validated, 1), *QUICK)
    assert run(predict.main, "-i", images, "-o", tmp_path / "clean", *model) == 0
    assert run(predict.main, "-i", images, "-o", tmp_path / "raw", *model, "--no-postprocessing") == 0
    assert "post-processing: Posterior: keep the largest" in (tmp_path / "clean/spadunet_predict.log").read_text()
    assert "post-processing: left out as asked" in (tmp_path / "raw/spadunet_predict.log").read_text()
    clean, raw = label_maps(tmp_path / "clean"), label_maps(tmp_path / "raw")
    assert 0 < (clean == 2).sum() < (raw == 2).sum()
    assert np.array_equal(clean == 1, raw == 1)

    assert run(postprocess.main, "--show", *folds) == 0
    assert capsys.readouterr().out.count("keep the largest component") == 2
    assert run(postprocess.main, "--forget", "-m", fold_of(validated, 1)) == 0
    assert load_model(fold_of(validated, 1)).tasks[HIPPOCAMPUS].postprocessing is None
    assert run(predict.main, "-i", images, "-o", tmp_path / "differ", *model) == 0
    assert "the models state different rules" in (tmp_path / "differ/spadunet_predict.log").read_text()
    assert np.array_equal(label_maps(tmp_path / "differ"), raw)


def test_only_held_out_cases_of_the_dataset_count(validated: Path, run, capsys):
    one = ("--data", validated, "-np", 1)
    held_out = fold_of(validated, 0) / "validation" / HIPPOCAMPUS
    raw = validated / "raw" / HIPPOCAMPUS
    name = sorted(path.name for path in held_out.glob("*.nii.gz"))[0].removesuffix(".nii.gz")
    (raw / "imagesTs").mkdir()
    (raw / "labelsTs").mkdir()
    shutil.move(raw / f"imagesTr/{name}_0000.nii.gz", raw / "imagesTs")
    shutil.move(raw / f"labelsTr/{name}.nii.gz", raw / "labelsTs")
    assert run(postprocess.main, "--choose", "-m", fold_of(validated, 0), *one) == 2
    assert f"its held-out case {name} has no reference in" in capsys.readouterr().err
    shutil.rmtree(held_out)
    assert run(postprocess.main, "--choose", "-m", fold_of(validated, 0), *one) == 2
    assert "has no scores of held-out cases" in capsys.readouterr().err
    assert load_model(fold_of(validated, 0)).tasks[HIPPOCAMPUS].postprocessing is None
