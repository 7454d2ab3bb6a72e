"""spadunet_pretrain_mim from a corpus and a tokenizer to a backbone that fine-tuning takes."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from masked_run import small_network
from small_corpus import make_corpus, noise

from spadunet.cli.plan_and_preprocess import main as plan_and_preprocess
from spadunet.cli.pretrain_mim import main
from spadunet.model import load_model, read_tensors
from spadunet.network import build
from spadunet.network.build import build_tokenizer
from spadunet.pretraining import mim
from spadunet.pretraining.tokenizer_file import save_tokenizer
from spadunet.training.curves import read_rows
from spadunet.training.state import read_progress

COMMON = [
    "-device",
    "cpu",
    "--precision",
    "float32",
    "--num-workers",
    "0",
    "--batch-size",
    "2",
    "--max-steps",
    "2",
    "--crop-tokens",
    "2",
    "1",
]
TOKENIZER = "results/pretraining/tokenizer_tiny"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a corpus of a volume and a picture, and a tokenizer that has learned nothing."""
    folder = tmp_path_factory.mktemp("workspace")
    make_corpus(
        folder / "corpora/small", {"cube": (noise(1, 20, 40, 40), (1, 1, 1)), "flat": (noise(3, 1, 40, 40), (1, 1, 1))}
    )
    torch.manual_seed(0)
    save_tokenizer(folder / TOKENIZER, build_tokenizer("tiny"), "tiny", {"corpus": "small"})
    return folder


@pytest.fixture
def call(workspace: Path, run, monkeypatch: pytest.MonkeyPatch):
    """The command on the workspace with small crops and networks; its exit code."""
    monkeypatch.setattr(build, "build_masked", lambda backbone, preset: small_network(backbone))

    def call(*arguments: object) -> int:
        return run(main, *COMMON, "--data", workspace, *arguments)

    return call


def test_a_run_leaves_a_backbone_without_a_task_and_says_what_it_was_made_from(call, workspace: Path, caplog):
    caplog.set_level(logging.INFO, "spadunet")
    assert call() == 0
    folder = workspace / "results/pretraining/spad_vit_tiny"
    model = load_model(folder)
    assert (model.backbone, model.preset, model.tasks) == ("spad_vit", "tiny", {})
    assert all(name.startswith("vit.") for name in model.backbone_state)
    assert (model.provenance["corpus"], model.provenance["steps"]) == ("small", "2")
    assert model.provenance["tokenizer"] == (workspace / TOKENIZER).name  # a path would tell of this machine
    digest = hashlib.sha256((workspace / TOKENIZER / "tokenizer.safetensors").read_bytes()).hexdigest()
    assert model.provenance["tokenizer_digest"] == digest
    assert f"tokenizer: {workspace / TOKENIZER}, the only one" in caplog.text
    assert json.loads((folder / "spadunet_pretrain_mim.json").read_text())["options"]["backbone"] == "spad_vit"
    assert {"loss", "kl", "agreement"} <= set(read_rows(folder / "curves.csv")[0])


