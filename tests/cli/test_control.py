"""spadunet_train: fractions, early ends, repeats, the same bits again, and signals to a real process."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from run_folder import score_of, write_validation

from spadunet.cli import train
from spadunet.cli.control_options import check_deterministic
from spadunet.cli.repeats import train_repeats
from spadunet.cli.train_place import usual_preset
from spadunet.dataset import load_dataset
from spadunet.errors import InputError, OutputError
from spadunet.model import load_model
from spadunet.tensors import read_tensors
from spadunet.training import steps
from spadunet.training.curves import read_rows
from spadunet.training.ranks import Ranks
from spadunet.training.repeats import Repeats
from spadunet.training.state import read_progress

HIPPOCAMPUS = "Dataset004_Hippocampus"
CHECKPOINT = "state/checkpoint.safetensors"


@pytest.fixture
def workspace(planned: Path, tmp_path: Path) -> Path:
    """One planned dataset of six patients, whose results are this test's own."""
    for part in ("raw", "preprocessed"):
        shutil.copytree(planned / part / HIPPOCAMPUS, tmp_path / "data" / part / HIPPOCAMPUS)
    return tmp_path / "data"


# --- fractions


def test_a_fraction_has_a_folder_of_its_own_and_is_part_of_what_was_asked_for(
    workspace: Path, run, quick, caplog, capsys: pytest.CaptureFixture[str]
):
    command = ("-d", 4, "--max-steps", 1, *quick, "--data", workspace)
    assert run(train.main, *command, "--fraction", 0.5, "--fraction-seed", 3) == 0
    folder = workspace / "results" / HIPPOCAMPUS / "spad_unet_tiny/fold_0_fraction_0.5_seed_3"
    assert load_model(folder).provenance["fraction"] == "0.5"
    dataset = load_dataset(workspace / "raw" / HIPPOCAMPUS)
    (split, *_) = json.loads((workspace / "preprocessed" / HIPPOCAMPUS / "splits_final.json").read_text())
    num_patients = len({dataset.patients[name] for name in split["train"]})
    assert f"--fraction 0.5 of {num_patients} training patients: {num_patients // 2}" in caplog.text
    for changed, told in (
        (("--fraction", 0.9), "an earlier run had fraction 0.5, not 0.9"),
        (("--fraction", 0.5, "--fraction-seed", 4), "an earlier run had fraction_seed 3, not 4"),
        ((), "an earlier run had fraction 0.5, not 1.0"),
    ):
        assert run(train.main, *command, "-o", folder, *changed) == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "x"])
def test_a_fraction_that_is_none_is_refused(share: str, run, capsys: pytest.CaptureFixture[str]):
    assert run(train.main, "-d", 4, "--fraction", share) == 2
    assert "--fraction" in capsys.readouterr().err


# --- what cannot be done together


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fraction-seed", 1), "--fraction-seed 1: chooses the patients of --fraction; give that too"),
        (("--patience", 3, "--validate-every", 0), "--patience 3: needs validations; leave --validate-every 0 out"),
        (("--patience", 3, "-f", "all"), "--patience 3: -f all holds out no preprocessed case to validate on; give a"),
        (("--deterministic", "--max-minutes", 5), "--deterministic: with --max-minutes 5 a run follows the clock"),
        (("--repeats", 2, "-f", "all"), "--repeats 2: -f all holds out no case to compare runs by; give a fold"),
        (("--repeats", 2, "--c"), "--c: --repeats 2 goes on by itself; leave --c out"),
    ],
)
def test_contradictions_are_told_in_a_line(words, message: str, workspace: Path, run, quick, capsys):
    assert run(train.main, "-d", 4, *quick, "--data", workspace, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("backbone", "device"), [("spad_vit", "cpu"), ("spad_unet", "cuda")])
def test_a_vit_is_not_deterministic_on_a_gpu(backbone: str, device: str):
    options = argparse.Namespace(deterministic=True)
    check_deterministic(options, backbone, device)
    check_deterministic(argparse.Namespace(deterministic=False), "spad_vit", "cuda")
    with pytest.raises(InputError, match="--deterministic: --backbone spad_vit cannot give the same bits on a GPU"):
        check_deterministic(options, "spad_vit", "cuda")


# --- the same bits


