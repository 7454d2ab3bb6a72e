"""Images of several channels through all commands: colour slices, and volumes of two contrasts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.cli import evaluate, plan_and_preprocess, predict, train
from spadunet.image import geometry_difference, read_image, read_label_map
from spadunet.model import load_model
from spadunet.plan import Plan
from spadunet.preprocessing.store import open_case
from spadunet.scores import Scores
from spadunet.training.curves import read_rows

NUM_CASES = 4
PLAN_LOG = "spadunet_plan_and_preprocess.log"
CHANNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda grey: grey,
    "scaled": lambda grey: 3 * grey,
    "inverted": lambda grey: 1000 - grey,
}
"""Names of channels and what they make of the one in the demo's images."""


@pytest.fixture
def make_channels(copy_demo, tmp_path: Path) -> Callable[..., Path]:
    """Write a raw dataset whose images have these channels, made of the one that the demo's have."""

    def make(source: str, channel_names: tuple[str, ...], **cut: object) -> Path:
        folder = copy_demo(source, tmp_path / "raw/Dataset300_Channels", num_cases=NUM_CASES, **cut)
        description = json.loads((folder / "dataset.json").read_text())
        description["channel_names"] = dict(enumerate(channel_names))
        (folder / "dataset.json").write_text(json.dumps(description))
        for path in list((folder / "imagesTr").iterdir()):
            image = sitk.ReadImage(str(path))
            for number, name in enumerate(channel_names):
                channel = sitk.GetImageFromArray(CHANNELS[name](sitk.GetArrayFromImage(image).astype(np.float32)))
                channel.CopyInformation(image)
                sitk.WriteImage(channel, str(path).replace("_0000", f"_{number:04}"))
        return folder

    return make


@pytest.mark.parametrize(
    ("source", "channel_names", "cut", "da"),
    [
        ("Dataset101_SunnybrookLV", tuple(CHANNELS), {"size": (64, 64, 20), "as_slices": True}, 6),
        ("Dataset004_Hippocampus", ("plain", "inverted"), {"size": (20, 24, 16)}, 0),
    ],
    ids=["colour slices", "two contrasts"],
)
def test_images_of_several_channels_go_from_raw_to_scores(
    make_channels, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture, source, channel_names, cut, da
):
    raw = make_channels(source, channel_names, **cut)
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 300, "--memory-gb", 0.03, "-np", 1, *data) == 0
    plan = Plan.from_json((tmp_path / "preprocessed" / raw.name / "plan.json").read_text())
    assert (plan.channel_names, len(plan.intensity), plan.degree_of_anisotropy) == (
        channel_names,
        len(channel_names),
        da,
    )
    cases = tmp_path / "preprocessed" / raw.name / "cases"
    names = sorted(path.stem for path in cases.glob("*.json"))
    assert len(names) == NUM_CASES
    for name in names:
        case = open_case(cases, name)
        image, _ = case.read_patch((0, 0, 0), case.header.geometry.shape)
        channels = dict(zip(channel_names, image, strict=True))
        assert np.corrcoef(channels["plain"].ravel(), channels["inverted"].ravel())[0, 1] < -0.9
        np.testing.assert_allclose(
            channels.get("scaled", channels["plain"]), channels["plain"], atol=2e-3
        )  # as float16

    assert run(train.main, "-d", 300, "-f", "all", "--max-steps", 2, *quick, "--batch-size", 2, *data) == 0
    folder = tmp_path / "results" / raw.name / "spad_unet_tiny/fold_all"
    assert [row["da"] for row in read_rows(folder / "curves.csv")] == [str(da)] * 2
    weight = load_model(folder).tasks[raw.name].state["channel_map.weight"]
    assert weight.shape == (3, len(channel_names))  # the backbone has three channels whatever the image has
    assert len(weight.unique()) > 1  # each channel has learned something of its own

    output = tmp_path / "predictions"
    command = ("-i", raw / "imagesTr", "-o", output, "-d", 300, "-device", "cpu", *data)
    assert run(predict.main, *command) == 0
    assert sorted(path.name for path in output.glob("*.nii.gz")) == [f"{name}.nii.gz" for name in names]
    for name in names:
        paths = [raw / "imagesTr" / f"{name}_{number:04}.nii.gz" for number in range(len(channel_names))]
        label_map = read_label_map(output / f"{name}.nii.gz")
        assert geometry_difference(read_image(paths), label_map) is None
        assert set(np.unique(label_map.array).tolist()) <= set(plan.labels.ids)

    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    scores = Scores.from_json((output / "scores.json").read_text())
    assert [case.case for case in scores.cases] == names
    assert list(scores.summary()) == [structure.name for structure in plan.labels.structures]

    shutil.move(raw / "imagesTr" / f"{names[0]}_0001.nii.gz", tmp_path)
    assert run(predict.main, *command) == 1
    assert f"{names[0]}: wrong channel count" in caplog.text