def test_the_unet_runs_by_the_same_command_and_is_gone_on_with_after_a_stop(call, tmp_path: Path, monkeypatch):
    options = ("--backbone", "spad_unet", "--max-steps", 3)
    assert call(*options, "-o", tmp_path / "whole") == 0
    real, calls = mim.MaskedImageModelling.learn, []

    def learn(self, batch):
        calls.append(batch)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(mim.MaskedImageModelling, "learn", learn)
        assert call(*options, "-o", tmp_path / "parts") == 130
    stopped = load_model(tmp_path / "parts")  # of the checkpoint
    assert stopped.provenance["steps"] == "2"
    assert call(*options, "-o", tmp_path / "parts") == 0
    assert read_progress(tmp_path / "parts/state/checkpoint.safetensors").step == 3
    whole, parts = (load_model(tmp_path / name).backbone_state for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(name.startswith("encoder.") and torch.equal(value, parts[name]) for name, value in whole.items())
    assert not all(torch.equal(value, stopped.backbone_state[name]) for name, value in whole.items())


def test_a_run_starts_from_the_backbone_of_a_model_folder(call, workspace: Path, tmp_path: Path, capsys, monkeypatch):
    started = {}
    real = mim.MaskedImageModelling.__init__

    def note(self, network, *arguments, **options):
        started.update({name: value.clone() for name, value in network.state_dict().items()})
        real(self, network, *arguments, **options)

    source = small_network("spad_vit")
    torch.nn.init.constant_(source.vit.norm.weight, 7)
    mim.save_backbone(tmp_path / "source", source, "spad_vit", "tiny", {})
    with monkeypatch.context() as patch:
        patch.setattr(mim.MaskedImageModelling, "__init__", note)
        assert call("--init", tmp_path / "source", "-o", tmp_path / "run") == 0
    assert (started["vit.norm.weight"] == 7).all()
    assert "new: head, mask_token" in (tmp_path / "run/training.log").read_text()
    assert call("--backbone", "spad_unet", "--init", tmp_path / "source", "-o", tmp_path / "other") == 2
    assert "is a spad_vit tiny, not a spad_unet tiny" in capsys.readouterr().err


def test_wrong_input_is_told_in_a_line_before_any_work(call, run, workspace: Path, tmp_path: Path, capsys):
    cases = {
        ("--tokenizer", tmp_path / "none"): "tokenizer.json: not found; give a tokenizer's folder",
        ("--probe", "Heart"): "--probe Heart: ",
        ("--init", tmp_path / "none"): "model.json: not found",
        ("-c", "none"): "none: corpus not found; corpora in",
    }
    for arguments, message in cases.items():
        assert call(*arguments, "-o", tmp_path / "out") == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert message in error
    assert not (tmp_path / "out/state").exists()
    assert run(main, *COMMON, "--data", tmp_path) == 2
    assert "no tokenizer; make one with spadunet_pretrain_tokenizer, or give its folder" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(call, workspace: Path, tmp_path: Path, capsys):
    assert call("--dry-run", "-o", tmp_path / "out") == 0
    assert f"tokenizer {(workspace / TOKENIZER).resolve()}" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_papers_recipe_has_the_published_numbers(call, tmp_path: Path, monkeypatch):
    from spadunet.pretraining import loop

    seen = []

    def note(stage, batches, folder, options, ranks, *, run, keep):
        seen.append((stage, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "pretrain", note)
    paper = ("--recipe", "paper", "--batch-size", 84, "--max-steps", 300_000, "--crop-tokens", 10, 5)
    assert call(*paper, "-o", tmp_path) == 130
    [(stage, options)] = seen
    assert "not as published" not in (tmp_path / "training.log").read_text()
    assert (options.batch_size, options.max_steps, options.lowest_rate) == (84, 300_000, 1e-6)
    assert options.warm_up_share * options.max_steps == pytest.approx(10_000)
    assert {group["peak"] for group in stage.optimisers["masked"].param_groups} == {2e-5}
    assert {group["weight_decay"] for group in stage.optimisers["masked"].param_groups} == {0.05, 0.0}
    assert (mim.MASK_RATIO, mim.MAX_GRADIENT_NORM) == (0.55, 0.5)


@pytest.mark.slow
def test_from_real_images_to_a_probed_backbone_that_fine_tuning_takes(run, copy_demo, workspace: Path, tmp_path: Path):
    """With the preset's own networks and crops."""
    copy_demo("Dataset004_Hippocampus", workspace / "raw/Dataset004_Hippocampus", num_cases=6)
    assert run(plan_and_preprocess, "-d", "4", "--data", workspace, "-np", 1) == 0
    for backbone in ("spad_vit", "spad_unet"):
        out = tmp_path / backbone
        options = ("--backbone", backbone, "--probe", "Hippocampus", "--probe-every", 1, "-o", out)
        assert run(main, *COMMON, "--data", workspace, *options) == 0
        with (out / "probe.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == ["0", "1", "2"]
        assert all(0 < float(row["mean"]) < 1 for row in rows)
        from spadunet.cli.train import main as train

        tuned = ("-d", "4", "--init", out, "--max-steps", 1, "-o", tmp_path / f"{backbone}_tuned")
        assert run(train, *tuned, "--data", workspace, "-device", "cpu", "--num-workers", 0) == 0


@pytest.mark.slow
def test_torchrun_starts_the_command_as_it_is(workspace: Path, tmp_path: Path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [*COMMON, "--data", workspace, "--backbone", "spad_unet", "-o", tmp_path / "out"]
    command = [*launcher, "-m", "spadunet.cli.pretrain_mim", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "out").provenance["steps"] == "2"
    assert read_tensors(tmp_path / "out/state/checkpoint.safetensors")
