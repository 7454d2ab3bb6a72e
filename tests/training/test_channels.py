"""A model's channels in a dataset that has others: matched by name, on one, two or five contrasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spadunet.case import Case
from spadunet.model import Model, load_model, save_model
from spadunet.network.build import build_backbone, build_task
from spadunet.network.heads import SegmentationNetwork
from spadunet.plan import IntensityRule, Plan
from spadunet.preprocessing.store import open_case, store_case
from spadunet.task import Task
from spadunet.training.augment import drop_channels
from spadunet.training.channels import WEIGHT, match_channels
from spadunet.training.init import InitKind, start_from
from spadunet.training.loop import JointNetwork, train_network
from spadunet.training.patches import BatchStream, TrainingTask
from spadunet.training.variety import Variety

NAME = "Dataset001_A"
RULE = IntensityRule(kind="percentiles", low=0.5, high=99.5)


def plan_with(plan: Plan, *channels: str) -> Plan:
    """The plan of the same dataset with these channels."""
    return plan.model_copy(update={"channel_names": channels, "intensity": (RULE,) * len(channels)})


def task_with(task: TrainingTask, folder: Path, channels: tuple[str, ...], missing=()) -> TrainingTask:
    """The task's cases with these channels: that of the case, brighter or darker, with noise of its own."""
    cases = []
    for case in task.cases:
        shape = case.header.geometry.shape
        image, classes = case.read_patch((0, 0, 0), shape)
        generator = np.random.default_rng([sum(map(ord, case.name)), *map(len, channels)])
        array = np.concatenate([image * generator.uniform(0.5, 1) for _ in channels])
        array[list(missing)] = 0
        stored = Case(
            name=case.name,
            image=array,
            classes=classes.astype(np.uint8),
            geometry=case.header.geometry,
            missing_channels=missing,
        )
        store_case(folder, stored, made_from="", plan_digest="")
        cases.append(open_case(folder, case.name))
    return replace(task, plan=plan_with(task.plan, *channels), cases=tuple(cases))


def network_for(plan: Plan, backbone: str, seed: int) -> JointNetwork:
    """Fresh, but for its channel map: each channel has learned something of its own."""
    torch.manual_seed(seed)
    task = build_task(len(plan.channel_names), plan.labels.num_outputs, backbone, "tiny")
    with torch.no_grad():
        task.channel_map.weight += 0.3 * torch.randn_like(task.channel_map.weight)
        task.channel_map.bias += 0.1
    return JointNetwork(build_backbone(backbone, "tiny"), [task])


def write_model(folder: Path, plan: Plan, network: JointNetwork, backbone: str) -> Path:
    """A model folder with one task."""
    task = Task(plan=plan, state=network.tasks[0].state_dict())
    state = network.backbone.state_dict()
    save_model(folder, Model(backbone=backbone, preset="tiny", backbone_state=state, tasks={NAME: task}, provenance={}))
    return folder


def logits_of(network: JointNetwork, x: torch.Tensor) -> torch.Tensor:
    """Of the only task."""
    with torch.no_grad():
        return SegmentationNetwork(network.backbone, network.tasks[0]).eval()(x, 0)


@pytest.mark.parametrize("backbone", ["spad_unet", "spad_vit"])
@pytest.mark.parametrize(
    ("channels", "places"),
    [
        (("T2", "T1"), (1, 0)),
        (("t1", "T2"), (0, 1)),
        (("T2",), (None, 0)),
        (("FLAIR", "T2", "DWI", "T1", "SWI"), (3, 1)),
    ],
)
def test_a_model_of_two_contrasts_begins_on_others_as_on_its_own(
    make_task, tmp_path: Path, backbone: str, channels: tuple[str, ...], places: tuple[int | None, int]
):
    plan = make_task(NAME).plan
    source = network_for(plan_with(plan, "T1", "T2"), backbone, 1)
    folder = write_model(tmp_path / "model", plan_with(plan, "T1", "T2"), source, backbone)
    plans = {NAME: plan_with(plan, *channels)}
    network = network_for(plans[NAME], backbone, 2)
    coverage = start_from(network, plans, folder, kind=InitKind(backbone=backbone, preset="tiny"))
    fates = {row.group: row.fate for row in coverage.rows if row.group.startswith(NAME)}
    assert fates[f"{NAME} heads"] == "loaded"
    assert "new" not in fates.values()
    # An image that has only what both know gives the same in both.
    x = torch.rand(1, 2, 4, 32, 32) * 2 - 1
    other = torch.zeros(1, len(channels), 4, 32, 32)
    for number, place in enumerate(places):
        if place is None:
            x[:, number] = 0
        else:
            other[:, place] = x[:, number]
    assert torch.allclose(logits_of(network, other), logits_of(source, x), atol=1e-5)


def test_colours_are_not_the_mean_of_a_grey_channel_and_grey_is_that_of_colours(make_task):
    plan, colours = make_task(NAME).plan, ("red", "green", "blue")
    maps = {("grey",): torch.ones(3, 1), colours: torch.eye(3)}
    tasks = {
        names: Task(plan=plan_with(plan, *names), state={WEIGHT: weight, "channel_map.bias": torch.zeros(3)})
        for names, weight in maps.items()
    }
    assert match_channels(NAME, colours, {"A": tasks[("grey",)]}) is None
    of_both = match_channels(NAME, ("Red", "Green", "Blue"), {"A": tasks[("grey",)], "B": tasks[colours]})
    assert of_both is not None
    assert torch.equal(of_both.state[WEIGHT], torch.eye(3))
    grey = match_channels(NAME, ("grey",), {"B": tasks[colours]})
    assert grey is not None
    assert torch.equal(grey.state[WEIGHT], torch.ones(3, 1))


