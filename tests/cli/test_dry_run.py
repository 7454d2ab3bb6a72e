"""`--dry-run`: says what would happen, writes nothing, and what it estimates comes true."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import costly
import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.cli import (
    check,
    convert_btcv,
    convert_msd,
    demo,
    evaluate,
    fingerprint,
    plan,
    plan_and_preprocess,
    predict,
    preprocess,
    train,
)
from spadunet.cli.dry_run import MAX_ROWS, size_text, table, time_text
from spadunet.measure import measure, measure_apart
from spadunet.preprocessing.run import preprocess_dataset

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"
UNITS = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
COMMANDS = [check, fingerprint, plan, plan_and_preprocess, preprocess]
HEADER = "spacing (mm)"


@pytest.fixture(autouse=True)
def trials_in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own loads all libraries, which takes seconds: only the slow tests, which compare numbers, do."""
    if request.node.get_closest_marker("slow") is None:
        for module in ("measure", "preprocessing.estimate", "training.estimate"):
            monkeypatch.setattr(f"spadunet.{module}.measure_apart", measure)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file written into the current folder would be seen."""
    monkeypatch.chdir(tmp_path)


def snapshot(*folders: Path) -> dict[Path, tuple[int, int]]:
    """Every file and folder with its size and time of change."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def estimate_of(out: str, name: str) -> float:
    """A line of the estimate, in bytes or seconds."""
    value, unit = re.findall(rf"^  {name} +about ([\d.e+]+) (\w+)", out, re.MULTILINE)[0]
    return float(value) * UNITS[unit]


def assert_told(out: str) -> None:
    """All four parts are there."""
    assert "nothing is written" in out
    for title in ("reads", "writes into", "pairs", "estimate"):
        assert re.search(rf"^{title}", out, re.MULTILINE), title
    for name in ("time", "memory", "disk"):
        assert estimate_of(out, name) >= 0
    assert "trial here" in out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda it: it.__name__.split(".")[-1])
def test_stages_tell_and_write_nothing(command, planned: Path, run, capsys: pytest.CaptureFixture[str]):
    before = snapshot(planned, Path.cwd())
    assert run(command.main, "-d", "Hippocampus", "--dry-run", "-np", 1, "--data", planned) == 0
    assert snapshot(planned, Path.cwd()) == before
    out = capsys.readouterr().out
    assert_told(out)
    row = next(line for line in out.splitlines() if line.strip().startswith("hippocampus_0"))
    assert "imagesTr/hippocampus_0" in row
    assert "labelsTr/hippocampus_0" in row
    assert "16×24×20" in row
    if command in (preprocess, plan_and_preprocess):
        kept = 6 if command is preprocess else 0  # the plan of this dry run has more memory but the same cases
        assert f"{6 - kept} cases made" in out or "0 cases made, four files each, 6 there already" in out
    if command is plan:
        assert "spacing 1×1×1 mm, degree of anisotropy 0" in out


def test_before_any_run_a_plan_follows_from_headers_alone(
    make_raw, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    make_raw(tmp_path)
    before = snapshot(tmp_path)
    options = ("--memory-gb", 0.03, "-np", 1, "--data", tmp_path, "--dry-run")
    assert run(plan_and_preprocess.main, "-d", 4, 101, *options) == 0
    assert snapshot(tmp_path) == before
    out = capsys.readouterr().out
    assert "spacing 1×1×1 mm, degree of anisotropy 0" in out
    assert "spacing 8×1.25×1.25 mm, degree of anisotropy 2" in out
    assert "6 cases made" in out
    assert "5 cases made" in out
    assert "plan.json: new" in out


@pytest.mark.slow
def test_the_disk_and_memory_that_preprocessing_takes_are_foretold(
    planned: Path, tmp_path: Path, run, copy_demo, capsys: pytest.CaptureFixture[str]
):
    """Whole hearts of 256 × 256 × 9 voxels, before any run."""
    raw = copy_demo(HEART, tmp_path / "raw" / HEART, num_cases=4)
    common = ("-d", raw, "-np", 1, "--data", tmp_path)
    assert run(plan_and_preprocess.main, *common, "--dry-run") == 0
    out = capsys.readouterr().out
    assert run(fingerprint.main, *common) == run(plan.main, *common) == 0
    from spadunet.dataset import load_dataset
    from spadunet.plan import Plan

    made = Plan.from_json((tmp_path / "preprocessed" / HEART / "plan.json").read_text())
    work = preprocess_dataset
    cost = measure_apart(work, load_dataset(raw), made, tmp_path / "cases")
    disk = sum(path.stat().st_size for path in (tmp_path / "cases").iterdir())
    assert disk / 2 < estimate_of(out, "disk") < disk * 2
    assert cost.peak_bytes / 2 < estimate_of(out, "memory") < cost.peak_bytes * 2


def test_large_volumes_are_tried_on_their_middle_slices(tmp_path: Path):
    from spadunet.dataset import RawCase
    from spadunet.preprocessing.estimate import read_case_headers, samples_of

    array = np.arange(60, dtype=np.int16)[:, None, None] * np.ones((1, 300, 300), np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 1, 3))
    for name in ("image", "labels"):
        (tmp_path / name).mkdir()
        sitk.WriteImage(image, str(tmp_path / name / "a.nii.gz"))
    paths = (tmp_path / "image/a.nii.gz",)
    found = read_case_headers(RawCase(name="a", image_paths=paths, label_path=tmp_path / "labels/a.nii.gz"))
    assert found is not None
    assert found.facts.shape == (60, 300, 300)
    assert found.facts.spacing_mm == (3, 1, 1)
    with samples_of([found]) as samples:
        (sample,) = samples
        assert sample.image.shape == (33, 300, 300)  # 3 million voxels
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(sample.case.paths[0])))
        assert np.array_equal(voxels[:, 0, 0], range(13, 46))
        assert sample.label is not None
        assert np.array_equal(sample.image.affine, sample.label.affine)
        folder = sample.case.paths[0].parent
    assert not folder.exists()


