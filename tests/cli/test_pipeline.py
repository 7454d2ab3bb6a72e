"""The commands as a user types them, on real cases cut small."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from spadunet.cli import check as check_command
from spadunet.cli import evaluate, fingerprint, info, plan, plan_and_preprocess, predict, preprocess, train
from spadunet.dataset import load_dataset
from spadunet.files import sha256_of_file
from spadunet.formats import read_channels
from spadunet.image import geometry_difference, read_image, read_label_map
from spadunet.inference.resume import UNFINISHED_FILE
from spadunet.model import load_model, read_model_record
from spadunet.plan import Plan
from spadunet.preprocessing.store import open_case
from spadunet.scores import Scores
from spadunet.training import loop
from spadunet.training.curves import read_rows
from spadunet.training.splits import make_splits

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"


def read_plan(workspace: Path, name: str) -> Plan:
    """The plan that was written."""
    return Plan.from_json((workspace / "preprocessed" / name / "plan.json").read_text())


def assert_label_maps_fit(images: Path, predictions: Path, num_cases: int) -> None:
    """One label map an image, on its grid, with known labels."""
    paths = sorted(images.glob("*_0000.nii.gz"))
    assert len(paths) == num_cases
    ids = set(json.loads((predictions / "labels.json").read_text())["ids"])
    for path in paths:
        label_map = read_label_map(predictions / path.name.replace("_0000", ""))
        assert geometry_difference(read_image([path]), label_map) is None
        assert set(np.unique(label_map.array).tolist()) <= ids
    assert len(list(predictions.glob("*.nii.gz"))) == num_cases


def test_plans_hold_each_datasets_spacing_and_nothing_of_a_network(planned: Path):
    assert read_plan(planned, HIPPOCAMPUS).target_spacing_mm == (1, 1, 1)
    assert read_plan(planned, HEART).target_spacing_mm == (8, 1.25, 1.25)
    degrees = [read_plan(planned, name).degree_of_anisotropy for name in (HIPPOCAMPUS, HEART, SLICES)]
    assert degrees == [0, 2, 6]
    assert read_plan(planned, SLICES).patch_size_voxels[0] == 1


@pytest.mark.parametrize("name", ["Hippocampus", "hippocampus", "4", "004", HIPPOCAMPUS, "path"])
def test_a_dataset_is_meant_by_name_number_and_path_and_its_cases_are_kept(
    planned: Path, run, caplog: pytest.LogCaptureFixture, name: str
):
    word = planned / "raw" / HIPPOCAMPUS if name == "path" else name
    assert run(preprocess.main, "-d", word, "-np", 1, "--data", planned) == 0
    assert f"{HIPPOCAMPUS}: 0 cases made, 6 kept" in caplog.text


def test_stages_can_be_run_one_by_one(planned: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture):
    raw = planned / "raw" / HIPPOCAMPUS
    common = ("-d", raw, "-np", 1, "--data", tmp_path)
    assert run(check_command.main, *common) == 0
    assert "6 cases checked, 0 errors, 0 warnings, 0 repairs" in caplog.text
    assert run(fingerprint.main, *common) == 0
    assert run(plan.main, *common, "--memory-gb", 0.03) == 0
    assert "fingerprint is up to date" in caplog.text
    assert run(preprocess.main, *common, "-device", "cpu:0") == 0
    assert "6 cases made, 0 kept" in caplog.text
    assert read_plan(tmp_path, HIPPOCAMPUS) == read_plan(planned, HIPPOCAMPUS)


def test_each_case_is_read_twice_and_not_checked_again_where_no_file_changed(
    planned: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(planned / "raw" / HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS)
    files = list((tmp_path / "raw" / HIPPOCAMPUS / "imagesTr").iterdir())
    read: list[Path] = []

    def note(path: Path) -> tuple[np.ndarray, np.ndarray]:
        read.append(path)
        return read_channels(path)

    monkeypatch.setattr("spadunet.image.read_channels", note)
    command = (plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, "--data", tmp_path)
    assert run(*command) == 0
    assert sorted(path for path in read if path in files) == sorted([*files, *files])  # to check and to preprocess
    assert read_plan(tmp_path, HIPPOCAMPUS) == read_plan(planned, HIPPOCAMPUS)
    caplog.clear()
    read.clear()
    assert run(*command) == 0
    assert "no file has changed since it was checked" in caplog.text
    assert "6 cases checked, 0 errors" in caplog.text
    assert read == []
    lone = tmp_path / "raw" / HIPPOCAMPUS / "labelsTr/lone.nii.gz"
    shutil.copy(next(lone.parent.iterdir()), lone)
    caplog.clear()
    assert run(*command) == 0
    assert "lone.nii.gz: no image has this name" in caplog.text
    shutil.copy(files[1], files[0])
    caplog.clear()
    assert run(*command) == 2  # its labels lie elsewhere
    assert "shows the same image as" in caplog.text
    assert files[0] in read


def test_a_plan_of_native_spacing_resamples_nothing(planned: Path, tmp_path: Path, run):
    raw = planned / "raw" / HEART
    options = ("--spacing", "native", "--memory-gb", 0.03, "-np", 1, "--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", raw, *options) == 0
    folder = tmp_path / "preprocessed" / HEART / "cases"
    for path in folder.glob("*.json"):
        geometry = open_case(folder, path.stem).header.geometry
        assert geometry.shape == geometry.cropped_shape


def test_from_raw_to_scores(planned: Path, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str]):
    assert run(train.main, "-d", "Hippocampus", "-f", 0, "--max-steps", 3, *quick, "--data", planned) == 0
    model = planned / "results" / HIPPOCAMPUS / "spad_unet_tiny" / "fold_0"
    assert list(load_model(model).tasks) == [HIPPOCAMPUS]
    assert [row["step"] for row in read_rows(model / "curves.csv")] == ["0", "1", "2"]
    assert (model / "curves.png").is_file()
    assert "model after 3 steps" in (model / "training.log").read_text()
    assert json.loads((model / "spadunet_train.json").read_text())["options"]["max_steps"] == 3
    splits = json.loads((planned / "preprocessed" / HIPPOCAMPUS / "splits_final.json").read_text())
    scores = Scores.from_json((model / "validation" / HIPPOCAMPUS / "scores.json").read_text())
    assert [case.case for case in scores.cases] == sorted(splits[0]["val"])
    assert not set(splits[0]["val"]) & set(splits[0]["train"])

    images, labels = planned / "raw" / HIPPOCAMPUS / "imagesTr", planned / "raw" / HIPPOCAMPUS / "labelsTr"
    output = tmp_path / "predictions"
    assert run(predict.main, "-i", images, "-o", output, "-d", 4, "-f", 0, "-device", "cpu", "--data", planned) == 0
    assert_label_maps_fit(images, output, 6)
    assert not (output / UNFINISHED_FILE).exists()
    capsys.readouterr()
    assert run(evaluate.main, "-p", output, "-r", labels, "-np", 1) == 0
    assert "Anterior" in capsys.readouterr().out


def test_the_same_commands_work_unchanged_on_2d_images(planned: Path, tmp_path: Path, run, quick):
    assert run(train.main, "-d", "Slices", "--max-steps", 2, *quick, "--data", planned) == 0
    images = planned / "raw" / SLICES / "imagesTr"
    assert {read_image([path]).shape[0] for path in images.iterdir()} == {1}
    assert run(predict.main, "-i", images, "-o", tmp_path, "-d", "Slices", "--data", planned) == 0
    assert_label_maps_fit(images, tmp_path, 12)
    model = load_model(planned / "results" / SLICES / "spad_unet_tiny" / "fold_0")
    assert {row["da"] for row in read_rows(planned / "results" / SLICES / "spad_unet_tiny/fold_0/curves.csv")} == {"6"}
    assert model.tasks[SLICES].plan.patch_size_voxels[0] == 1


def test_slices_of_one_patient_are_never_on_both_sides_of_a_split(planned: Path):
    splits = make_splits(load_dataset(planned / "raw" / SLICES))
    assert len(splits) >= 2
    for split in splits:
        train_patients, val_patients = ({name.split("_ph")[0] for name in split[side]} for side in ("train", "val"))
        assert not train_patients & val_patients


def test_bare_train_and_predict_take_what_was_made_last_and_say_which(
    planned: Path, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture
):
    workspace = tmp_path / "workspace"
    shutil.copytree(planned / "raw", workspace / "raw")
    shutil.copytree(planned / "preprocessed", workspace / "preprocessed")
    for minute, name in enumerate((SLICES, HIPPOCAMPUS, HEART)):
        os.utime(workspace / "preprocessed" / name / "plan.json", (60 * minute, 60 * minute))
    assert run(train.main, "-f", "all", "--max-steps", 1, *quick, "--data", workspace) == 0
    assert f"dataset: {HEART}, planned last" in caplog.text
    images = workspace / "raw" / HEART / "imagesTr"
    assert run(predict.main, "-i", images, "-o", tmp_path / "out", "--data", workspace) == 0
    assert f"model {workspace / 'results' / HEART / 'spad_unet_tiny' / 'fold_all'}, task {HEART}, on" in caplog.text
    assert_label_maps_fit(images, tmp_path / "out", 5)


def test_a_dataset_planned_by_path_is_found_again_by_name_and_by_being_last(
    planned: Path, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture
):
    elsewhere = planned / "raw" / SLICES
    assert run(plan_and_preprocess.main, "-d", elsewhere, "--memory-gb", 0.03, "-np", 1, "--data", tmp_path) == 0
    for words in ((), ("-d", "Slices"), ("-d", 202)):
        options = ("-f", "all", "--max-steps", 1, "--restart", *quick, "--data", tmp_path)
        assert run(train.main, *words, *options) == 0
    assert f"dataset: {SLICES}, planned last" in caplog.text


def test_two_datasets_train_one_backbone_and_each_is_predicted_by_its_task(
    joint_model: Path, planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    model = load_model(joint_model)
    assert list(model.tasks) == [HIPPOCAMPUS, HEART]
    assert len(list(joint_model.rglob("backbone.safetensors"))) == 1
    assert not (joint_model / "validation").exists()  # nothing is held out with -f all
    for number, name, num_cases in ((4, HIPPOCAMPUS, 6), (101, HEART, 5)):
        images, output = planned / "raw" / name / "imagesTr", tmp_path / name
        assert run(predict.main, "-i", images, "-o", output, "-m", joint_model, "-d", number, "--overlap", 0) == 0
        assert_label_maps_fit(images, output, num_cases)
    capsys.readouterr()
    assert run(predict.main, "-i", planned / "raw" / HEART / "imagesTr", "-o", tmp_path, "-m", joint_model) == 2
    assert "say which with -d" in capsys.readouterr().err


def test_prediction_does_not_depend_on_whether_it_is_repeated_or_continued(
    joint_model: Path, planned: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture
):
    images = planned / "raw" / HEART / "imagesTr"
    command = ("-i", images, "-o", tmp_path, "-m", joint_model, "-d", 101, "-device", "cpu", "--overlap", 0)
    assert run(predict.main, *command) == 0
    first = {path.name: read_label_map(path).array for path in tmp_path.glob("*.nii.gz")}
    removed = sorted(tmp_path.glob("*.nii.gz"))[0]
    removed.unlink()
    assert run(predict.main, *command, "--continue") == 0
    assert "4 of 5 label maps are there already and kept" in caplog.text
    assert np.array_equal(read_label_map(removed).array, first[removed.name])
    caplog.clear()
    assert run(predict.main, *command) == 0
    assert "kept" not in caplog.text
    for path in tmp_path.glob("*.nii.gz"):
        assert np.array_equal(read_label_map(path).array, first[path.name])


def test_label_maps_of_an_earlier_run_never_pass_as_those_of_an_interrupted_one(
    joint_model: Path, planned: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
):
    images = planned / "raw" / HEART / "imagesTr"
    command = ("-i", images, "-o", tmp_path, "-m", joint_model, "-d", 101, "-device", "cpu")
    assert run(predict.main, *command, "--overlap", 0) == 0

    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)  # as a batch system does
        time.sleep(10)

    with monkeypatch.context() as patch:
        patch.setattr("spadunet.inference.pipeline.segment", stop)
        assert run(predict.main, *command, "--overlap", 0.25) == 130
    assert not list(tmp_path.glob("*.nii.gz"))
    assert (tmp_path / "spadunet_predict.unfinished").is_file()
    assert (tmp_path / "spadunet_predict.log").read_text().endswith("stopped; the same command goes on from here\n")


def test_hand_drawn_label_maps_are_not_written_over(
    joint_model: Path, planned: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    raw = tmp_path / HEART
    shutil.copytree(planned / "raw" / HEART, raw)
    before = {path.name: path.read_bytes() for path in (raw / "labelsTr").iterdir()}
    options = ("-i", raw / "imagesTr", "-o", raw / "labelsTr", "-m", joint_model, "-d", 101, "-device", "cpu")
    for more in ((), ("--continue",)):
        assert run(predict.main, *options, *more) == 2
        assert "which spadunet_predict did not write; give another folder" in capsys.readouterr().err
    assert not (raw / "labelsTr/labels.json").exists()
    assert {name: (raw / "labelsTr" / name).read_bytes() for name in before} == before


def test_cases_of_another_plan_are_not_trained_on(
    planned: Path, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(planned, tmp_path / "data")
    assert run(plan.main, "-d", 4, "--spacing", 2, 2, 2, "-np", 1, "--data", tmp_path / "data") == 0
    command = ("-d", 4, "--max-steps", 1, *quick, "-o", tmp_path / "model", "--data", tmp_path / "data")
    assert run(train.main, *command) == 2
    assert "made by another plan; run spadunet_preprocess -d Dataset004_Hippocampus" in capsys.readouterr().err


def test_patches_of_another_size_need_no_new_cases(planned: Path, tmp_path: Path, run, caplog):
    shutil.copytree(planned, tmp_path / "data")
    options = ("-d", 4, "--memory-gb", 0.02, "-np", 1, "--data", tmp_path / "data")
    assert run(plan_and_preprocess.main, *options) == 0
    assert "0 cases made, 6 kept" in caplog.text


def test_a_sixth_fold_is_trained_where_the_splits_have_one(
    planned: Path, tmp_path: Path, run, quick, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(planned, tmp_path / "data")
    names = sorted(path.stem for path in (tmp_path / "data/preprocessed" / HIPPOCAMPUS / "cases").glob("*.json"))
    splits = [{"train": [other for other in names if other != name], "val": [name]} for name in names]
    (tmp_path / "data/preprocessed" / HIPPOCAMPUS / "splits_final.json").write_text(json.dumps(splits))
    command = ("-d", 4, "--max-steps", 1, *quick, "-o", tmp_path / "model", "--data", tmp_path / "data")
    assert run(train.main, *command, "-f", 6) == 2
    assert run(train.main, *command, "-f", 5) == 0
    assert [path.name for path in (tmp_path / "model/validation" / HIPPOCAMPUS).glob("*.nii.gz")] == [
        f"{names[5]}.nii.gz"
    ]
    assert (tmp_path / "model/validation" / HIPPOCAMPUS / "summary.json").is_file()


def test_a_run_starts_from_a_models_weights(
    joint_model: Path, planned: Path, tmp_path: Path, run, quick, caplog: pytest.LogCaptureFixture
):
    options = ("--init", joint_model, "--max-steps", 1, "--learning-rate", "1e-30", "-f", "all", "-o", tmp_path)
    assert run(train.main, "-d", 101, 202, *options, *quick, "--data", planned) == 0
    for name in (HEART, SLICES):  # slices of a channel and a class of the same name
        assert re.search(rf"^{name} channel_map +loaded +2 +6$", caplog.text, re.MULTILINE)
        assert re.search(rf"^{name} heads +loaded +2 +34$", caplog.text, re.MULTILINE)
    assert "of 5,710,832 parameters: 100.0 % loaded" in caplog.text
    before, after = load_model(joint_model), load_model(tmp_path)
    for name, value in before.backbone_state.items():
        found = after.backbone_state[name]  # before a norm it may have been scaled down
        assert found.norm() <= value.norm() * (1 + 1e-5)
        assert np.allclose(value / value.norm(), found / found.norm(), atol=1e-6), name
    behind = read_model_record(tmp_path).provenance["earlier_runs"]
    assert behind.startswith(f"datasets={HIPPOCAMPUS} {HEART}, fold=all, ")


def test_info_lists_datasets_and_models(joint_model: Path, planned: Path, run, capsys: pytest.CaptureFixture[str]):
    assert run(info.main, "--data", planned) == 0
    out = capsys.readouterr().out
    assert f"{planned.resolve()} (from --data)" in out
    assert f"{HIPPOCAMPUS}  (planned)" in out
    assert f"{joint_model.relative_to(planned / 'results')}  (spad_unet tiny, 3 steps)" in out


# --- going on with a run, or not


@pytest.fixture
def command(planned: Path, tmp_path: Path, quick) -> tuple[object, ...]:
    """A run of two steps into a folder of its own."""
    return ("-d", 4, "-f", "all", "--max-steps", 2, "-o", tmp_path / "model", *quick, "--data", planned)


def test_an_interrupted_run_goes_on_with_the_same_command(
    command, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, caplog, capsys: pytest.CaptureFixture[str]
):
    real, calls = loop.train_step, []

    def interrupted(*arguments: object) -> float:
        calls.append(arguments)
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        assert run(train.main, *command) == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert not (tmp_path / "model/model.json").exists()
    assert run(train.main, *command) == 0
    assert "going on after step 1" in caplog.text
    assert [row["step"] for row in read_rows(tmp_path / "model/curves.csv")] == ["0", "1"]


def test_a_finished_run_is_not_overwritten_unless_told(command, run, caplog, capsys: pytest.CaptureFixture[str]):
    assert run(train.main, *command) == 0
    assert run(train.main, *command) == 2
    assert "trained already (2 steps); --restart to start anew, or -o for another" in capsys.readouterr().err
    assert run(train.main, *command, "--c") == 0  # nothing is left to do
    caplog.clear()
    assert run(train.main, *command, "--restart") == 0
    assert "going on" not in caplog.text


def test_a_run_that_died_between_its_last_step_and_its_model_is_completed(command, tmp_path: Path, run, monkeypatch):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spadunet.training.train.save_model", die)
        assert run(train.main, *command) == 130
    assert not (tmp_path / "model/model.json").exists()
    assert run(train.main, *command) == 0
    assert load_model(tmp_path / "model").provenance["steps"] == "2"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--seed", 1), "an earlier run had seed 0, not 1"),
        (("--init", "{joint_model}"), "an earlier run had init None, not "),
        (("--preset", "small"), "an earlier run had preset tiny, not small"),
        (("--max-steps", 3), "an earlier run had max_steps 2, not 3"),
        (("--max-minutes", 3), "an earlier run had max_minutes None, not 3.0"),
        (("--learning-rate", 0.1), "an earlier run had learning_rate 0.003, not 0.1"),
        (("--weight-decay", 0.1), "an earlier run had weight_decay 0.01, not 0.1"),
        (("--batch-size", 2), "an earlier run had batch_size 1, not 2"),
        (("--precision", "bf16"), "an earlier run had precision torch.float32, not torch.bfloat16"),
        (("-f", "0"), "an earlier run had fold all, not 0"),
        (("-d", "4", "101"), f"an earlier run had datasets {HIPPOCAMPUS}, not {HIPPOCAMPUS} {HEART}"),
    ],
)
def test_a_run_with_other_wishes_is_not_gone_on_with(
    joint_model: Path, command, run, changed, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(train.main, *command) == 0
    before = (tmp_path / "model/state/checkpoint.safetensors").read_bytes()
    assert run(train.main, *command, *(str(word).format(joint_model=joint_model) for word in changed)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "--restart to start anew, or another folder with -o" in error
    assert (tmp_path / "model/state/checkpoint.safetensors").read_bytes() == before


def test_a_model_survives_a_restart_that_cannot_start(
    command, joint_model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(joint_model, tmp_path / "model")
    before = sha256_of_file(tmp_path / "model/backbone.safetensors")
    for wrong in (("--init", tmp_path / "none"), ("-f", 7), ("--init", joint_model, "--preset", "small")):
        assert run(train.main, *command, "--restart", *wrong) == 2
    assert load_model(tmp_path / "model").tasks
    assert sha256_of_file(tmp_path / "model/backbone.safetensors") == before
    assert (tmp_path / "model/state/checkpoint.safetensors").is_file()
    assert "-f 7" in capsys.readouterr().err


def test_a_run_goes_on_when_the_model_it_started_from_is_gone(
    command, joint_model: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(joint_model, tmp_path / "pretrained")
    init = ("--init", tmp_path / "pretrained")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spadunet.training.train.save_model", die)
        assert run(train.main, *command, *init) == 130
    shutil.rmtree(tmp_path / "pretrained")
    assert run(train.main, *command, *init) == 0
    assert "fold=all" in read_model_record(tmp_path / "model").provenance["earlier_runs"]


def test_names_that_make_too_long_a_folder_name_are_told(
    planned: Path, run, quick, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("spadunet.cli.train_place.MAX_NAME_BYTES", 40)
    assert run(train.main, "-d", 4, 101, "--max-steps", 1, *quick, "--data", planned) == 2
    assert "the names of 2 datasets make too long a folder name; name one with -o" in capsys.readouterr().err


def test_continue_without_a_run_is_an_error(command, run, capsys: pytest.CaptureFixture[str]):
    assert run(train.main, *command, "--c") == 2
    assert "no run to go on with; leave --c out to start one" in capsys.readouterr().err
