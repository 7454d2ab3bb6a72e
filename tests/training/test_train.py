"""Parts of a run that are not the loop: the network to begin with."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from spadunet.dataset import Dataset
from spadunet.errors import InputError
from spadunet.labels import LabelSet
from spadunet.model import Model
from spadunet.training.loop import JointNetwork
from spadunet.training.patches import TrainingTask
from spadunet.training.train import TrainingDataset, as_model, build_joint, digest_of_cases, start_from


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
    model = model_of(network, members)
    assert list(model.tasks) == ["Dataset001_A", "Dataset002_B"]
    assert [task.plan for task in model.tasks.values()] == [member.plan for member in members]


def test_a_run_starts_from_the_backbone_and_from_the_tasks_of_the_same_name(members, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "spadunet")
    torch.manual_seed(0)
    source = build_joint(members[:1], "spad_unet", "tiny")
    model = model_of(source, members[:1])
    network = build_joint(members, "spad_unet", "tiny")
    start_from(network, members, model)
    for ours, theirs in zip(network.backbone.parameters(), source.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(network.tasks[0].parameters(), source.tasks[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "task Dataset001_A loaded, new: nothing" in caplog.text
    assert "task Dataset002_B is new" in caplog.text


def test_a_case_that_changes_sides_makes_another_run_and_the_order_does_not():
    asked = digest_of_cases([(["a", "b"], ["c"])])
    assert asked == digest_of_cases([(["b", "a"], ["c"])])
    assert len({asked, digest_of_cases([(["a"], ["b", "c"])]), digest_of_cases([(["a", "b", "c"], [])])}) == 3


def test_a_task_of_other_channels_or_labels_is_not_taken_over(members, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "spadunet")
    [member, _] = members
    swapped = LabelSet(names=("background", "other"), ids=(0, 1))
    for change in ({"channel_names": ("T2",)}, {"labels": swapped}):
        assert getattr(member.plan, next(iter(change))) != next(iter(change.values()))
        other = TrainingDataset(
            dataset=member.dataset, plan=member.plan.model_copy(update=change), folder=member.folder
        )
        model = model_of(build_joint([other], "spad_unet", "tiny"), [other])
        caplog.clear()
        start_from(build_joint([member], "spad_unet", "tiny"), [member], model)
        assert "task Dataset001_A is new: that of the model has other channels or labels" in caplog.text


def test_a_backbone_of_another_preset_is_refused(members):
    model = model_of(build_joint(members[:1], "spad_unet", "tiny"), members[:1])
    with pytest.raises(InputError, match="--init: its backbone is spad_unet tiny, which does not fit"):
        start_from(build_joint(members[:1], "spad_unet", "small"), members[:1], model)