@pytest.mark.slow
def test_two_deterministic_runs_have_the_same_weights(workspace: Path, tmp_path: Path, run, quick):
    command = ("-d", 4, "--max-steps", 3, "--deterministic", "--validate-every", 2, *quick, "--data", workspace)
    for name in ("a", "b"):
        assert run(train.main, *command, "-o", tmp_path / name) == 0
    assert not torch.are_deterministic_algorithms_enabled()
    first, second = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("a", "b"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert (tmp_path / "a/validation.csv").read_text() == (tmp_path / "b/validation.csv").read_text()


def test_deterministic_asks_torch_for_it(workspace: Path, tmp_path: Path, run, quick, monkeypatch):
    seen = []

    def note(*_: object, **__: object) -> None:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))
        raise KeyboardInterrupt

    monkeypatch.setattr("spadunet.training.train.train_network", note)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    command = ("-d", 4, "--max-steps", 3, *quick, "--data", workspace, "-o", tmp_path / "a")
    assert run(train.main, *command) == 130
    assert run(train.main, *command, "--deterministic", "--restart") == 130
    assert seen == [(False, None), (True, ":4096:8")]


# --- repeats


@pytest.mark.slow
def test_repeats_are_runs_with_seeds_of_their_own_and_a_table_and_go_on(
    workspace: Path, run, quick, caplog, monkeypatch: pytest.MonkeyPatch
):
    command = ("-d", 4, "--max-steps", 2, "--seed", 5, *quick, "--data", workspace)
    folder = workspace / "results" / HIPPOCAMPUS / "spad_unet_tiny/fold_0_repeats"
    real = steps.set_rates

    def stop_second(*arguments: object) -> float:
        if (folder / "seed_6/training.log").is_file():
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "set_rates", stop_second)
        assert run(train.main, *command, "--repeats", 2) == 130
    assert read_progress(folder / "seed_6" / CHECKPOINT).step == 1
    written = (folder / "seed_5/backbone.safetensors").stat().st_mtime_ns
    assert run(train.main, *command, "--repeats", 2) == 0
    assert (folder / "seed_5/backbone.safetensors").stat().st_mtime_ns == written  # it was done
    assert [row["step"] for row in read_rows(folder / "seed_6/curves.csv")] == ["0", "1"]
    assert (folder / "seed_6/training.log").read_text().count("seed 5") == 0
    repeats = Repeats.from_json((folder / "repeats.json").read_text())
    assert repeats.seeds == (5, 6)
    dices = [
        json.loads((folder / f"seed_{seed}/validation/{HIPPOCAMPUS}/summary.json").read_text())["foreground_mean"][
            "Dice"
        ]
        for seed in (5, 6)
    ]
    spread = repeats.spreads[HIPPOCAMPUS]["mean"]["dice"]
    assert spread.mean == pytest.approx(sum(dices) / 2)
    assert spread.deviation == pytest.approx(abs(dices[0] - dices[1]) / 2**0.5)
    assert (spread.lowest, spread.highest) == (min(dices), max(dices))
    table = (folder / "repeats.txt").read_text()
    assert "2 runs, seeds 5, 6" in table
    assert "Anterior" in table
    assert table.rstrip() in caplog.text
    models = [load_model(folder / f"seed_{seed}") for seed in (5, 6)]
    assert not all(
        torch.equal(value, models[1].backbone_state[name]) for name, value in models[0].backbone_state.items()
    )
    path = folder / f"seed_5/validation/{HIPPOCAMPUS}/scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed": ["hippocampus_000"]}))
    assert run(train.main, *command, "--repeats", 2) == 1  # as the run itself did