def test_a_new_contrast_begins_as_the_mean_of_those_known_and_all_is_told(make_task, caplog):
    plan = make_task(NAME).plan
    weight = torch.tensor([[1.0, 2.0]] * 3)
    state = {WEIGHT: weight, "channel_map.bias": torch.ones(3)}
    tasks = {
        "Dataset009_Other": Task(plan=plan_with(plan, "CT"), state=state),
        "Dataset002_B": Task(plan=plan_with(plan, "T1", "T2"), state=state),
    }
    match = match_channels(NAME, ("T2", "FLAIR", "DWI"), tasks)
    assert match is not None
    assert (match.task, match.numbers, match.is_same) == ("Dataset002_B", (1, None, None), False)
    # 2 of 2 channels become 3: weights times 2/3. T2 2, the mean 1.5.
    assert torch.allclose(match.state[WEIGHT], torch.tensor([[4 / 3, 1, 1]] * 3))
    assert match.describe(("T2", "FLAIR", "DWI")) == (
        "T2 by name and FLAIR, DWI as the mean of the channels of task Dataset002_B"
    )
    same = match_channels(NAME, ("T1", "T2"), tasks)
    assert same is not None
    assert same.is_same
    assert torch.equal(same.state[WEIGHT], weight)
    assert match_channels(NAME, ("T1",), {}) is None


@pytest.mark.parametrize("channels", [("T2",), ("FLAIR", "T2", "DWI", "T1", "SWI")])
def test_a_model_of_two_contrasts_is_trained_on_with_one_or_five(
    make_task, make_options, tmp_path: Path, channels: tuple[str, ...]
):
    options = make_options(max_steps=2, checkpoint_minutes=5.0)
    variety = Variety(channel_dropout=0.5)
    task = make_task(NAME)
    two = replace(task_with(task, tmp_path / "two", ("T1", "T2")), variety=variety)
    source = network_for(two.plan, "spad_unet", 0)
    train_network(source, [two], tmp_path / "run_two", options, run={})
    folder = write_model(tmp_path / "model", two.plan, source, "spad_unet")
    missing = (1,) if len(channels) > 1 else ()
    other = replace(task_with(task, tmp_path / "other", channels, missing), variety=variety)
    network = network_for(other.plan, "spad_unet", 3)
    start_from(network, {NAME: other.plan}, folder, kind=InitKind(backbone="spad_unet", preset="tiny"))
    before = network.tasks[0].channel_map.weight.detach().clone()
    progress = train_network(network, [other], tmp_path / "run", options, run={})
    assert progress.is_finished
    changed = network.tasks[0].channel_map.weight.detach() != before
    known = [number for number in range(len(channels)) if number not in missing]
    assert changed[:, known].any(0).all()
    assert load_model(folder).tasks[NAME].plan.channel_names == ("T1", "T2")


def test_channels_are_dropped_at_the_given_rate_and_one_always_stays(make_task, tmp_path: Path):
    generator = np.random.default_rng(0)
    images = [drop_channels(torch.ones(4, 1, 2, 2), (2,), 0.5, generator) for _ in range(600)]
    kept = [tuple(torch.nonzero(image.flatten(1).any(1))[:, 0].tolist()) for image in images]
    assert all(numbers for numbers in kept)
    whole = sum(len(numbers) == 4 for numbers in kept)  # the missing one was left as it is
    assert abs(whole - 300) < 4 * (600 / 4) ** 0.5
    lacking = [numbers for numbers in kept if len(numbers) < 4]
    # One or two of the three that are there, as often each, and every one of them.
    assert abs(sum(len(numbers) == 2 for numbers in lacking) - len(lacking) / 2) < 4 * (len(lacking) / 4) ** 0.5
    assert {number for numbers in lacking for number in {0, 1, 3} - set(numbers)} == {0, 1, 3}


def test_a_single_channel_is_never_dropped_nor_is_anything_drawn_for_it():
    generator = np.random.default_rng(0)
    for image, missing in ((torch.ones(1, 1, 2, 2), ()), (torch.ones(2, 1, 2, 2), (1,))):
        assert drop_channels(image, missing, 1.0, generator).all()
    assert generator.random() == np.random.default_rng(0).random()


def test_dropped_channels_follow_from_seed_and_step_and_are_exactly_nothing(make_task, tmp_path: Path):
    task = replace(task_with(make_task(NAME), tmp_path / "x", ("T1", "T2", "T3")), variety=Variety(channel_dropout=0.9))
    streams = [BatchStream([task], seed) for seed in (0, 0)]
    batches = [[stream[step] for step in (3, 1, 8)] for stream in streams]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.image, other.image)
    there = torch.cat([batch.image.flatten(2).any(2) for batch in batches[0]])  # (patches, channels)
    assert there.any(1).all()
    assert not there.all()
