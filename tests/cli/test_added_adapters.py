"""Tasks that join a model with an adapter of their own, or share the input of a task that is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from spadunet.cli import train
from spadunet.files import sha256_of_file
from spadunet.inference.predict import build_network, build_networks
from spadunet.model import BACKBONE_FILE, load_model
from spadunet.task import AdapterRecord

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"


@pytest.fixture
def model(joint_model: Path, tmp_path: Path) -> Path:
    """A copy of the model of hippocampus and heart."""
    shutil.copytree(joint_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def add(planned: Path, model: Path, quick) -> tuple[object, ...]:
    """The command that adds slices of the heart to it."""
    steps = ("--max-steps", 2, "-f", "all", *quick[2:])
    return ("-d", SLICES, "--init", model, "--add-task", *steps, "--data", planned)


def test_a_task_with_an_adapter_joins_and_the_others_compute_what_they_did(
    model: Path, add, run, caplog: pytest.LogCaptureFixture
):
    backbone, before = sha256_of_file(model / BACKBONE_FILE), load_model(model)
    assert run(train.main, *add, "--adapter", "experts", "--rank", 2, "--experts", 3) == 0
    assert f"adapter of {SLICES}: 3 experts of rank 2, " in caplog.text
    assert " parameters, " in caplog.text
    grown = load_model(model)
    assert sha256_of_file(model / BACKBONE_FILE) == backbone
    task = grown.tasks[SLICES]
    assert task.adapter == AdapterRecord(rank=2, num_experts=3)
    assert task.provenance["adapter"] == "3 experts of rank 2"
    ups = [value for name, value in task.state.items() if name.startswith("adapter.") and name.endswith(".up")]
    assert ups
    assert all(value.any() for value in ups)
    image = torch.rand(1, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    together = build_networks(grown, list(grown.tasks))
    parameters = {name: set(map(id, network.backbone.parameters())) for name, network in together.items()}
    assert parameters[HEART] == parameters[HIPPOCAMPUS] < parameters[SLICES]  # one backbone in memory
    with torch.no_grad():
        for name in before.tasks:
            assert torch.equal(build_network(before, name)(image, 2), together[name](image, 2))
        assert torch.equal(build_network(grown, SLICES)(image, 2), together[SLICES](image, 2))


@pytest.mark.slow
def test_a_dry_run_tells_how_large_the_adapter_is(model: Path, add, run, capsys: pytest.CaptureFixture[str]):
    assert run(train.main, *add, "--adapter", "lora", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"adapter of {SLICES}: LoRA of rank 8, 45,176 of 5,710,752 parameters, 0.79 %" in out
    assert "memory" in out
    assert not (model / "added").exists()


@pytest.mark.slow
def test_a_held_out_case_is_validated_through_the_adapter(model: Path, planned: Path, quick, tmp_path: Path, run):
    words = ("-d", SLICES, "--init", model, "--freeze-backbone", "--adapter", "lora", "-f", 0, "--max-steps", 2)
    assert run(train.main, *words, *quick[2:], "--data", planned, "-o", tmp_path / "run") == 0
    assert load_model(tmp_path / "run").tasks[SLICES].adapter == AdapterRecord(rank=8)
    assert (tmp_path / "run/validation" / SLICES / "scores.json").is_file()
    assert "dice" in (tmp_path / "run/validation.csv").read_text()


def test_a_task_that_shares_the_input_of_another_keeps_its_channel_map_to_the_bit(
    model: Path, add, run, capsys: pytest.CaptureFixture[str]
):
    plans = {name: task.plan for name, task in load_model(model).tasks.items()}
    assert run(train.main, *add, "--share-input", HIPPOCAMPUS) == 2
    spacing = " ".join(map(repr, plans[HIPPOCAMPUS].target_spacing_mm))
    said = f"prepare it as that task is: spadunet_plan_and_preprocess -d {SLICES} --spacing {spacing}"
    assert said in capsys.readouterr().err
    assert run(train.main, *add, "--share-input", HEART) == 0
    grown = load_model(model)
    new, old = grown.tasks[SLICES], grown.tasks[HEART]
    assert new.plan.patch_sizes_voxels == plans[HEART].patch_sizes_voxels
    assert new.provenance["share_input"] == HEART
    for name in ("channel_map.weight", "channel_map.bias"):
        assert torch.equal(new.state[name], old.state[name])
    assert not torch.equal(new.state["heads.0.weight"], old.state["heads.0.weight"])


def test_options_that_do_not_go_together_say_what_they_need(add, model: Path, run, capsys: pytest.CaptureFixture[str]):
    alone = ("-d", 4, "--init", model)
    said = {
        (*alone, "--adapter", "lora"): "--adapter lora: changes a frozen backbone; give --add-task or --freeze-",
        (*add, "--rank", 4): "--rank 4: is of an adapter; give --adapter lora too",
        (*add, "--adapter", "lora", "--experts", 4): "--experts 4: is of an adapter; give --adapter experts too",
        (*add, "--adapter", "lora", "--rank", 4000): "--rank 4000: more than 1024; give less",
        (*add, "--adapter", "lora", "--compile"): "--compile: does not go with --adapter",
        (*alone, "--freeze-backbone", "--share-input", HEART): "give --add-task too",
        (*add, "--adapter", "lora", "--share-input", HEART): "leave --adapter or --share-input out",
        (*add, "--share-input", "Liver"): f"--share-input Liver: is no task of {model} that segments; it has",
    }
    for command, message in said.items():
        assert run(train.main, *command) == 2
        assert message in capsys.readouterr().err