@pytest.mark.slow
def test_cases_that_lack_optional_channels_go_from_raw_to_scores(
    make_channels, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    names = ("plain", "inverted", "scaled")
    raw = make_channels("Dataset004_Hippocampus", names, size=(20, 24, 16))
    description = json.loads((raw / "dataset.json").read_text()) | {"optional_channels": ["plain", "scaled"]}
    (raw / "dataset.json").write_text(json.dumps(description))
    missing = {}
    for path, numbers in zip(sorted((raw / "labelsTr").iterdir()), ((), (0,), (2,), (0, 2)), strict=True):
        missing[path.name.removesuffix(".nii.gz")] = numbers
        for number in numbers:
            (raw / "imagesTr" / path.name.replace(".nii.gz", f"_{number:04}.nii.gz")).unlink()
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 300, "--memory-gb", 0.03, "-np", 1, *data) == 0
    plan = Plan.from_json((tmp_path / "preprocessed" / raw.name / "plan.json").read_text())
    assert plan.optional_channels == ("plain", "scaled")
    cases = tmp_path / "preprocessed" / raw.name / "cases"
    for name, numbers in missing.items():
        case = open_case(cases, name)
        assert case.header.missing_channels == numbers
        image, _ = case.read_patch((-2, -2, -2), case.header.geometry.shape)
        assert [number for number, channel in enumerate(image) if not channel.any()] == list(numbers)
    assert run(plan_and_preprocess.main, "-d", 300, "--memory-gb", 0.03, "-np", 1, *data) == 0
    assert "0 cases made, 4 kept" in (tmp_path / "preprocessed" / raw.name / PLAN_LOG).read_text()
    capsys.readouterr()
    assert run(plan_and_preprocess.main, "-d", 300, "-np", 1, "--data", tmp_path / "elsewhere", "--dry-run") == 2
    assert "dataset not found" in capsys.readouterr().err
    dry = ("-d", raw, "-np", 1, "--data", tmp_path / "elsewhere", "--dry-run")
    assert run(plan_and_preprocess.main, *dry) == 0
    out = capsys.readouterr().out
    assert "the trial failed" not in out
    assert "–" in out  # where a channel is missing

    assert run(train.main, "-d", 300, "-f", 0, "--max-steps", 3, *quick, "--batch-size", 2, *data) == 0
    folder = tmp_path / "results" / raw.name / "spad_unet_tiny/fold_0"
    assert load_model(folder).tasks[raw.name].plan.optional_channels == ("plain", "scaled")
    assert (folder / "validation" / raw.name / "scores.json").is_file()
    output = tmp_path / "predictions"
    command = ("-i", raw / "imagesTr", "-o", output, "-d", 300, "-device", "cpu", *data)
    assert run(predict.main, *command) == 0
    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    scores = Scores.from_json((output / "scores.json").read_text())
    assert [case.case for case in scores.cases] == sorted(missing)

    shutil.move(raw / "imagesTr" / f"{min(missing)}_0001.nii.gz", tmp_path)  # not optional
    assert run(predict.main, *command) == 1
    assert f"{min(missing)}: wrong channel count: files for channels [0, 2]" in caplog.text
    for path in (raw / "imagesTr").glob("*_0000.nii.gz"):
        path.unlink()
    assert run(plan_and_preprocess.main, "-d", 300, "-np", 1, *data) == 2
    shutil.move(tmp_path / f"{min(missing)}_0001.nii.gz", raw / "imagesTr")
    capsys.readouterr()
    assert run(plan_and_preprocess.main, "-d", 300, "-np", 1, *data) == 2
    assert "no case has channel 0 (plain)" in capsys.readouterr().err
