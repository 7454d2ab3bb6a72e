"""Wrong use and bad input: one line that names file or flag and says what to do, and nothing half-written."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.cli import check, evaluate, plan, plan_and_preprocess, predict, preprocess, train
from spadunet.model import MODEL_JSON

IMAGE, LABEL = "imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"
NAME = "Dataset001_Tiny"
HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"

Mutation = Callable[[Path], None]


def write(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> None:
    """A NIfTI file."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def volume() -> np.ndarray:
    """Six slices of noise."""
    return np.random.default_rng(0).uniform(1, 100, (6, 8, 8)).astype(np.float32)


def labels() -> np.ndarray:
    """A cube of label 1."""
    array = np.zeros((6, 8, 8), np.uint8)
    array[2:4, 2:6, 2:6] = 1
    return array


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A sound raw dataset of three cases: a, b and c."""
    folder = tmp_path / "data/raw" / NAME
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}}
    (folder / "dataset.json").write_text(json.dumps(description))
    for case in "abc":
        write(folder / f"imagesTr/{case}_0000.nii.gz", volume())
        write(folder / f"labelsTr/{case}.nii.gz", labels())
    return folder


def results_in(folder: Path) -> list[str]:
    """All files of a folder but logs."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command said on stderr, which is never a traceback."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, which is one line."""
    lines = error_of(capsys).strip().splitlines()
    assert len(lines) == 1, lines
    assert ": error: " in lines[0]
    return lines[0]


# --- a raw dataset that is not as it should be


def edit_json(**changes: object) -> Mutation:
    """Change fields of dataset.json."""

    def mutate(folder: Path) -> None:
        path = folder / "dataset.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return mutate


def put(file: str, array: np.ndarray, **geometry: object) -> Mutation:
    """Replace a file by another array."""
    return lambda folder: write(folder / file, array, **geometry)


def put_bytes(file: str, content: bytes) -> Mutation:
    """Replace a file's content."""

    def mutate(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return mutate


def truncate(file: str) -> Mutation:
    """Cut off the last half of a file."""

    def mutate(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return mutate


def remove(name: str) -> Mutation:
    """Take a file away."""
    return lambda folder: (folder / name).unlink()


def empty(name: str) -> Mutation:
    """Take all files of a folder away."""

    def mutate(folder: Path) -> None:
        shutil.rmtree(folder / name)
        (folder / name).mkdir()

    return mutate


def set_spacing(file: str, spacing_mm: float) -> Mutation:
    """Write a spacing into the header: pixdim[3] lies at byte 76 + 3 · 4 of NIfTI-1."""

    def mutate(folder: Path) -> None:
        content = bytearray(gzip.decompress((folder / file).read_bytes()))
        struct.pack_into("<f", content, 88, spacing_mm)
        (folder / file).write_bytes(gzip.compress(content))

    return mutate


def put_4d(folder: Path) -> None:
    """Two volumes in one file."""
    both = sitk.JoinSeries([sitk.GetImageFromArray(volume())] * 2)
    sitk.WriteImage(both, str(folder / IMAGE))


def put_vectors(folder: Path) -> None:
    """Three values a voxel."""
    rgb = np.random.default_rng(0).uniform(0, 1, (6, 8, 8, 3)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(folder / IMAGE))


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    """The array with one voxel changed."""
    array = array.copy()
    array[3, 3, 3] = value
    return array


BAD_DATASETS: dict[str, tuple[Mutation, str, str]] = {
    "no dataset.json": (remove("dataset.json"), "dataset.json", "not found; write one that names channels and labels"),
    "broken dataset.json": (put_bytes("dataset.json", b'{"labels": '), "dataset.json", "Invalid JSON"),
    "binary dataset.json": (put_bytes("dataset.json", b"\xff\xfe\x00"), "dataset.json", "cannot be read as text"),
    "labels of a wrong type": (edit_json(labels={"background": 0, "organ": "one"}), "labels.organ", "found 'one'"),
    "labels as a list": (edit_json(labels=["background", "organ"]), "dataset.json", "field 'labels'"),
    "regions without an order": (
        edit_json(labels={"background": 0, "both": [1, 2]}),
        "regions_class_order",
        "expected an id for each of both",
    ),
    "ignore with the id of a label": (
        edit_json(labels={"background": 0, "organ": 1, "ignore": 1}),
        "dataset.json",
        "ignore needs an id of its own, not 1",
    ),
    "optional channel that is none": (edit_json(optional_channels=["T2"]), "optional_channels", "found ['T2']"),
    "labels without background": (edit_json(labels={"organ": 1}), "dataset.json", '"background": 0'),
    "no label but background": (edit_json(labels={"background": 0}), "dataset.json", "at least one label"),
    "channels not numbered": (edit_json(channel_names={"T1": "x"}), "dataset.json", "field 'channel_names'"),
    "unknown file ending": (edit_json(file_ending=".npy"), "dataset.json", "expected one of .nii.gz, .nii, .nrrd"),
    "label file missing": (remove(LABEL), "b.nii.gz", "label file missing; add it or take its image out"),
    "another shape": (put(LABEL, labels()[:5]), LABEL, "shape 8×8×6 against 8×8×5 voxels (x×y×z)"),
    "another spacing": (put(LABEL, labels(), spacing=(1.0, 1.0, 2.0)), LABEL, "corners lie up to 5 mm apart"),
    "another place": (put(LABEL, labels(), origin=(0.0, 3.0, 4.0)), LABEL, "corners lie up to 5 mm apart"),
    "NaN": (put(IMAGE, with_value(volume(), np.nan)), IMAGE, "holds 1 NaN or infinite values; replace them"),
    "infinity": (put(IMAGE, with_value(volume(), np.inf)), IMAGE, "holds 1 NaN or infinite values; replace them"),
    "constant image": (put(IMAGE, np.full((6, 8, 8), 7.0, np.float32)), IMAGE, "every voxel is 7; expected an image"),
    "truncated image": (truncate(IMAGE), IMAGE, "damaged gzip file"),
    "truncated label map": (truncate(LABEL), LABEL, "damaged gzip file"),
    "zero-size file": (put_bytes(IMAGE, b""), IMAGE, "the file is empty (0 bytes); copy it again"),
    "text as an image": (put_bytes(IMAGE, gzip.compress(b"hello")), IMAGE, "cannot be read as NIfTI"),
    "undeclared label": (
        put(LABEL, with_value(labels(), 9)),
        LABEL,
        "holds label values [9] that dataset.json does not",
    ),
    "label 1.5": (put(LABEL, with_value(labels().astype(np.float32), 1.5)), LABEL, "the label value 1.5, not a whole"),
    "negative label": (put(LABEL, with_value(labels().astype(np.int16), -1)), LABEL, "holds label values [-1]"),
    "missing channel": (
        edit_json(channel_names={"0": "T1", "1": "T2"}),
        "imagesTr/a",
        "expected 2, numbered from _0000",
    ),
    "surplus channel": (
        put("imagesTr/b_0001.nii.gz", volume()),
        "imagesTr/b",
        "wrong channel count: files for channels [0, 1], expected 1",
    ),
    "empty folder": (empty("imagesTr"), "imagesTr", "no *.nii.gz files; put the images there"),
    "no folder": (lambda folder: shutil.rmtree(folder / "imagesTr"), "imagesTr", "folder not found"),
    "zero spacing": (set_spacing(IMAGE, 0), IMAGE, "each must be above zero: correct the header"),
    "spacing that is no number": (set_spacing(IMAGE, np.nan), IMAGE, "each must be above zero: correct the header"),
    "4D": (put_4d, IMAGE, "4D"),
    "several values a voxel": (put_vectors, IMAGE, "3 values a voxel"),
}


@pytest.mark.parametrize("problem", BAD_DATASETS)
def test_a_bad_dataset_is_told_before_any_work(dataset: Path, tmp_path: Path, run, capsys, problem: str):
    mutate, name, message = BAD_DATASETS[problem]
    mutate(dataset)
    # Given as a path, since a folder without dataset.json and imagesTr is no dataset to be found by name.
    assert run(plan_and_preprocess.main, "-d", dataset, "-np", 1, "--data", tmp_path / "data") == 2
    error = one_line(capsys)
    assert name in error
    assert message in error
    assert set(results_in(tmp_path / "data/preprocessed")) <= {"check.csv", "check.json"}  # what was found


def test_problems_of_every_dataset_are_told_at_once_and_kept_in_the_log(dataset: Path, tmp_path: Path, run, capsys):
    other = tmp_path / "data/raw/Dataset008_Other"
    shutil.copytree(dataset, other)
    for folder, case in ((dataset, "a"), (other, "b")):
        write(folder / f"labelsTr/{case}.nii.gz", labels()[:, :, :-1])
    assert run(plan_and_preprocess.main, "-d", dataset, other, "-np", 1, "--data", tmp_path / "data") == 2
    lines = error_of(capsys).strip().splitlines()
    assert [str(dataset / "labelsTr/a.nii.gz") in lines[0], str(other / "labelsTr/b.nii.gz") in lines[1]] == [True] * 2
    log = tmp_path / "data/preprocessed/Dataset008_Other/spadunet_plan_and_preprocess.log"
    assert lines[1] in log.read_text()


def test_several_problems_are_told_all_at_once(dataset: Path, tmp_path: Path, run, capsys):
    write(dataset / "imagesTr/a_0000.nii.gz", with_value(volume(), np.nan))
    write(dataset / "labelsTr/b.nii.gz", labels()[:5])
    (dataset / "imagesTr/c_0000.nii.gz").write_bytes(b"")
    for main in (check.main, plan_and_preprocess.main):
        assert run(main, "-d", 1, "-np", 1, "--data", tmp_path / "data") == 2
        lines = error_of(capsys).strip().splitlines()
        assert len(lines) == 3
        for line, file in zip(lines, ("a_0000", "b.nii", "c_0000"), strict=True):  # in the order of cases
            assert file in line


def test_a_sound_dataset_passes(dataset: Path, tmp_path: Path, run):
    assert run(plan_and_preprocess.main, "-d", "Tiny", "-np", 1, "--data", tmp_path / "data") == 0


def test_a_case_that_breaks_after_planning_fails_alone(dataset: Path, tmp_path: Path, run, caplog):
    common = ("-d", 1, "-np", 1, "--data", tmp_path / "data")
    assert run(plan.main, *common) == 0
    truncate(IMAGE)(dataset)
    assert run(preprocess.main, *common) == 1
    assert "2 cases made, 0 kept" in caplog.text
    assert "failed: " in caplog.text
    assert "b_0000.nii.gz: damaged gzip file" in caplog.text
    assert not [name for name in results_in(tmp_path / "data/preprocessed") if name.startswith(("b.", "."))]


def test_debug_shows_the_traceback(tmp_path: Path):
    with pytest.raises(ValueError, match="dataset not found"):
        check.main(["-d", "Nowhere", "--data", str(tmp_path), "--debug"])


# --- wrong use


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (plan_and_preprocess.main, "-d Nowhere", "-d Nowhere: dataset not found; datasets in "),
        (plan_and_preprocess.main, "-d Nowhere", f"{NAME}; give one of them or a path"),
        (plan_and_preprocess.main, "", "the following arguments are required: -d/--dataset"),
        (plan_and_preprocess.main, "-d 1 1", f"-d: {NAME} is given more than once"),
        (plan_and_preprocess.main, "-d 1 --spacing 1 2", "--spacing 1 2: expected median, coarse, native"),
        (plan_and_preprocess.main, "-d 1 --spacing 1 2 0", "--spacing 1 2 0: expected"),
        (plan_and_preprocess.main, "-d 1 --spacing 1 2 nan", "--spacing 1 2 nan: expected"),
        (plan_and_preprocess.main, "-d 1 --spacing fine", "--spacing fine: expected"),
        (plan_and_preprocess.main, "-d 1 --window 5 5", "--window 5 5: expected two numbers, the lower first"),
        (plan_and_preprocess.main, "-d 1 --window -100 300", "none of the channels ['MRI'] is CT"),
        (plan_and_preprocess.main, "-d 1 --memory-gb 0", "0 is not above zero"),
        (plan_and_preprocess.main, "-d 1 -np none", "argument -np/--num-processes"),
        (plan_and_preprocess.main, "-d 1 --pl nnUNetPlanner", "unrecognized arguments: --pl nnUNetPlanner"),
        (plan_and_preprocess.main, "-d 1 --memory 3", "unrecognized arguments: --memory 3"),  # no abbreviations
        (train.main, "-d 1", "plan.json: not found; run spadunet_plan_and_preprocess first"),
        (train.main, "", "no planned dataset; run spadunet_plan_and_preprocess, or name one with -d"),
        (train.main, "-d 1 -f x", "argument -f/--fold: invalid fold value: 'x'"),
        (train.main, "-d 1 --preset huge", "argument --preset: invalid choice: 'huge'"),
        (train.main, "-d 1 --seed -1", "-1 is below zero"),
        (train.main, "-d 1 --num-workers -1", "-1 is below zero"),
        (train.main, "-d 1 --weight-decay nan", "nan is below zero or not finite"),
        (train.main, "-d 1 --max-steps 0", "0 is not above zero"),
        (train.main, "-d 1 --trainer X", "unrecognized arguments: --trainer X"),
        (predict.main, "-i .", "the following arguments are required: -o/--output"),
        (predict.main, "-i . -o out --overlap 1", "--overlap: 1 is not a share from 0 to 0.95"),
        (predict.main, "-i . -o out --overlap nan", "--overlap: nan is not a share from 0 to 0.95"),
        (predict.main, "-i . -o out", "no trained model fits"),
        (predict.main, "-i . -o out -m nowhere", "nowhere/model.json: not found; give a model folder"),
        (evaluate.main, "-p . -r nowhere", "-r nowhere: folder not found"),
        (check.main, "-d .", "dataset not found"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    dataset: Path, tmp_path: Path, run, capsys, monkeypatch: pytest.MonkeyPatch, main, arguments: str, message: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPADUNET_DATA", str(tmp_path / "data"))
    assert run(main, *arguments.split()) == 2
    error = one_line(capsys)
    assert message in error
    assert not (tmp_path / "out").exists()


def test_bad_options_are_told_before_a_case_is_read(dataset: Path, tmp_path: Path, run, capsys):
    (dataset / IMAGE).write_bytes(b"")
    for option in (("--spacing", "0"), ("--window", 300, -100)):
        assert run(plan_and_preprocess.main, "-d", 1, *option, "--data", tmp_path / "data") == 2
        assert option[0] in one_line(capsys)


# --- disks that cannot be written


def test_a_file_where_a_folder_should_be_is_told_before_any_work(dataset: Path, tmp_path: Path, run, capsys):
    (tmp_path / "data/preprocessed").write_text("in the way")
    assert run(plan_and_preprocess.main, "-d", 1, "-np", 1, "--data", tmp_path / "data") == 2
    assert "cannot be written: a part of the path is a file, not a folder" in one_line(capsys)
    (tmp_path / "data/preprocessed").unlink()
    (tmp_path / "data/preprocessed").mkdir()
    (tmp_path / "data/preprocessed" / NAME).write_text("in the way")
    assert run(plan_and_preprocess.main, "-d", 1, "-np", 1, "--data", tmp_path / "data") == 2
    assert "cannot be written: a file of that name is in the way" in one_line(capsys)


def test_predicting_into_a_file_is_refused(joint_model: Path, planned: Path, tmp_path: Path, run, capsys):
    (tmp_path / "out").write_text("in the way")
    images = planned / "raw" / HEART / "imagesTr"
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-m", joint_model, "-d", 101) == 2
    assert "a file of that name is in the way" in one_line(capsys)


def test_a_folder_that_may_not_be_written_is_refused(dataset: Path, tmp_path: Path, run, capsys, monkeypatch):
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("spadunet.files.tempfile.TemporaryFile", refuse)
    assert run(plan_and_preprocess.main, "-d", 1, "-np", 1, "--data", tmp_path / "data") == 2
    assert "cannot be written: permission denied; choose a folder that you may write to" in one_line(capsys)


def test_a_disk_that_fills_up_while_a_case_is_written_leaves_no_half_case(
    dataset: Path, tmp_path: Path, run, caplog, capsys, limited_files
):
    write(dataset / "imagesTr/a_0000.nii.gz", np.random.default_rng(1).uniform(1, 9, (40, 40, 40)).astype(np.float32))
    write(dataset / "labelsTr/a.nii.gz", np.ones((40, 40, 40), np.uint8))
    common = ("-d", 1, "-np", 1, "--data", tmp_path / "data")
    assert run(plan.main, *common) == 0
    with limited_files(60_000):  # case a takes 128 kB of half-precision noise, the others less than 1 kB
        assert run(preprocess.main, *common) == 1
    assert "a.b2nd: cannot be written" in caplog.text
    assert "is the disk full" in caplog.text
    assert "Traceback" not in capsys.readouterr().err
    cases = results_in(tmp_path / "data/preprocessed" / NAME / "cases")
    assert [name for name in cases if name.startswith(("a.", "."))] == []
    assert {"b.json", "c.json"} <= set(cases)
    assert run(preprocess.main, *common) == 0
    assert "1 cases made, 2 kept" in caplog.text


def test_a_full_disk_in_preprocessing_is_told_for_every_case(dataset: Path, tmp_path: Path, run, caplog, monkeypatch):
    common = ("-d", 1, "-np", 1, "--data", tmp_path / "data")
    assert run(plan.main, *common) == 0
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if str(target).endswith(".b2nd"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr("spadunet.files.os.replace", replace)
    assert run(preprocess.main, *common) == 1
    assert caplog.text.count("no space is left on the device; free some and run the same command again") == 3
    cases = tmp_path / "data/preprocessed" / NAME / "cases"
    assert results_in(cases) == []


def test_a_full_disk_at_the_start_is_one_line(dataset: Path, tmp_path: Path, run, capsys, full_disk):
    assert run(plan_and_preprocess.main, "-d", 1, "-np", 1, "--data", tmp_path / "data") == 1
    assert "check.json: cannot be written: no space is left on the device" in one_line(capsys)
    assert results_in(tmp_path / "data/preprocessed") == []


def test_a_disk_that_fills_up_at_a_checkpoint_is_one_line_and_leaves_no_model(
    planned: Path, tmp_path: Path, run, quick, capsys, limited_files
):
    command = ("-d", 4, "-f", "all", "--max-steps", 1, "-o", tmp_path, *quick, "--data", planned)
    with limited_files(1_000_000):  # the tiny preset's weights alone take more
        assert run(train.main, *command) == 1
    error = one_line(capsys)
    assert "checkpoint.safetensors: cannot be written" in error
    assert "is the disk full" in error
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".safetensors"]
    assert not (tmp_path / MODEL_JSON).exists()
    assert run(train.main, *command) == 0


def test_a_disk_that_fills_up_in_prediction_leaves_no_half_label_map(
    joint_model: Path, planned: Path, tmp_path: Path, run, caplog, capsys, monkeypatch, limited_files
):
    def noise(case, engine, times):
        # A label map that gzip cannot make small, so that SimpleITK meets the end of the disk in the midst of it.
        from spadunet.image import LabelMap
        from spadunet.inference.predict import Answer

        array = np.random.default_rng(0).integers(0, 256, (40, 40, 40), np.uint8)
        return Answer(label_map=LabelMap(array=array, affine=np.eye(4)), confidences={}, agreements={})

    monkeypatch.setattr("spadunet.inference.pipeline.segment", noise)
    images = planned / "raw" / HEART / "imagesTr"
    with limited_files(40_000):
        assert run(predict.main, "-i", images, "-o", tmp_path, "-m", joint_model, "-d", 101) == 1
    assert caplog.text.count("cannot be written; is the disk full or the folder read-only?") == 5
    assert "Traceback" not in capsys.readouterr().err
    assert not [name for name in results_in(tmp_path) if name.endswith(".nii.gz")]


# --- models and images that are not as they should be


@pytest.fixture
def model(joint_model: Path, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(joint_model, tmp_path / "model", ignore=shutil.ignore_patterns("state", "tensorboard")))


def flip_byte(file: str) -> Mutation:
    """Change one bit in the middle of a file."""

    def mutate(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)

    return mutate


def newer(folder: Path) -> None:
    """A model of a spadunet to come."""
    path = folder / MODEL_JSON
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (flip_byte("backbone.safetensors"), "backbone.safetensors: does not have the SHA-256"),
        (flip_byte(f"tasks/{HEART}/task.safetensors"), "task.safetensors: does not have the SHA-256"),
        (remove("backbone.safetensors"), "backbone.safetensors: model file missing; copy the whole model folder again"),
        (remove(MODEL_JSON), "model.json: not found; give a model folder"),
        (put_bytes(MODEL_JSON, b"{"), "model.json: Invalid JSON"),
        (newer, "format version 9 is newer than 1, the newest known here; update spadunet"),
    ],
)
def test_a_damaged_or_newer_model_is_refused(model: Path, planned: Path, tmp_path: Path, run, capsys, mutate, message):
    mutate(model)
    images = planned / "raw" / HEART / "imagesTr"
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "-m", model, "-d", 101) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()
    arguments = ("-d", 101, "-f", "all", "--init", model, "--preset", "tiny", "-o", tmp_path / "new")
    assert run(train.main, *arguments, "--num-workers", 0, "--max-steps", 1, "--data", planned) == 2
    assert message in error_of(capsys)


