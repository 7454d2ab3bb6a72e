"""Real runs leave a page that shows them, and spadunet_runs lists them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from html_page import PageReader, read_page

from spadunet.cli import runs, train
from spadunet.scores import Scores
from spadunet.training import follow, loop
from spadunet.training.curves import read_rows

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"


def page_of(folder: Path) -> PageReader:
    """What stands on a run's page."""
    return read_page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def jointly_validated(planned: Path, run, quick, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hippocampus and slices through one backbone, fold 0, four steps."""
    folder = tmp_path_factory.mktemp("runs") / "joint"
    names = ("-d", HIPPOCAMPUS, SLICES, "-f", 0)
    assert run(train.main, *names, "--max-steps", 4, *quick, "--data", planned, "-o", folder) == 0
    return folder


def test_a_real_run_shows_its_scores_curves_plans_and_pictures(jointly_validated: Path):
    reader = page_of(jointly_validated)
    assert {"Finished", "4 of 4"} <= set(reader.words)
    num_pictures = 0
    for name in (HIPPOCAMPUS, SLICES):
        folder = jointly_validated / "validation" / name
        scores = Scores.from_json((folder / "scores.json").read_text())
        rows = {row[0]: row for table in reader.tables for row in table if len(row) == 9}
        for label, summary in scores.summary().items():
            dice = "-" if summary.dice is None else f"{summary.dice:.4f}"
            counts = (summary.num_cases, summary.num_valid, summary.num_missed, summary.num_false_alarms)
            assert (rows[label][1], *map(int, rows[label][5:])) == (dice, *counts)
        assert all(score.case in " ".join(reader.words) for score in scores.cases)
        num_pictures += len(list((folder / "overlays").iterdir()))
    assert len(reader.images) == num_pictures >= 3 + 1
    assert [row["step"] for row in read_rows(jointly_validated / "curves.csv")] == ["0", "1", "2", "3"]
    facts = reader.facts()
    assert (facts["backbone"], facts["preset"], facts["fold"], facts["max steps"]) == ("spad_unet", "tiny", "0", "4")
    assert facts["device"].startswith("cpu")
    assert facts["torch"]


def test_a_run_on_all_cases_has_a_page_without_validation(joint_model: Path):
    reader = page_of(joint_model)
    assert "No case was held out (fold all), so there is no validation." in reader.words
    assert f"Training: {HIPPOCAMPUS}, {HEART}, fold all" in reader.words


def test_runs_are_listed_as_a_table_and_as_json(joint_model: Path, jointly_validated: Path, run, capsys):
    capsys.readouterr()
    results = joint_model.parents[2]
    assert run(runs.main, results, jointly_validated) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("state", "kind", "data", "network", "fold", "steps", "minutes", "score", "changed", "folder")
    ]
    joint = next(line for line in lines if f"{HIPPOCAMPUS}+{HEART}" in line.split())
    assert re.match(rf"finished +train +{HIPPOCAMPUS}\+{HEART} +spad_unet tiny +all +3/3 +\d+\.\d +- ", joint)
    assert run(runs.main, "--json", jointly_validated) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["state"], found["steps"]) == (str(jointly_validated), "finished", 4)
    scores = [Scores.from_json(path.read_text()) for path in jointly_validated.glob("validation/*/scores.json")]
    assert found["dice"] == pytest.approx(sum(score.mean("dice") or 0 for score in scores) / 2)
    assert run(runs.main, "--data", joint_model.parents[3], "--json") == 0
    assert str(joint_model) in {entry["folder"] for entry in json.loads(capsys.readouterr().out)}


def test_nothing_to_list_is_said_and_a_folder_that_is_not_there_is_an_error(tmp_path: Path, run, capsys):
    assert run(runs.main, "--data", tmp_path) == 0
    assert f"no runs in {tmp_path / 'results'}" in capsys.readouterr().out
    assert run(runs.main, "--data", tmp_path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert run(runs.main, tmp_path / "nowhere") == 2
    assert "folder not found" in capsys.readouterr().err


def test_an_interrupted_run_is_shown_as_such_and_as_finished_when_it_went_on(
    planned: Path, run, quick, tmp_path: Path, monkeypatch, capsys
):
    command = ("-d", SLICES, "-f", "all", "--max-steps", 4, *quick, "--data", planned, "-o", tmp_path)
    real = loop.train_step

    def stop(*arguments: object) -> float:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stop)
        assert run(train.main, *command) == 130
    assert {"Interrupted", "1 of 4"} <= set(page_of(tmp_path).words)
    assert run(runs.main, tmp_path) == 0
    assert "interrupted  train" in capsys.readouterr().out
    assert run(train.main, *command) == 0
    reader = page_of(tmp_path)
    assert {"Finished", "4 of 4"} <= set(reader.words)
    assert "gone on with 1 times" in reader.facts()["started"]


def test_a_run_that_fails_says_why_on_its_page_and_in_the_list(
    planned: Path, run, quick, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr(loop, "train_step", lambda *_: float("nan"))
    command = ("-d", SLICES, "-f", "all", "--max-steps", 4, *quick, "--data", planned, "-o", tmp_path)
    assert run(train.main, *command) == 1
    assert any(word.startswith("the gradient became infinite or nan at step 0") for word in page_of(tmp_path).words)
    capsys.readouterr()
    assert run(runs.main, tmp_path) == 0
    out = capsys.readouterr().out
    assert "failed  train" in out
    assert "\n    the gradient became infinite or nan at step 0" in out


def test_a_page_that_cannot_be_drawn_fails_no_run(planned: Path, run, quick, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(follow, "write_report", lambda folder: 1 / 0)
    command = ("-d", SLICES, "-f", "all", "--max-steps", 1, *quick, "--data", planned, "-o", tmp_path)
    assert run(train.main, *command) == 0
    assert "its page cannot be written (ZeroDivisionError" in caplog.text


def test_listing_loads_no_torch(jointly_validated: Path):
    code = (
        "import sys\nfrom spadunet.cli.runs import main\n"
        f"try:\n    main([{str(jointly_validated)!r}])\n"
        "finally:\n    assert not {'torch', 'monai', 'SimpleITK', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("finished")


@pytest.mark.slow
def test_a_run_in_another_process_is_running_until_it_is_killed(planned: Path, run, quick, tmp_path: Path, capsys):
    code = "import sys\nfrom spadunet.cli.train import main\nmain(sys.argv[1:])"
    words = ("-d", SLICES, "-f", "all", "--max-steps", 100_000, *quick, "--data", planned, "-o", tmp_path / "run")

    def state() -> str:
        capsys.readouterr()
        assert run(runs.main, "--json", tmp_path) == 0
        return "".join(entry["state"] for entry in json.loads(capsys.readouterr().out))

    with subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run/curves.csv").is_file() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert state() == "running"
        process.kill()
    assert state() == "interrupted"
