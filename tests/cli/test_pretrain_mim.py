"""spadunet_pretrain_mim from a corpus and a tokenizer to a backbone that fine-tuning takes."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from eva02_file import random_file
from masked_run import small_network
from safetensors.torch import save_file
from small_corpus import make_corpus, noise

from spadunet.cli.plan_and_preprocess import main as plan_and_preprocess
from spadunet.cli.pretrain_mim import crops_beyond, differences, main, start_from
from spadunet.errors import InputError
from spadunet.model import load_model
from spadunet.network import build
from spadunet.network.build import build_tokenizer
from spadunet.pretrained import find_weights
from spadunet.pretraining import mim
from spadunet.pretraining.tokenizer_file import load_tokenizer, save_tokenizer
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


@pytest.mark.slow
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
    assert {name.split(".")[0] for name in whole} == {"encoder", "decoder"}
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
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
    digest = hashlib.sha256((tmp_path / "source/backbone.safetensors").read_bytes()).hexdigest()
    assert load_model(tmp_path / "run").provenance["init"] == f"source, SHA-256 {digest}"
    assert str(tmp_path) not in (tmp_path / "run/model.json").read_text()
    assert call("--backbone", "spad_unet", "--init", tmp_path / "source", "-o", tmp_path / "other") == 2
    assert "is a spad_vit tiny, not a spad_unet tiny" in capsys.readouterr().err


def test_a_vit_starts_from_an_eva02_file_with_its_mask_token(tmp_path: Path, caplog):
    """With made-up weights in the layout of the published file, of the preset tiny."""
    caplog.set_level(logging.INFO, "spadunet")
    network, path = build.build_masked_vit("tiny"), tmp_path / "eva02.safetensors"
    state = random_file(192, 6, 512)
    save_file(state, path)
    head = network.head[0].weight.clone()
    start_from(network, path, "spad_vit", "tiny")
    assert torch.equal(network.mask_token, state["mask_token"].flatten())
    assert torch.equal(network.vit.blocks[3].attn.q_proj.weight, state["blocks.3.attn.q_proj.weight"])
    assert torch.equal(network.head[0].weight, head)
    assert caplog.text.rstrip().endswith("new: head")
    with pytest.raises(InputError, match="is a spad_vit tiny, not a spad_unet tiny"):
        start_from(build.build_masked_unet("tiny"), path, "spad_unet", "tiny")


def test_crops_much_larger_than_the_tokenizers_own_are_warned_of(call, workspace: Path, tmp_path: Path):
    tokenizer = load_tokenizer(workspace / TOKENIZER)
    for number, (crop_tokens, is_told) in enumerate((("[1, 1]", True), ("[2, 2]", False), ("", False))):
        save_tokenizer(tmp_path / "t", tokenizer.network, tokenizer.preset, {"crop_tokens": crop_tokens})
        out = tmp_path / f"run{number}"
        assert call("--tokenizer", tmp_path / "t", "-o", out) == 0
        assert ("tells less of larger ones" in (out / "training.log").read_text()) == is_told
    assert crops_beyond({"crop_tokens": "[8, 4]"}, [10, 5]) is None  # the paper's
    assert "give --crop-tokens 4 2" in (crops_beyond({"crop_tokens": "[4, 2]"}, [6, 3]) or "")


def test_a_backbone_is_not_pretrained_into_the_folder_it_starts_from(call, tmp_path: Path, capsys):
    own = tmp_path / "own"
    shutil.copytree(find_weights("spad_unet_tiny"), own)
    before = (own / "model.json").read_bytes()
    assert call("--backbone", "spad_unet", "--preset", "tiny", "--init", own, "-o", own, "--restart") == 2
    assert f"--init {own}: this run would be written over the model to start from" in capsys.readouterr().err
    assert (own / "model.json").read_bytes() == before


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
    assert [path.name for path in (tmp_path / "out/state").iterdir()] == ["run.lock"]
    assert run(main, *COMMON, "--data", tmp_path) == 2
    assert "no tokenizer; make one with spadunet_pretrain_tokenizer, or give its folder" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(call, workspace: Path, tmp_path: Path, capsys):
    assert call("--dry-run", "-o", tmp_path / "out") == 0
    assert f"tokenizer {(workspace / TOKENIZER).resolve()}" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_papers_recipe_has_the_published_numbers(call, tmp_path: Path, monkeypatch):
    from spadunet.pretraining import loop

    seen = []

    def note(stage, batches, folder, options, ranks, *, run, **_):
        seen.append((stage, options))
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "pretrain", note)
    paper = ("--recipe", "paper", "--batch-size", 84, "--max-steps", 300_000, "--crop-tokens", 10, 5)
    assert call(*paper, "-o", tmp_path) == 130
    [(stage, options)] = seen
    differs = [line for line in (tmp_path / "training.log").read_text().splitlines() if "not as published" in line]
    assert [line.split("published: ")[1] for line in differs] == ["--init None, not an EVA-02 file"]
    assert (options.batch_size, options.max_steps, options.lowest_rate) == (84, 300_000, 1e-6)
    assert options.warm_up_share * options.max_steps == pytest.approx(10_000)
    assert {group["peak"] for group in stage.optimisers["masked"].param_groups} == {2e-5}
    assert {group["weight_decay"] for group in stage.optimisers["masked"].param_groups} == {0.05, 0.0}
    assert (mim.MASK_RATIO, mim.MAX_GRADIENT_NORM) == (0.55, 0.5)


def test_the_papers_recipe_says_that_the_paper_pre_trains_no_unet(tmp_path: Path):
    (tmp_path / "eva02.pt").touch()
    [line] = differences(Namespace(backbone="spad_unet", init=tmp_path / "eva02.pt"))
    assert line.startswith("--backbone spad_unet, not spad_vit: the paper pre-trains no U-Net, here its decoder too")
    assert differences(Namespace(backbone="spad_vit", init=tmp_path / "eva02.pt")) == []


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
def test_torchrun_starts_both_commands_as_they_are_on_one_machine_or_two(workspace: Path, tmp_path: Path):
    """Two launchers on this machine stand for two machines."""
    stages = {
        "pretrain_tokenizer": (["--gan-weight", 0], "tokenizer.json"),
        "pretrain_mim": (["--backbone", "spad_unet"], "model.json"),
    }
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    two = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--nnodes", "2", "--nproc-per-node", "1"]
    one = ["--standalone", "--nproc-per-node", "2"]
    for command, (more, result) in stages.items():
        for name, launcher, num_machines in (("one", one, 1), ("two", two, 2)):
            out = tmp_path / name / command
            words = [*launcher, "-m", f"spadunet.cli.{command}", *COMMON, *more, "--data", workspace, "-o", out]
            words += ["--tokenizer", workspace / TOKENIZER] if command == "pretrain_mim" else []
            started = [
                subprocess.Popen(
                    [sys.executable, "-m", "torch.distributed.run", *map(str, words)], stderr=subprocess.PIPE, text=True
                )
                for _ in range(num_machines)
            ]
            said = [process.communicate(timeout=250)[1] for process in started]
            assert [process.returncode for process in started] == [0] * num_machines, said
            assert json.loads((out / result).read_text())["provenance"]["steps"] == "2"
            assert "2 processes" in (out / "training.log").read_text()
            assert "".join(said).count("pre-training on small") == 1  # the first process alone prints
