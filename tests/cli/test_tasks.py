"""The tasks of a model, as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_model import CLASSIFIER, TASKS, make_adapted_model, make_model, shrink_presets

from spadunet.cli import info, tasks
from spadunet.cli.predict_tasks import find_tasks
from spadunet.errors import InputError
from spadunet.files import sha256_of_file
from spadunet.model import MODEL_JSON, load_model, read_model_record, save_model
from spadunet.task import AdapterRecord
from spadunet.training.status import hold


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks that segment, one of them with an adapter, and one that classifies."""
    shrink_presets(monkeypatch)
    save_model(tmp_path / "model", make_adapted_model(AdapterRecord(rank=8)))
    return tmp_path / "model"


def test_a_list_tells_kind_classes_adapter_size_and_training(model: Path, run, capsys: pytest.CaptureFixture[str]):
    assert run(tasks.main, "list", "-m", model) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{model}: spad_unet tiny, ")
    assert lines[1].endswith(read_model_record(model).sha256["backbone.safetensors"])
    first, second, third = lines[3:]
    assert first.split()[:2] == [TASKS[0], "segmentation"]
    assert "left|ear, <b>right" in first
    assert first.endswith("4 cases, 3 steps")
    assert "LoRA of rank 8 (" in second
    assert "9 cases" in second
    assert third.startswith(f"{CLASSIFIER}")
    assert "classification (multi-class)  heart, lung, liver  LoRA of rank 8" in third


def test_a_task_goes_out_and_comes_back_and_a_dry_run_does_nothing(model: Path, tmp_path: Path, run, caplog):
    before = {path: sha256_of_file(path) for path in model.rglob("*") if path.is_file() and path.name != MODEL_JSON}
    file = tmp_path / "organs.task.zip"
    assert run(tasks.main, "export", 303, "-m", model, "-o", file, "--dry-run") == 0
    assert not file.exists()
    assert run(tasks.main, "export", 303, "-m", model, "-o", file) == 0
    assert f"{file}: 0.0" in caplog.text  # MB
    assert run(tasks.main, "remove", "Organs", "-m", model, "--dry-run") == 0
    assert "dry run: nothing was written" in caplog.text
    assert read_model_record(model).classifiers == (CLASSIFIER,)
    assert run(tasks.main, "remove", "Organs", "-m", model) == 0
    assert read_model_record(model).classifiers == ()
    assert run(tasks.main, "import", file, "-m", model, "--dry-run") == 0
    assert read_model_record(model).classifiers == ()
    assert run(tasks.main, "import", file, "-m", model) == 0
    changed = {path for path, digest in before.items() if sha256_of_file(path) != digest}
    assert {path.name for path in changed} <= {"task.json"}  # without paths in what it tells
    assert all(CLASSIFIER in str(path) for path in changed)
    shutil.copytree(model, tmp_path / "bare")
    assert run(tasks.main, "remove", *read_model_record(model).all_tasks, "-m", tmp_path / "bare") == 0
    assert "none is left: a pre-trained backbone" in caplog.text
    assert run(tasks.main, "add", 4, "-m", tmp_path / "bare", "--from", model) == 0
    assert tuple(load_model(tmp_path / "bare").tasks) == TASKS[:1]


def test_a_model_that_is_being_trained_gets_no_task_that_the_training_would_lose(
    model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(model, tmp_path / "bare")
    assert run(tasks.main, "export", 303, "-m", model, "-o", tmp_path / "organs.task.zip") == 0
    assert run(tasks.main, "remove", *read_model_record(model).all_tasks, "-m", tmp_path / "bare") == 0
    with hold(tmp_path / "bare"):
        for words in (("import", tmp_path / "organs.task.zip"), ("add", 4, "--from", model)):
            assert run(tasks.main, *words, "-m", tmp_path / "bare") == 2
            assert f"{tmp_path / 'bare'}: this run is going on" in capsys.readouterr().err
    assert read_model_record(tmp_path / "bare").all_tasks == ()


def test_wrong_use_is_told_in_one_line(model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "evil.zip").write_bytes(b"no zip")
    said = {
        ("remove", "Liver", "-m", model): f"{model}: has no task Liver; its tasks: {TASKS[0]}",
        ("add", 4, "-m", model, "--from", model): f"has a task {TASKS[0]} already, which stays as it is",
        ("export", 4, "-m", model, "-o", tmp_path / "x.pt"): "a shared task is a .zip file; name it x.task.zip",
        ("import", tmp_path / "evil.zip", "-m", model): "refused: ",
        ("list", "-m", tmp_path): "give a model folder",
        (): "the following arguments are required: ACTION",
    }
    for words, message in said.items():
        assert run(tasks.main, *words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1


def test_a_name_or_number_that_fits_several_tasks_removes_none(
    model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    names = (TASKS[0], "Dataset004_Hippocampus_findings", "Dataset104_Hippocampus", "Hippocampus")
    save_model(tmp_path / "alike", make_model(tasks=names))
    assert run(tasks.main, "remove", "Hippocampus", "-m", tmp_path / "alike") == 0
    assert read_model_record(tmp_path / "alike").tasks == names[:3]
    file = tmp_path / "x.task.zip"
    for word, meant in (("Hippocampus", names[::2]), (4, names[:2])):
        told = f"error: {word}: fits several tasks of {tmp_path / 'alike'}: {', '.join(meant)}; give the whole name"
        for words in (
            ("remove", names[1], word, "-m", tmp_path / "alike"),
            ("export", word, "-m", tmp_path / "alike", "-o", file),
            ("add", word, "--from", tmp_path / "alike", "-m", model),
        ):
            assert run(tasks.main, *words) == 2
            assert told in capsys.readouterr().err
    assert read_model_record(tmp_path / "alike").tasks == names[:3]
    assert not file.exists()
    with pytest.raises(InputError, match="--tasks 4: fits several tasks of .*; give the whole name"):
        find_tasks(tmp_path / "alike", ["4"])
    assert find_tasks(tmp_path / "alike", [TASKS[0], names[1]]) == ([TASKS[0], names[1]], [])


def test_a_dry_run_of_an_export_says_what_the_run_would(
    model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    there = tmp_path / "there.zip"
    there.write_bytes(b"x")
    for file in (there, tmp_path / "x.pt", there / "x.zip"):
        said = []
        for words in (("--dry-run",), ()):
            assert run(tasks.main, "export", 4, "-m", model, "-o", file, *words) == 2
            said.append(capsys.readouterr().err)
        assert said[0] == said[1]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "there.zip"}


def test_info_tells_which_tasks_classify(model: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(model, tmp_path / "data/results/organs")
    assert run(info.main, "--data", tmp_path / "data") == 0
    assert f"    tasks: {', '.join(TASKS)}, {CLASSIFIER} (classifies)\n" in capsys.readouterr().out