def test_a_damaged_checkpoint_asks_for_a_restart(planned: Path, tmp_path: Path, run, quick, capsys):
    checkpoint = tmp_path / "state/checkpoint.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(b"half a file")
    command = ("-d", 4, "-f", "all", "--max-steps", 1, "-o", tmp_path, *quick, "--data", planned)
    assert run(train.main, *command) == 2
    assert "damaged checkpoint" in one_line(capsys)
    assert run(train.main, *command, "--restart") == 0


def test_an_unknown_device_is_refused(joint_model: Path, planned: Path, tmp_path: Path, run, capsys):
    images = planned / "raw" / HEART / "imagesTr"
    for command in (
        (train.main, "-d", 4, "-o", tmp_path, "--data", planned),
        (predict.main, "-i", images, "-o", tmp_path, "-m", joint_model, "-d", 101),
    ):
        assert run(*command, "-device", "quantum") == 2
        assert "--device: device quantum is not available; use auto, cpu, cuda or mps" in one_line(capsys)


def predict_folder(run, images: Path, model: Path, output: Path) -> int:
    """Exit code of a quick prediction of the heart."""
    return run(predict.main, "-i", images, "-o", output, "-m", model, "-d", 101, "--overlap", 0, "-device", "cpu")


def test_a_broken_image_fails_alone_with_exit_code_1(joint_model: Path, planned: Path, tmp_path: Path, run, caplog):
    images = Path(shutil.copytree(planned / "raw" / HEART / "imagesTr", tmp_path / "in"))
    broken = sorted(images.iterdir())[:3]
    truncate(broken[0].name)(images)
    put_bytes(broken[1].name, b"")(images)
    put(broken[2].name, with_value(volume(), np.nan))(images)
    assert predict_folder(run, images, joint_model, tmp_path / "out") == 1
    written = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert written == [path.name.replace("_0000", "") for path in sorted(images.iterdir())[3:]]
    assert [record.levelname for record in caplog.records].count("ERROR") == 3
    assert "2 label maps written, 3 failed" in caplog.text
    assert not list((tmp_path / "out").glob(".partial-*"))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "folder not found; give the folder that holds the images"),
        (lambda folder: folder.mkdir(), "no *.nii.gz files; put the images there"),
    ],
    ids=["no folder", "empty folder"],
)
def test_images_that_are_not_there_are_told_before_any_work(
    joint_model: Path, tmp_path: Path, run, capsys, prepare, message: str
):
    prepare(tmp_path / "in")
    assert predict_folder(run, tmp_path / "in", joint_model, tmp_path / "out") == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()


def test_predicting_over_the_images_is_refused(joint_model: Path, planned: Path, run, capsys):
    images = planned / "raw" / HEART / "imagesTr"
    assert predict_folder(run, images, joint_model, images) == 2
    assert "is the input folder; its images would be overwritten" in one_line(capsys)