def test_of_repeats_the_table_of_those_that_are_done_is_written_though_a_later_one_fails(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("spadunet.model.read_model_record", lambda _: SimpleNamespace(tasks=[HIPPOCAMPUS]))

    def train_one(options: argparse.Namespace, _: Ranks) -> tuple[int, Path]:
        if options.seed == 7:
            raise OutputError("loss became nan")
        folder = tmp_path / f"seed_{options.seed}"
        write_validation(folder, HIPPOCAMPUS, {"c1": {"Anterior": score_of(0.75)}})
        return 0, folder

    with pytest.raises(OutputError, match="loss became nan"):
        train_repeats(argparse.Namespace(seed=5, repeats=4), Ranks(), train_one)
    assert Repeats.from_json((tmp_path / "repeats.json").read_text()).seeds == (5, 6)


# --- defaults


@pytest.mark.parametrize(("memory_gb", "preset"), [(12, "small"), (24, "base")])
def test_the_default_network_suits_the_memory_of_the_gpu(memory_gb: int, preset: str, monkeypatch):
    properties = SimpleNamespace(total_memory=memory_gb << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    assert usual_preset(torch.device("cuda")) == preset
    assert usual_preset(torch.device("cpu")) == "tiny"


# --- a real process


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_saves_the_run_which_goes_on_to_the_same_weights(
    number: int, workspace: Path, tmp_path: Path, run, quick
):
    """With worker processes, as a user has it, and validation on the way."""
    options = ("--max-steps", 30, "--validate-every", 10, *quick, "--num-workers", 1, "--data", workspace)
    command = [sys.executable, "-m", "spadunet.cli.train", "-d", 4, *options, "-o", tmp_path / "parts"]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while len(read_rows(tmp_path / "parts/curves.csv")) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert "stopped; the same command goes on from here" in errors
    assert 3 <= read_progress(tmp_path / "parts" / CHECKPOINT).step < 30
    assert run(train.main, "-d", 4, *options, "-o", tmp_path / "parts") == 0
    assert run(train.main, "-d", 4, *options, "-o", tmp_path / "whole") == 0
    parts, whole = (read_tensors(tmp_path / name / CHECKPOINT) for name in ("parts", "whole"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert (tmp_path / "parts/validation.csv").read_text() == (tmp_path / "whole/validation.csv").read_text()


def torchrun(launcher: list[str], words: tuple[object, ...], num_machines: int = 1) -> str:
    """What is said on the way by the processes of spadunet_train, which ends well; a launcher stands for a machine."""
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", "spadunet.cli.train", *map(str, words)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(num_machines)]
    said = [process.communicate(timeout=250)[1] for process in started]
    assert [process.returncode for process in started] == [0] * num_machines, said
    return "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("num_machines", [1, 2])
def test_torchrun_starts_the_command_as_it_is_and_processes_share_batches_and_validation(
    num_machines: int, workspace: Path, tmp_path: Path, run, quick
):
    """One line each from the first process alone; plan and cases are untouched; one process goes on with the run."""
    splits = workspace / "preprocessed" / HIPPOCAMPUS / "splits_final.json"
    dataset = load_dataset(workspace / "raw" / HIPPOCAMPUS)
    held_out = [case.name for case in dataset.cases[:3]]
    splits.write_text(json.dumps([{"train": [case.name for case in dataset.cases[3:]], "val": held_out}]))
    before = {path: path.read_bytes() for path in (workspace / "preprocessed").rglob("*") if path.is_file()}
    launcher = ["--standalone", "--nproc-per-node", "2"]
    if num_machines == 2:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = ["--nnodes", "2", "--nproc-per-node", "1"]
        launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "7"]
    options = ("-d", 4, "--max-steps", 2, *quick, "--batch-size", 2, "--data", workspace)
    said = torchrun(launcher, (*options, "-o", tmp_path / "two"), num_machines)
    assert said.count("model after 2 steps") == 1
    assert "batches of 2 patches, shared by 2 processes" in said
    assert {path: path.read_bytes() for path in before} == before
    scores = json.loads((tmp_path / "two/validation" / HIPPOCAMPUS / "scores.json").read_text())
    assert [case["case"] for case in scores["cases"]] == sorted(held_out)
    assert json.loads((tmp_path / "two/spadunet_train.json").read_text())["device"] == "2 × cpu"
    assert run(train.main, *options, "-o", tmp_path / "one") == 0
    one, two = (load_model(tmp_path / name).backbone_state for name in ("one", "two"))
    largest = max(float((value - two[name]).abs().max()) for name, value in one.items())
    assert largest < 2 * 3e-3  # AdamW makes a step of the rate of any rounding: float64 is compared elsewhere
    assert run(train.main, *options, "-o", tmp_path / "two", "--c") == 0


@pytest.mark.slow
def test_a_batch_that_processes_cannot_share_is_refused(workspace: Path, tmp_path: Path, quick):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ("-d", 4, *quick, "--batch-size", 3, "--data", workspace, "-o", tmp_path)
    command = [*launcher, "-m", "spadunet.cli.train", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert "--batch-size 3: 2 processes cannot share it evenly; give a multiple of 2" in done.stderr
