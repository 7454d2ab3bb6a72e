"""What both pre-training commands share, with a toy for the stage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_pretrain
from small_corpus import make_corpus, noise

from spadunet.tensors import read_tensors
from spadunet.training.curves import read_rows
from spadunet.training.state import read_progress

COMMON = ("-device", "cpu", "--precision", "float32", "--num-workers", 0)
CHECKPOINT = "state/checkpoint.safetensors"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one corpus: volumes and 2D pictures."""
    folder = tmp_path_factory.mktemp("workspace")
    images = {
        "cubes": (noise(1, 20, 24, 24), (1, 1, 1)),
        "thick": (noise(1, 9, 24, 24), (4.5, 1, 1)),
        "colour": (noise(3, 1, 40, 30), (1, 1, 1)),
    }
    make_corpus(folder / "corpora" / "small", images)
    return folder


@pytest.fixture
def call(workspace: Path, run):
    """The toy command on the workspace; its exit code."""

    def call(*arguments: object) -> int:
        return run(toy_pretrain.main, *COMMON, "--data", workspace, *arguments)

    return call


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C in a step."""
    real, calls = toy_pretrain.ImageStage.learn, 0

    def learn(self, batch):
        nonlocal calls
        calls += 1
        if calls == step + 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, batch)

    monkeypatch.setattr(toy_pretrain.ImageStage, "learn", learn)


def test_a_run_leaves_its_result_log_curves_and_manifest(call, workspace: Path, capsys, caplog):
    assert call() == 0
    folder = workspace / "results/pretraining/toy_tiny"
    assert "corpus: small, the only one" in caplog.text
    log = (folder / "training.log").read_text()
    assert "pre-training on small, preset tiny, cpu, torch.float32" in log
    manifest = json.loads((folder / "toy_pretrain.json").read_text())
    assert (manifest["command"], manifest["options"]["batch_size"]) == ("toy_pretrain", 4)
    assert [row["step"] for row in read_rows(folder / "curves.csv")] == ["0", "1", "2", "3", "4"]
    assert (folder / "picture.txt").read_text() == "5"
    progress = read_progress(folder / CHECKPOINT)
    assert (progress.step, progress.run["corpus"], progress.run["extra"]) == (5, "small", "1")
    assert call() == 2
    assert "trained already (5 steps); --restart to start anew, or -o for another" in capsys.readouterr().err
    assert call("--restart", "--max-steps", 2) == 0
    assert read_progress(folder / CHECKPOINT).step == 2


def test_a_stopped_run_goes_on_with_the_same_command_only(call, tmp_path: Path, monkeypatch, capsys):
    assert call("-c", "small", "-o", tmp_path / "whole") == 0
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        assert call("-o", tmp_path / "parts") == 130
    assert "stopped; the same command goes on from here" in capsys.readouterr().err
    assert call("-o", tmp_path / "parts", "--batch-size", 6) == 2
    assert "an earlier run had batch_size 4, not 6; give the same options to go on" in capsys.readouterr().err
    assert call("-o", tmp_path / "parts") == 0
    assert "going on after step 3" in (tmp_path / "parts/training.log").read_text()
    whole, parts = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.parametrize("typed", [(), ("--restart",)])
def test_a_second_run_changes_nothing_of_one_that_just_begins(typed, call, tmp_path: Path, monkeypatch, capsys):
    kept = [tmp_path / "toy_pretrain.json", *([tmp_path / "state/run.json"] if typed else [])]
    (tmp_path / "state").mkdir()
    for path in kept:
        path.write_text("of the first")
    real, codes = toy_pretrain.ImageStage, []

    def meanwhile(ranks):
        monkeypatch.setattr(toy_pretrain, "ImageStage", real)
        codes.append(call("-o", tmp_path, *typed))
        assert [path.read_text() for path in kept] == ["of the first"] * len(kept)
        return real(ranks)

    monkeypatch.setattr(toy_pretrain, "ImageStage", meanwhile)
    assert call("-o", tmp_path, *typed) == 0
    assert codes == [2]
    assert "this run is going on" in capsys.readouterr().err
    assert read_progress(tmp_path / CHECKPOINT).step == 5


def test_a_run_goes_on_without_an_image_that_has_gone_and_a_new_one_does_not_start(
    call, workspace: Path, tmp_path: Path, monkeypatch, capsys, caplog
):
    shutil.copytree(workspace / "corpora/small", tmp_path / "corpus")
    options = ("-c", tmp_path / "corpus", "-o", tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        assert call(*options) == 130
    (tmp_path / "corpus/images/thick.b2nd").unlink()
    assert call(*options) == 0
    assert read_progress(tmp_path / "run" / CHECKPOINT).step == 5
    assert "thick.b2nd: not found (1 of 3 are missing); other images take their place" in caplog.text
    capsys.readouterr()
    assert call("-c", tmp_path / "corpus", "-o", tmp_path / "new") == 2
    assert "thick.b2nd: not found (1 of 3 are missing); run the spadunet_index" in capsys.readouterr().err


def test_the_papers_recipe_sets_every_number_and_explicit_options_win(call, tmp_path: Path, monkeypatch):
    seen = []

    def note(stage, batches, folder, options, ranks, **_):
        seen.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(toy_pretrain, "pretrain", note)
    assert call("--recipe", "paper", "--batch-size", 8, "-o", tmp_path) == 130
    (options,) = seen
    assert (options.max_steps, options.batch_size, options.warm_up_share) == (9, 8, 0.2)
    log = (tmp_path / "training.log").read_text()
    assert "preset base" in log
    assert "not as published: --batch-size 8, not 6" in log


def test_minutes_alone_set_no_number_of_steps(call, tmp_path: Path):
    assert call("--max-minutes", 1e-6, "-o", tmp_path) == 0
    assert read_progress(tmp_path / CHECKPOINT).run["max_steps"] == "None"


def test_a_dry_run_tells_images_by_dataset_and_degree_and_writes_nothing(call, workspace: Path, tmp_path: Path, capsys):
    before = sorted(workspace.rglob("*"))
    assert call("--dry-run", "-o", tmp_path / "new") == 0
    out = capsys.readouterr().out
    assert "3 images to learn from" in out
    assert "a toy" in out
    assert "toy tiny, 5 steps, batches of 4 crops over 1 × cpu, torch.float32" in out
    assert "DA 0" in out and "DA 2" in out and "DA 6" in out
    assert "16×16×16" in out
    assert "memory" in out
    assert sorted(workspace.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_without_a_corpus_one_line_says_how_to_make_one(run, tmp_path: Path, capsys):
    assert run(toy_pretrain.main, *COMMON, "--data", tmp_path) == 2
    assert f"error: {tmp_path / 'corpora'}: no corpus; make one with spadunet_index" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_with_workers_stop_together_and_give_the_weights_of_one(workspace: Path, tmp_path: Path, call):
    """torchrun as it is, with worker processes; a wrong batch size is one line."""

    def two(*arguments: object) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        options = ("-device", "cpu", "--precision", "float32", "--num-workers", 1, "--data", workspace)
        command = [*launcher, toy_pretrain.__file__, *map(str, (*options, *arguments))]
        return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)

    done = two("-o", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert call("-o", tmp_path / "one") == 0
    one, both = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
    assert all((value - both[name]).abs().max() < 1e-12 for name, value in one.items())
    wrong = two("-o", tmp_path / "three", "--batch-size", 3)
    assert wrong.returncode != 0
    told = [line for line in wrong.stderr.splitlines() if line.startswith("toy_pretrain.py")]
    assert told == ["toy_pretrain.py: error: --batch-size 3: 2 processes cannot share it evenly; give a multiple of 2"]


@pytest.mark.slow
def test_sigterm_to_all_processes_and_their_workers_saves_the_run(workspace: Path, tmp_path: Path):
    """As torchrun and batch systems send it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ("-device", "cpu", "--precision", "float32", "--num-workers", 1, "--data", workspace)
    command = [*launcher, toy_pretrain.__file__, *map(str, (*options, "-o", tmp_path, "--max-steps", 10**6))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while len(read_rows(tmp_path / "curves.csv")) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=90)
    assert "toy_pretrain.py: stopped; the same command goes on from here" in errors
    assert read_progress(tmp_path / CHECKPOINT).step >= 3