def test_training_tells_and_writes_nothing(planned: Path, run, quick, capsys: pytest.CaptureFixture[str]):
    splits = planned / "preprocessed" / HEART / "splits_final.json"
    splits.unlink(missing_ok=True)
    before = snapshot(planned)
    options = ("-d", "SunnybrookLV", "-f", 0, "--max-steps", 7, *quick, "--data", planned)
    assert run(train.main, *options, "--dry-run") == 0
    assert snapshot(planned) == before
    out = capsys.readouterr().out
    assert_told(out)
    assert "7 steps of" in out
    assert "splits_final.json: new" in out
    assert len(re.findall(r"  train +\d+×", out)) == 4
    assert len(re.findall(r"  validate +\d+×", out)) == 1


def test_a_finished_run_is_refused_and_one_to_restart_is_left_alone(
    joint_model: Path, planned: Path, run, quick, capsys: pytest.CaptureFixture[str]
):
    options = ("-d", "Hippocampus", "101", "-f", "all", "--max-steps", 3, *quick, "--data", planned, "--dry-run")
    before = snapshot(planned)
    assert run(train.main, *options) == 2
    assert "trained already" in capsys.readouterr().err
    assert run(train.main, *options, "--restart") == 0
    assert "3 steps of" in capsys.readouterr().out
    assert snapshot(planned) == before


def test_the_size_of_a_model_is_foretold(joint_model: Path, planned: Path, run, quick, capsys):
    options = ("-d", "Hippocampus", "101", "-f", "all", "--max-steps", 3, *quick, "--data", planned)
    assert run(train.main, *options, "--restart", "--dry-run") == 0
    state = (joint_model / "state" / "checkpoint.safetensors").stat().st_size
    weights = sum(path.stat().st_size for path in joint_model.rglob("*.safetensors")) - state
    assert estimate_of(capsys.readouterr().out, "disk") == pytest.approx(weights + 2 * state, rel=0.1)


