"""`spadunet_predict` with a task that classifies, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_model import SIDES, classification_plan, write_classifier
from dicom_files import write_series
from medmnist_file import members_of, write_medmnist
from random_models import plan_of, write_model
from study_folder import AXIAL, write_picture, write_study_image

from spadunet.class_predictions import read_predictions
from spadunet.classes import ClassSet
from spadunet.cli import evaluate, predict
from spadunet.formats import write_array
from spadunet.inference import predict_classes
from spadunet.model import load_model


def exit_code(*arguments: object, command=predict) -> int:
    """What the command leaves with."""
    with pytest.raises(SystemExit) as caught:
        command.main([*map(str, arguments), *(["--device", "cpu"] if command is predict else [])])
    return int(caught.value.code or 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Left or right."""
    return write_classifier(tmp_path / "model")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four, of two formats."""
    for name in ("a.nii.gz", "b.nii.gz", "c.mha", "d.nii.gz"):
        write_study_image(tmp_path / "images" / name)
    return tmp_path / "images"


def probabilities(folder: Path, classes: ClassSet = SIDES) -> dict[str, list[float]]:
    """By study."""
    found = read_predictions(folder / "predictions.csv", classes)
    return dict(zip(found.studies, found.probabilities.tolist(), strict=True))


def test_each_image_of_a_folder_is_a_study(model: Path, images: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert exit_code("-m", model, "-i", images, "-o", out) == 0
    found = probabilities(out)
    assert list(found) == ["a", "b", "d", "c"]
    assert len({tuple(row) for row in found.values()}) == 4
    assert all(sum(row) == pytest.approx(1) for row in found.values())
    assert ClassSet.from_json((out / "classes.json").read_text()) == SIDES
    manifest = json.loads((out / "spadunet_predict.json").read_text())
    assert manifest["files"] == [str(out / "predictions.csv")]
    assert manifest["made"]["classification"]["models"][0]["task"] == "cubes"
    assert not (out / "spadunet_predict.unfinished").exists()
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "one", "--batch-size", 1) == 0
    assert np.allclose(list(probabilities(tmp_path / "one").values()), list(found.values()), atol=1e-5)


def test_a_medmnist_file_is_predicted_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog):
    numbers = ClassSet(kind="binary", names=("0", "1"))
    model = write_classifier(tmp_path / "model", plan=classification_plan(numbers, size=(16, 16, 16)))
    file = write_medmnist(tmp_path / "cubes.npz", members_of((8, 8, 8)))
    for split, number in ((None, 4), ("val", 3)):
        out = tmp_path / f"out {split}"
        more = ("--split", split) if split else ()
        assert exit_code("-m", model, "-i", file, "-o", out, "--heat-maps", *more) == 0
        name = split or "test"
        assert list(probabilities(out, numbers)) == [f"{name}_{it:05}" for it in range(number)]
        assert len(list((out / "heat_maps").iterdir())) == 2 * number
        assert exit_code("-p", out / "predictions.csv", "-r", file, *more, command=evaluate) == 0
    assert exit_code("-m", model, "-i", file, "-o", out, "--continue", "--split", "val") == 0
    assert "scores.json" not in caplog.text
    assert exit_code("-m", model, "-i", file, "-o", out, "--continue") == 2
    assert "were made otherwise: --split val → test; give the same" in capsys.readouterr().err
    assert len(probabilities(out, numbers)) == 3
    assert exit_code("-m", model, "-i", file, "-o", out) == 0
    assert f"{out / 'scores.json'}: is of the predictions before; run spadunet_evaluate again" in caplog.text
    assert exit_code("-m", model, "-i", file, "-o", tmp_path / "x", "--split", "all") == 2
    assert "--split all: of a MedMNIST file one split is predicted" in capsys.readouterr().err
    colours = write_medmnist(tmp_path / "colours.npz", members_of((8, 8, 3)))
    assert exit_code("-m", model, "-i", colours, "-o", tmp_path / "x") == 2
    assert "its images have 3 channels, the model 1: grey" in capsys.readouterr().err


def test_pictures_of_one_slice(tmp_path: Path):
    numbers = ClassSet(kind="multi-label", names=("0", "1", "2"))
    plan = classification_plan(numbers, size=(1, 32, 32))
    model = write_classifier(tmp_path / "model", plan=plan, kind="attention")
    file = write_medmnist(tmp_path / "flat.npz", members_of((20, 20), num_labels=3))
    assert exit_code("-m", model, "-i", file, "-o", tmp_path / "out", "--heat-maps") == 0
    assert len(probabilities(tmp_path / "out", numbers)) == 4


def file_of(path: Path, *shape: int) -> Path:
    """A MedMNIST file of such images."""
    return write_medmnist(path, members_of(shape))


@pytest.mark.parametrize(
    ("plan", "shape", "message"),
    [
        (
            {"size": (1, 32, 32)},
            (8, 8, 8),
            "its images are volumes, 8×8×8, but the model learned pictures of one slice",
        ),
        ({"size": (16, 16, 16)}, (8, 8), "its images are pictures, 1×8×8, but the model learned volumes"),
        ({"spacing": (1.0, 1.0, 1.0)}, (8, 8, 8), "tells no spacing, but the model sees images at (1.0, 1.0, 1.0) mm"),
    ],
)
def test_a_file_that_a_model_cannot_mean_is_refused(tmp_path: Path, plan: dict, shape: tuple, message: str, capsys):
    model = write_classifier(tmp_path / "model", plan=classification_plan(**plan))
    fitting = write_classifier(tmp_path / "fitting", plan=classification_plan(size=(1 if len(shape) == 2 else 8, 8, 8)))
    file = file_of(tmp_path / "mine.npz", *shape)
    for models in ([model], [fitting, model]):
        assert exit_code("-m", *models, "-i", file, "-o", tmp_path / "out") == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1
        assert f"{file}: {message}" in told[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [None, (1, 32, 32)])
def test_volumes_are_refused_at_once_by_a_model_of_pictures(images: Path, tmp_path: Path, size, capsys):
    plan = classification_plan(size=size).model_copy(update={"degree_of_anisotropy": 6})
    model = write_classifier(tmp_path / "model", plan=plan)
    write_study_image(images / "e.nii.gz", shape=(1, 6, 5))
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out") == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert f"-i {images}: 4 of 5 images are volumes, such as a of 4×6×5 voxels, but the model learned single" in told[0]
    assert not (tmp_path / "out").exists()


def test_single_slices_are_told_by_a_model_of_volumes(model: Path, tmp_path: Path, caplog):
    write_study_image(tmp_path / "images/a.nii.gz", shape=(1, 6, 5))
    assert exit_code("-m", model, "-i", tmp_path / "images", "-o", tmp_path / "out") == 0
    assert "images: all images are single slices, but the model learned volumes" in caplog.text


def test_colours_are_refused_at_once_by_a_model_of_grey_and_grey_is_told_by_one_of_colours(
    tmp_path: Path, capsys, caplog
):
    folder = tmp_path / "images"
    write_picture(folder / "a.png", is_colour=False)
    write_picture(folder / "b.png", is_colour=True, is_grey_in_truth=True)
    grey = write_classifier(tmp_path / "grey", plan=classification_plan(size=(1, 16, 16)))
    assert exit_code("-m", grey, "-i", folder, "-o", tmp_path / "out") == 0
    write_picture(folder / "c.png", is_colour=True)
    assert exit_code("-m", grey, "-i", folder, "-o", tmp_path / "x") == 2
    assert (
        "2 of 3 images are colour pictures, such as c.png, but the model learned grey; convert"
        in capsys.readouterr().err
    )
    colours = classification_plan(size=(1, 16, 16), channel_names=("red", "green", "blue"))
    model = write_classifier(tmp_path / "colours", plan=colours)
    assert exit_code("-m", model, "-i", folder, "-o", tmp_path / "both") == 0
    assert "1 of 3 images are grey pictures, such as a.png, but the model learned red, green, blue: each" in caplog.text


def test_heat_maps_that_tell_nothing_are_told_once(images: Path, tmp_path: Path, caplog):
    for kind in ("mean", "attention"):
        model = write_classifier(tmp_path / kind, kind=kind)
        assert exit_code("-m", model, "-i", images, "-o", tmp_path / f"plain {kind}") == 0
        assert not [it for it in caplog.records if it.levelname == "WARNING"]
        assert exit_code("-m", model, "-i", images, "-o", tmp_path / f"out {kind}", "--heat-maps") == 0
        (warning,) = [it.getMessage() for it in caplog.records if it.levelname == "WARNING"]
        told = (
            "mean: pools by the mean, which" if kind == "mean" else "a: the whole image is one patch of the network, 16"
        )
        assert told in warning
        caplog.clear()
    write_study_image(tmp_path / "large/a.nii.gz", shape=(4, 20, 8))
    assert exit_code("-m", model, "-i", tmp_path / "large", "-o", tmp_path / "out large", "--heat-maps") == 0
    assert not [it for it in caplog.records if it.levelname == "WARNING"]


def test_images_that_a_window_hardly_shows_are_told_once(model: Path, images: Path, tmp_path: Path, caplog):
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "fitting") == 0
    assert "voxels lie outside" not in caplog.text
    for name in ("b", "d"):
        array = np.arange(1000, 1120, dtype=np.int16).reshape(4, 6, 5)
        write_array(images / f"{name}.nii.gz", array, AXIAL)
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out") == 0
    assert caplog.text.count("voxels lie outside") == 1
    assert f"{images / 'b.nii.gz'}: 100% of its voxels lie outside 0 to 255" in caplog.text
    assert "its intensities run from 1000 to 1119" in caplog.text


def test_a_table_says_which_images_are_views_of_one_study_and_of_which_split(
    model: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
):
    (images / "studies.csv").write_text("image;study\na;s\nc.mha;s\nb;t\n")
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "grouped") == 0
    assert list(probabilities(tmp_path / "grouped")) == ["s", "t"]
    assert "studies.csv: 1 images have no row and are not used: d" in caplog.text
    (images / "studies.csv").unlink()
    rows = ["image,split,side", "a,train,left", "b,test,", "c,test,right", "d,val,left"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for split, names in ((None, ["b", "c"]), ("val", ["d"]), ("all", ["a", "b", "c", "d"])):
        out = tmp_path / f"out {split}"
        assert exit_code("-m", model, "-i", tmp_path, "-o", out, *(("--split", split) if split else ())) == 0
        assert list(probabilities(out)) == names
    assert exit_code("-m", model, "-i", tmp_path, "-o", tmp_path / "out val", "--continue", "--split", "all") == 2
    assert "were made otherwise: --split val → all" in capsys.readouterr().err
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "x", "--split", "val") == 2
    assert "images has no labels.csv or studies.csv that tells splits; leave it out" in capsys.readouterr().err
    (tmp_path / "labels.csv").write_text("image,split\na,test\nx,test\n")
    assert exit_code("-m", model, "-i", tmp_path, "-o", tmp_path / "x") == 2
    assert "labels.csv: line 3: image 'x' is not in" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_series_of_an_examination_can_be_views(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog):
    folder = tmp_path / "dicom"
    rng = np.random.default_rng(0)
    for name, description in (("exam", "T1"), ("exam", "T2"), ("other", "T1")):
        names = [f"{description}_{number}" for number in range(4)]
        volume = rng.integers(1, 99, (4, 8, 8)).astype(np.int16)
        write_series(
            folder / name, volume, names=names, uid=f"1.{len(name)}.{description[1]}", **{"0008|103e": description}
        )
    assert exit_code("-m", model, "-i", folder, "-o", tmp_path / "each") == 0
    series = sorted(probabilities(tmp_path / "each"))
    assert len(series) == 3
    (folder / "studies.csv").write_text(f"image,study\n{series[0]},exam\n{series[1]},exam\nother,other\n")
    assert exit_code("-m", model, "-i", folder, "-o", tmp_path / "grouped") == 0
    assert list(probabilities(tmp_path / "grouped")) == ["exam", "other"]
    (folder / "studies.csv").write_text("image\nexam\n")  # which of the two?
    assert exit_code("-m", model, "-i", folder, "-o", tmp_path / "x") == 2
    assert "image 'exam' is not in" in capsys.readouterr().err
    assert f"holds 2 DICOM series, each a case of its own: {series[0]}, {series[1]}" in caplog.text


def test_an_image_that_cannot_be_read_stops_no_other(model: Path, images: Path, tmp_path: Path, caplog):
    (images / "b.nii.gz").write_bytes(b"broken")
    out = tmp_path / "out"
    assert exit_code("-m", model, "-i", images, "-o", out, "--heat-maps") == 1
    assert list(probabilities(out)) == ["a", "d", "c"]
    assert f"failed: {images / 'b.nii.gz'}: damaged gzip file" in caplog.text
    assert "3 studies predicted, 1 failed" in caplog.text
    assert sorted(path.name for path in (out / "heat_maps").glob("*.nii.gz")) == ["a.nii.gz", "c.nii.gz", "d.nii.gz"]


def test_the_mean_of_several_models_counts(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    models = [
        write_classifier(tmp_path / f"m{seed}", seed=seed, kind=kind, **more)
        for seed, (kind, more) in enumerate((("mean", {}), ("attention", {"size": (8, 8, 8)})))
    ]
    for number, given in enumerate((models[:1], models[1:], models)):
        assert exit_code("-m", *given, "-i", images, "-o", tmp_path / f"out{number}", "--heat-maps") == 0
    first, second, both = (probabilities(tmp_path / f"out{number}") for number in range(3))
    for name, row in both.items():
        assert np.allclose(row, np.mean([first[name], second[name]], axis=0), atol=1e-6)
    other = write_classifier(tmp_path / "other", ClassSet(kind="binary", names=("right", "left")))
    assert exit_code("-m", models[0], other, "-i", images, "-o", tmp_path / "x") == 2
    assert "tells right, left (binary) apart, but" in capsys.readouterr().err


def test_a_run_goes_on_where_it_was_stopped(model: Path, images: Path, tmp_path: Path, monkeypatch, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    arguments = ("-m", model, "-i", images, "--batch-size", 1)
    assert exit_code(*arguments, "-o", whole) == 0
    classify, calls = predict_classes.classify_batch, []

    def stop_at_third(batch, *more):
        calls.append(batch[0].item.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return classify(batch, *more)

    monkeypatch.setattr(predict_classes, "classify_batch", stop_at_third)
    assert exit_code(*arguments, "-o", out) == 130
    assert list(probabilities(out)) == ["a", "b"]
    assert exit_code(*arguments, "-o", out) == 0
    assert calls == ["a", "b", "d", "d", "c"]
    assert (out / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
    assert exit_code(*arguments, "-o", out, "--continue") == 0
    assert len(calls) == 5
    assert exit_code(*arguments, "-o", out, "--continue", "--heat-maps") == 0  # none are there yet
    assert len(calls) == 9
    assert exit_code(*arguments, "-o", out) == 0  # all anew
    assert len(calls) == 13
    assert not list((out / "heat_maps").iterdir())
    other = write_classifier(tmp_path / "other", seed=1)
    assert exit_code("-m", other, "-i", images, "-o", out, "--continue") == 2
    assert "were made otherwise: model " in capsys.readouterr().err
    assert exit_code("-m", other, "-i", images, "-o", out) == 0
    assert probabilities(out) != probabilities(whole)


def test_what_others_wrote_is_not_written_over(model: Path, images: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.csv").write_text("mine")
    assert exit_code("-m", model, "-i", images, "-o", out) == 2
    assert "holds predictions.csv, which spadunet_predict did not write" in capsys.readouterr().err
    (out / "predictions.csv").rename(out / "spadunet_predict.json")
    assert exit_code("-m", model, "-i", images, "-o", out) == 2
    assert "holds predictions of another kind of task" in capsys.readouterr().err
    assert exit_code("-m", model, "-i", images, "-o", images) == 2
    assert "is the input folder" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted(tmp_path.rglob("*"))
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out", "--heat-maps", "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    told = capsys.readouterr().out
    for words in (
        "4 studies, 4 images",
        "task cubes, binary: left, right",
        "predictions.csv: new (4 to be",
        "4 studies",
    ):
        assert words in told
    (images / "b.nii.gz").write_bytes(b"broken")
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out", "--dry-run") == 2


@pytest.mark.parametrize(
    "given",
    [
        ["--format", "input"],
        ["--overlap", "0.5"],
        ["--spacing", "native"],
        ["--roi-subset", "liver"],
        ["--mirror", "left-right"],
        ["--no-postprocessing"],
        ["--save-probabilities"],
        ["--memory-gb", "3"],
        ["--dask", "tcp://node:1"],
        ["--reject-below", "0.5"],
    ],
)
def test_options_of_label_maps_are_refused_by_name(model: Path, images: Path, tmp_path: Path, given, capsys):
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out", *given) == 2
    assert f"error: {given[0]}: is for label maps, and {model} classifies; leave" in capsys.readouterr().err


def test_options_of_classes_are_refused_where_label_maps_are_predicted(images: Path, tmp_path: Path, capsys):
    model = write_model(tmp_path / "labels", 0, plan_of())
    for given in (["--split", "test"], ["--heat-maps"], ["--batch-size", "2"]):
        assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out", *given) == 2
        assert f"{given[0]}: is for a task that classifies" in capsys.readouterr().err


def test_of_a_model_that_does_both_the_task_decides(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (images / "c.mha").unlink()
    segmenter = load_model(write_model(tmp_path / "labels", 0, plan_of()))
    model = write_classifier(tmp_path / "both", tasks=segmenter.tasks)
    assert exit_code("-m", model, "-d", "cubes", "-i", images, "-o", tmp_path / "classes") == 0
    assert (tmp_path / "classes/predictions.csv").is_file()
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "maps") == 0
    assert (tmp_path / "maps/a.nii.gz").is_file()
    assert exit_code("-m", model, "-d", "none", "-i", images, "-o", tmp_path / "x") == 2
    assert "give one of these" in capsys.readouterr().err


def test_a_dataset_names_the_model_trained_last_on_it(images: Path, tmp_path: Path):
    write_classifier(tmp_path / "data/results/cubes/spad_unet_tiny/fold_0")
    for name in ("cubes", "cubes.npz"):
        assert exit_code("-d", name, "--data", tmp_path / "data", "-i", images, "-o", tmp_path / name) == 0


def test_channels_go_by_their_names(tmp_path: Path):
    plan = classification_plan(channel_names=("T1", "T2"))
    model = write_classifier(tmp_path / "model", plan=plan)
    for name, order in (("one", "01"), ("two", "10")):
        for number, channel in enumerate(order):
            made = write_study_image(tmp_path / "made" / f"channel{channel}.nii.gz")
            (tmp_path / name).mkdir(exist_ok=True)
            made.rename(tmp_path / name / f"a_000{number}.nii.gz")
    assert exit_code("-m", model, "-i", tmp_path / "one", "-o", tmp_path / "out1") == 0
    assert exit_code("-m", model, "-i", tmp_path / "two", "-o", tmp_path / "out2", "--channels", "T2", "T1") == 0
    assert probabilities(tmp_path / "out1") == probabilities(tmp_path / "out2")


def test_values_that_are_not_finite_fail_the_study_by_name(images: Path, tmp_path: Path, monkeypatch, caplog):
    model = write_classifier(tmp_path / "model")
    logits = predict_classes.logits_of

    def spoil(network, x, names, precision):
        if "b" in names:
            x = [(torch.full_like(view, torch.nan), da) for view, da in x]
        return logits(network, x, names, precision)

    monkeypatch.setattr(predict_classes, "logits_of", spoil)
    assert exit_code("-m", model, "-i", images, "-o", tmp_path / "out") == 1
    assert "failed: b: the network gives values that are not finite" in caplog.text
    assert list(probabilities(tmp_path / "out")) == ["a", "d", "c"]
