"""Parts of a run that are not the loop: the network to begin with, and what is kept of the wishes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from spadunet.dataset import Dataset
from spadunet.errors import InputError
from spadunet.training.patches import TrainingTask
from spadunet.training.train import TrainingDataset, as_model, build_joint, format_mean, start_from, wishes


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


@pytest.fixture
def members(make_task) -> list[TrainingDataset]:
    """Two datasets with two and three classes."""
    return [
        member_of(make_task("Dataset001_A", num_classes=2)),
        member_of(make_task("Dataset002_B", num_classes=3)),
    ]


def test_a_joint_network_has_one_backbone_and_a_head_for_every_dataset(members):
    network = build_joint(members, "tiny")
    assert [task.heads[0].weight.shape[0] for task in network.tasks] == [2, 3]
    model = as_model(network, members, "tiny", {})
    assert list(model.tasks) == ["Dataset001_A", "Dataset002_B"]
    assert [task.plan for task in model.tasks.values()] == [member.plan for member in members]


def test_a_run_starts_from_the_backbone_and_from_the_tasks_of_the_same_name(members, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "spadunet")
    torch.manual_seed(0)
    source = build_joint(members[:1], "tiny")
    model = as_model(source, members[:1], "tiny", {})
    network = build_joint(members, "tiny")
    start_from(network, members, model)
    for ours, theirs in zip(network.backbone.parameters(), source.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(network.tasks[0].parameters(), source.tasks[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "task Dataset001_A loaded, new: nothing" in caplog.text
    assert "task Dataset002_B is new" in caplog.text


def test_a_backbone_of_another_preset_is_refused(members):
    model = as_model(build_joint(members[:1], "tiny"), members[:1], "tiny", {})
    with pytest.raises(InputError, match="--init: its backbone is spad_unet tiny, which does not fit"):
        start_from(build_joint(members[:1], "small"), members[:1], model)


def test_wishes_change_with_anything_that_changes_the_result(members, make_options):
    options = {"preset": "tiny", "fold": "0", "batch_size": 2, "init": None}
    asked = wishes(members, make_options(), **options)
    assert asked == wishes(members, make_options(device=torch.device("meta"), num_workers=3), **options)
    others = [
        wishes(members[:1], make_options(), **options),
        wishes(members, make_options(seed=1), **options),
        wishes(members, make_options(learning_rate=1.0), **options),
        wishes(members, make_options(weight_decay=0.0), **options),
        wishes(members, make_options(max_steps=9), **options),
        wishes(members, make_options(max_minutes=9.0), **options),
        *(wishes(members, make_options(), **{**options, key: "new"}) for key in options),
    ]
    assert all(other != asked for other in others)


def test_a_mean_of_nothing_is_a_dash():
    assert (format_mean(None), format_mean(0.12345)) == ("–", "0.1235")