@pytest.mark.slow
def test_the_memory_that_prediction_takes_is_foretold(
    joint_model: Path, copy_demo, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    """Whole hearts: 256 × 256 × 9 voxels."""
    images = copy_demo(HEART, tmp_path / "raw" / HEART, num_cases=2) / "imagesTr"
    options = ("-i", images, "-o", tmp_path / "out", "-m", joint_model, "-d", HEART, "-device", "cpu")
    assert run(predict.main, *options, "--dry-run") == 0
    out = capsys.readouterr().out
    cost = measure_apart(costly.predict, [str(option) for option in options])
    assert cost.peak_bytes / 2 < estimate_of(out, "memory") < cost.peak_bytes * 2
    assert estimate_of(out, "time") > 0


def test_prediction_tells_and_writes_nothing(
    joint_model: Path, planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    images, output = planned / "raw" / HIPPOCAMPUS / "imagesTr", tmp_path / "out"
    options = ("-i", images, "-o", output, "-m", joint_model, "-d", "Hippocampus", "-device", "cpu", "--data", planned)
    before = snapshot(planned)
    assert run(predict.main, *options, "--dry-run") == 0
    out = capsys.readouterr().out
    assert_told(out)
    assert snapshot(planned) == before
    assert not output.exists()
    assert "6 new, 0 replaced" in out
    assert re.search(r"hippocampus_0\d+ +hippocampus_0\d+_0000.nii.gz +16×24×20", out)

    assert run(predict.main, *options) == 0
    written = sorted(output.glob("*.nii.gz"))
    written[0].unlink()
    before = snapshot(planned, output)
    for flag, fate in (("--continue", "kept"), ("--overlap=0.5", "replaced")):
        assert run(predict.main, *options, flag, "--dry-run") == 0
        assert f"1 new, 5 {fate}" in capsys.readouterr().out
    assert run(predict.main, *options, "--continue", "--save-probabilities", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "1 new, 5 replaced" in out
    assert "probabilities, <case>.npz beside each: 6 made" in out
    assert "twice the probabilities of 3 classes or regions" in out
    assert snapshot(planned, output) == before


def test_windows_are_counted_as_they_are_run(joint_model: Path):
    import torch
    from whole_logits import predict_logits

    from spadunet.inference.estimate import num_windows

    for shape, patch, overlap in (
        ((9, 30, 31), (4, 12, 16), 0.5),
        ((3, 9, 9), (4, 9, 8), 0.25),
        ((7, 7, 7), (7, 2, 3), 0),
    ):
        calls = []

        def network(x: torch.Tensor, da: int, calls: list[int] = calls) -> torch.Tensor:
            calls.append(len(x))
            return x

        predict_logits(network, torch.rand(1, *shape), 0, patch, overlap=overlap)
        assert sum(calls) == num_windows(shape, patch, overlap)


def test_evaluation_tells_and_writes_nothing(planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    references, predictions = planned / "raw" / HEART / "labelsTr", tmp_path / "predictions"
    shutil.copytree(references, predictions)
    before = snapshot(planned, tmp_path)
    assert run(evaluate.main, "-p", predictions, "-r", references, "-np", 1, "--dry-run") == 0
    assert snapshot(planned, tmp_path) == before
    out = capsys.readouterr().out
    assert_told(out)
    assert "5 predictions and as many references" in out
    next(predictions.glob("*.nii.gz")).unlink()
    assert run(evaluate.main, "-p", predictions, "-r", references, "--dry-run") == 2
    assert "no prediction for 1 of 5 references" in capsys.readouterr().err
    assert run(evaluate.main, "-p", predictions, "-r", references, "-np", 1, "--dry-run", "--allow-missing") == 0
    out = capsys.readouterr().out
    assert "counted as missed, since there is no prediction" in out
    assert "4 predictions and as many references" in out


@pytest.mark.parametrize("command", [convert_btcv, convert_msd])
def test_conversion_tells_and_writes_nothing(
    command, planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    raw, source = planned / "raw" / HIPPOCAMPUS, tmp_path / "Task04_Hippocampus"
    if command is convert_msd:
        shutil.copytree(raw, source)
    else:
        for folder, prefix in (("img", "img"), ("label", "label")):
            target = source / "RawData/Training" / folder
            target.mkdir(parents=True)
            files = sorted((raw / ("imagesTr" if folder == "img" else "labelsTr")).iterdir())
            for number, path in enumerate(files, start=1):
                shutil.copy(path, target / f"{prefix}{number:04}.nii.gz")
    before = snapshot(tmp_path)
    assert run(command.main, source, "--data", tmp_path / "data", "--dry-run") == 0
    assert snapshot(tmp_path) == before
    out = capsys.readouterr().out
    assert_told(out)
    assert "6 cases in imagesTr and labelsTr, 0 in imagesTs" in out
    foretold = estimate_of(out, "disk")
    assert run(command.main, source, "--data", tmp_path / "data") == 0
    written = sum(path.stat().st_size for path in (tmp_path / "data/raw").rglob("*.nii.gz"))
    assert written / 1.5 < foretold < written * 1.5
    assert run(command.main, source, "--data", tmp_path / "data", "--dry-run") == 2
    assert "is there already" in capsys.readouterr().err


def test_the_demo_tells_and_writes_nothing(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(demo.main, "--dry-run", "--minutes", 3) == 0
    assert list(tmp_path.iterdir()) == []
    out = capsys.readouterr().out
    assert "40 cases made" in out
    assert "12 cases made" in out
    assert "spadunet_train for 3 minutes" in out


def test_a_plain_pair_of_folders_gets_no_dataset_json(
    planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    for folder, images in (("images", "imagesTr"), ("labels", "labelsTr")):
        shutil.copytree(planned / "raw" / HIPPOCAMPUS / images, tmp_path / "pair" / folder)
    before = snapshot(tmp_path)
    assert run(plan_and_preprocess.main, "-d", tmp_path / "pair", "-np", 1, "--data", tmp_path / "x", "--dry-run") == 0
    assert snapshot(tmp_path) == before
    out = capsys.readouterr().out
    assert_told(out)
    assert "pair/dataset.json: new" in out


def test_errors_are_those_of_the_real_run(planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    raw = planned / "raw" / HIPPOCAMPUS
    wrong = [
        (check, ("-d", "Nowhere")),
        (plan, ("-d", raw, "--window", 1, 2)),
        (plan_and_preprocess, ("-d", raw, "--spacing", "big")),
        (preprocess, ("-d", raw)),
        (train, ("-d", raw)),
        (predict, ("-i", tmp_path / "none", "-o", tmp_path / "out")),
        (evaluate, ("-p", tmp_path / "none", "-r", raw / "labelsTr")),
        (convert_btcv, (tmp_path / "none",)),
        (convert_msd, (tmp_path / "none",)),
    ]
    for command, arguments in wrong:
        options = arguments if command is evaluate else (*arguments, "--data", tmp_path / "data")
        assert run(command.main, *options, "--dry-run") == 2, command
        dry = capsys.readouterr().err
        assert not (tmp_path / "data").exists()
        assert run(command.main, *options) == 2, command
        assert dry == capsys.readouterr().err
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
    (tmp_path / "file").write_text("")
    assert run(check.main, "-d", raw, "--data", tmp_path / "file", "--dry-run") == 2
    dry = capsys.readouterr().err
    assert run(check.main, "-d", raw, "--data", tmp_path / "file") == 2
    assert dry == capsys.readouterr().err


def test_what_headers_show_to_be_wrong_is_told(planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    raw = tmp_path / "raw" / HIPPOCAMPUS
    shutil.copytree(planned / "raw" / HIPPOCAMPUS, raw)
    first, second, *_ = sorted((raw / "labelsTr").iterdir())
    image = sitk.ReadImage(str(first))
    sitk.WriteImage(image[:-1], str(first))
    second.write_bytes(b"")
    assert run(check.main, "-d", raw, "--data", tmp_path, "-np", 1, "--dry-run") == 2
    told = capsys.readouterr().err
    assert f"{first}: does not lie on the grid of" in told
    assert f"{second}: the file is empty" in told
    assert run(check.main, "-d", raw, "--data", tmp_path, "-np", 1) == 2
    errors = capsys.readouterr().err
    assert set(told.splitlines()) <= set(errors.splitlines())


def test_too_little_disk_is_a_warning(planned: Path, run, monkeypatch, capsys: pytest.CaptureFixture[str]):
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("spadunet.cli.dry_run.shutil.disk_usage", lambda path: usage)
    assert run(check.main, "-d", "Hippocampus", "-np", 1, "--data", planned, "--dry-run") == 0
    assert re.search(r"^WARNING: disk: about 100 kB needed, 10 bytes there; free some", capsys.readouterr().out, re.M)


def test_long_tables_say_what_they_leave_out():
    lines = table(["case", "file"], [[f"case_{number}", "a"] for number in range(30)], "cases")
    assert len(lines) == 1 + MAX_ROWS + 1
    assert lines[-1] == f"… and {30 - MAX_ROWS} more cases, 30 in all"
    assert lines[0].index("file") == lines[1].index("a", 8)


def test_numbers_are_told_in_sensible_units():
    assert [time_text(s) for s in (0.5, 80, 100, 7000, 5e5)] == [
        "0.5 seconds", "80 seconds", "1.7 minutes", "1.9 hours", "5.8 days",
    ]  # fmt: skip
    assert [size_text(n) for n in (0, 900, 1.26e6, 999e6, 4.56e12)] == [
        "0 bytes",
        "900 bytes",
        "1.3 MB",
        "1 GB",
        "4.6 TB",
    ]


@pytest.mark.slow
def test_training_is_tried_by_real_steps_and_leaves_nothing(
    planned: Path, run, quick, capsys: pytest.CaptureFixture[str]
):
    options = ("-d", "SunnybrookLV", "-f", "all", "--max-steps", 40, *quick, "--data", planned, "-o", Path.cwd() / "m")
    assert run(train.main, *options, "--dry-run") == 0
    out = capsys.readouterr().out
    per_step = float(re.findall(r"40 steps of ([\d.e-]+) s", out)[0])
    assert run(train.main, *options) == 0
    assert per_step > 0
    manifest = json.loads((Path.cwd() / "m/spadunet_train.json").read_text())
    assert manifest["options"]["dry_run"] is False
