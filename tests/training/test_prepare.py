"""What a run is prepared from: networks and cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spadunet.dataset import Dataset
from spadunet.errors import InputError
from spadunet.model import Model
from spadunet.training import prepare
from spadunet.training.loop import JointNetwork
from spadunet.training.patches import TrainingTask
from spadunet.training.prepare import TrainingDataset, build_joint, stored_cases
from spadunet.training.train import as_model


def member_of(task: TrainingTask) -> TrainingDataset:
    """The dataset of a task, without its raw files."""
    dataset = Dataset(
        name=task.name,
        folder=Path("raw"),
        channel_names=task.plan.channel_names,
        labels=task.plan.labels,
        file_ending=".nii.gz",
        cases=(),
        patients={},
    )
    return TrainingDataset(dataset=dataset, plan=task.plan, folder=Path("preprocessed"))


def model_of(network: JointNetwork, members: list[TrainingDataset]) -> Model:
    """The network as a model."""
    return as_model(network, members, backbone="spad_unet", preset="tiny", provenance={})


@pytest.fixture
def members(make_task) -> list[TrainingDataset]:
    """Two datasets with two and three classes."""
    return [
        member_of(make_task("Dataset001_A", num_classes=2)),
        member_of(make_task("Dataset002_B", num_classes=3)),
    ]


def test_a_joint_network_has_one_backbone_and_a_head_for_every_dataset(members):
    network = build_joint(members, "spad_unet", "tiny")
    assert [task.heads[0].weight.shape[0] for task in network.tasks] == [2, 3]
    colours = members[0].plan.model_copy(update={"channel_names": ("red", "green", "blue")})
    (of_colours,) = build_joint([replace(members[0], plan=colours)], "spad_unet", "tiny").tasks
    assert torch.equal(of_colours.channel_map.weight, torch.eye(3))
    model = model_of(network, members)
    assert list(model.tasks) == ["Dataset001_A", "Dataset002_B"]
    assert [task.plan for task in model.tasks.values()] == [member.plan for member in members]


def test_held_out_cases_that_are_not_preprocessed_are_told(members, caplog: pytest.LogCaptureFixture, monkeypatch):
    def open_some(member: TrainingDataset, name: str) -> str:
        if name != "b":
            raise InputError("not there")
        return name

    monkeypatch.setattr(prepare, "open_planned_case", open_some)
    assert stored_cases(members[0], ["a", "b", "c"]) == ("b",)
    assert "Dataset001_A: 2 of 3 held-out cases are not preprocessed and left out" in caplog.text
    assert "a, c; spadunet_preprocess adds them" in caplog.text
    caplog.clear()
    assert stored_cases(members[0], ["b"]) == ("b",)
    assert not caplog.text
