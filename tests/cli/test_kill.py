"""kill -9 in the middle of a real process, then the same command again: it goes on, and nothing half-written stays.

The process kills itself while a chosen file is written but has not got its name yet: the worst moment there is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import spadunet
from spadunet.image import read_label_map
from spadunet.model import load_model
from spadunet.tensors import read_tensors
from spadunet.training.curves import read_rows

pytestmark = pytest.mark.slow

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"
LABELS = Path(spadunet.__file__).parent / "demo/data" / HIPPOCAMPUS / "labelsTs"

COMMAND = """
import sys
from spadunet.cli.{command} import main
main(sys.argv[1:])
"""
KILLED = """
import os, signal
real, count = os.replace, 0
def replace(source, target):
    global count
    count += str(target).endswith({ending!r})
    if count == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
"""

KILLED_PARENT = """
import contextlib, multiprocessing, os, signal, sys, time
real, count = os.replace, 0
def replace(source, target):
    global count
    count += str(target).endswith(".classes.b2nd")
    parent = multiprocessing.parent_process()
    if parent is not None and count == 2:
        with contextlib.suppress(ProcessLookupError):
            os.kill(parent.pid, signal.SIGKILL)
        time.sleep(200)
    real(source, target)
os.replace = replace
if __name__ == "__main__":
    from spadunet.cli.preprocess import main
    main(sys.argv[1:])
"""
"""Worker processes run this file too: the first to write its second case kills the parent, and then hangs."""

KILLED_SCORING = """
import os, signal
from spadunet.evaluation.partial import KeptScores
real, count = KeptScores.add, 0
def add(self, pair, score):
    global count
    count += 1
    if count == 5:
        self.file.write(b'{"files": [["')
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, pair, score)
KeptScores.add = add
"""
"""In the middle of the fifth line."""


def start(code: str | Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code, or a file of it, in a process of its own, on one core."""
    source = [str(code)] if isinstance(code, Path) else ["-c", code]
    command = [sys.executable, *source, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def run_killed(command: str, ending: str, number: int, *arguments: object) -> None:
    """Run a command that is killed while it writes the file of this ending and number."""
    code = KILLED.format(ending=ending, number=number) + COMMAND.format(command=command)
    assert start(code, *arguments).returncode == -signal.SIGKILL


def run_through(command: str, *arguments: object) -> str:
    """Run a command to its end; what it said."""
    done = start(COMMAND.format(command=command), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def partial_files(folder: Path) -> list[Path]:
    """What was being written."""
    return list(folder.rglob(".partial-*"))


@pytest.mark.parametrize("ending", [".b2nd", ".json"])
def test_preprocessing_goes_on_and_keeps_the_finished_cases(
    make_raw: Callable[[Path], Path], tmp_path: Path, ending: str
):
    workspace = make_raw(tmp_path)
    common = ("-d", 4, "-np", 1, "--data", workspace)
    run_through("plan", *common, "--memory-gb", 0.03)
    cases = workspace / "preprocessed" / HIPPOCAMPUS / "cases"
    run_killed("preprocess", ending, 6 if ending == ".b2nd" else 3, *common)  # in the third case
    assert partial_files(cases)
    before = {path: path.stat().st_mtime_ns for path in cases.glob("*.json") if not path.name.startswith(".")}
    assert len(before) == 2
    assert "4 cases made, 2 kept" in run_through("preprocess", *common)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list(cases.glob("*.json"))) == 6
    assert not partial_files(workspace)


def test_preprocessing_in_two_processes_goes_on_after_the_parent_was_killed(
    make_raw: Callable[[Path], Path], tmp_path: Path
):
    workspace = make_raw(tmp_path)
    common = ("-d", 4, "-np", 2, "--data", workspace)
    run_through("plan", *common, "--memory-gb", 0.03)
    script = tmp_path / "killed.py"
    script.write_text(KILLED_PARENT)
    cases = workspace / "preprocessed" / HIPPOCAMPUS / "cases"
    done = start(script, *common)  # returns when the workers are gone too
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert partial_files(cases)
    num_kept = len([path for path in cases.glob("*.json") if not path.name.startswith(".")])
    assert num_kept in (1, 2)
    assert f"{6 - num_kept} cases made, {num_kept} kept" in run_through("preprocess", *common)
    assert len(list(cases.glob("*.json"))) == 6
    assert not partial_files(workspace)


def test_evaluation_goes_on_to_the_same_scores_and_scores_only_the_rest(tmp_path: Path):
    common = ("-p", LABELS, "-r", LABELS, "-np", 1, "--metrics", "dice", "hd")
    run_through("evaluate", *common, "-o", tmp_path / "whole")
    killed = start(KILLED_SCORING + COMMAND.format(command="evaluate"), *common, "-o", tmp_path / "parts")
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "parts/scores.json").exists()
    assert "going on: 4 of 10 cases have been scored before" in run_through(
        "evaluate", *common, "-o", tmp_path / "parts"
    )
    for name in ("scores.json", "scores.csv", "summary.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.rglob("*.partial*"))


def test_training_goes_on_to_the_same_losses_and_weights(planned: Path, tmp_path: Path, quick):
    arguments = ("-d", 4, 101, "-f", "all", "--max-steps", 6, "--checkpoint-minutes", 1e-9, *quick, "--data", planned)
    run_through("train", *arguments, "-o", tmp_path / "whole")
    run_killed("train", "checkpoint.safetensors", 4, *arguments, "-o", tmp_path / "parts")
    assert partial_files(tmp_path / "parts")
    assert not (tmp_path / "parts/model.json").exists()
    assert "going on after step 3" in run_through("train", *arguments, "-o", tmp_path / "parts")
    curves = [
        [(row["step"], row["task"], row["loss"]) for row in read_rows(tmp_path / name / "curves.csv")]
        for name in ("whole", "parts")
    ]
    assert len(curves[0]) == 6
    assert curves[0] == curves[1]
    weights = [read_tensors(tmp_path / name / "backbone.safetensors") for name in ("whole", "parts")]
    assert all(bool((value == weights[1][name]).all()) for name, value in weights[0].items())
    assert not partial_files(tmp_path)


@pytest.mark.parametrize("ending", ["task.json", "spadunet_train.json"])
def test_a_run_killed_while_its_model_is_written_is_completed(planned: Path, tmp_path: Path, quick, ending: str):
    arguments = ("-d", 4, "-f", "all", "--max-steps", 1, *quick, "-o", tmp_path, "--data", planned)
    run_killed("train", ending, 1, *arguments)
    run_through("train", *arguments)
    assert list(load_model(tmp_path).tasks) == [HIPPOCAMPUS]
    assert (tmp_path / "spadunet_train.json").is_file()
    assert not partial_files(tmp_path)


def test_prediction_goes_on_and_keeps_the_finished_label_maps(joint_model: Path, planned: Path, tmp_path: Path):
    images = planned / "raw" / HEART / "imagesTr"
    arguments = ("-i", images, "-o", tmp_path, "-m", joint_model, "-d", 101, "-device", "cpu", "--overlap", 0)
    run_killed("predict", ".nii.gz", 3, *arguments)
    assert partial_files(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nii.gz") if not path.name.startswith(".")}
    assert len(before) == 2
    assert "2 of 5 label maps are there already and kept" in run_through("predict", *arguments)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    written = list(tmp_path.glob("*.nii.gz"))
    assert len(written) == 5
    assert all(read_label_map(path).array.size for path in written)
    assert not partial_files(tmp_path)
    assert not (tmp_path / "spadunet_predict.unfinished").exists()
