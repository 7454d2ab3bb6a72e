"""Validation while a run learns: what it looks at, what it costs, and when it ends a run."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spadunet.evaluation.overlap import count_overlap, dice
from spadunet.labels import LabelSet, Region
from spadunet.network.heads import SegmentationTask
from spadunet.network.unet import SpadUNet
from spadunet.tensors import read_tensors
from spadunet.training import loop, monitor, steps
from spadunet.training.board import read_validation
from spadunet.training.curves import read_rows
from spadunet.training.held_out import choose_patches, count_voxels
from spadunet.training.loop import JointNetwork, train_network
from spadunet.training.monitor import Monitor, plan_validations
from spadunet.training.patches import TrainingTask
from spadunet.training.ranks import Ranks
from spadunet.training.state import Learned, Progress, read_metadata, read_progress

CHECKPOINT = "state/checkpoint.safetensors"
TWO = LabelSet(names=("background", "a", "b"), ids=(0, 1, 2))


class Killed(BaseException):
    """Stands for kill -9."""


def small_network() -> JointNetwork:
    """Two levels of eight channels, one task of three outputs."""
    torch.manual_seed(0)
    return JointNetwork(SpadUNet([8, 8], [1, 1]), [SegmentationTask(1, 3, [8])])


def held_out_of(task: TrainingTask) -> list[tuple]:
    """Its last case, as if it did not learn from it."""
    return [task.cases[-1:]]


def voxels(values: list[list[int]]) -> torch.Tensor:
    """One slice of class numbers."""
    return torch.tensor([values])


# --- what it looks at


def test_counts_give_the_dice_of_the_evaluation():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(3, (4, 5, 6), generator=generator)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    overlap, predicted, reference = count_voxels(logits, classes, TWO)
    for number in (1, 2):
        expected = dice(count_overlap((logits.argmax(0) == number).numpy(), (classes == number).numpy()))
        found = 2 * overlap[number - 1] / (predicted[number - 1] + reference[number - 1])
        assert float(found) == pytest.approx(expected)


def test_regions_may_overlap_and_ignored_voxels_count_nowhere():
    whole, core = Region(name="whole", ids=(1, 2), painted_id=1), Region(name="core", ids=(2,), painted_id=2)
    labels = LabelSet(names=("background", "x", "y"), ids=(0, 1, 2), regions=(whole, core), ignore_id=9)
    classes = voxels([[0, 1, 2, 3]])  # 3: ignored
    logits = torch.tensor([[[[-1.0, 1, 1, 1]]], [[[1.0, -1, 1, 1]]]])  # whole: voxels 1 to 3; core: 0, 2, 3
    assert count_voxels(logits, classes, labels).tolist() == [[2, 1], [2, 2], [2, 1]]


def test_patches_are_spread_over_cases_and_classes_and_are_the_same_every_time(make_task):
    task = make_task(num_cases=3, num_classes=3)
    patches = choose_patches([task], [task.cases], 12)
    assert patches == choose_patches([task], [task.cases], 12)
    assert [patch.case.name for patch in patches] == ["c0", "c1", "c2"] * 4
    centres = []
    for patch in patches:
        _, classes = patch.case.read_patch(patch.corner, (8, 16, 16))
        centres.append(set(np.unique(classes)))
        assert all(0 <= c <= n - s for c, n, s in zip(patch.corner, (12, 24, 24), (8, 16, 16), strict=True))
    assert {1, 2} <= set.union(*centres)
    assert choose_patches([task], [()], 12) == []


def test_validation_ignores_what_lies_beyond_a_volume_where_voxels_are_ignored(
    make_task, make_options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    task, seen = make_task(shape=(4, 24, 24), patch=(8, 16, 16)), []
    monkeypatch.setattr(monitor, "count_voxels", lambda *given: (seen.append(given[1]), count_voxels(*given))[1])
    for ignore_id, outside in ((9, 3), (None, 0)):
        labels = task.plan.labels.model_copy(update={"ignore_id": ignore_id})
        own = replace(task, plan=task.plan.model_copy(update={"labels": labels}))
        options = make_options(max_steps=8)
        Monitor(
            small_network(), [own], held_out_of(own), tmp_path, options, Ranks(), every=8, patience=None, numbers={}
        ).count()
        assert all((classes[[0, 1, 6, 7]] == outside).all() and classes[2:6].max() == 2 for classes in seen)
        assert seen
        seen.clear()


# --- what it costs


@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
@pytest.mark.parametrize("max_steps", [10, 1000, 50_000])
def test_validation_takes_at_most_three_per_cent_of_a_runs_patches(make_task, make_options, batch_size, max_steps):
    """Counted, so that a run validates at the same steps however fast the machine is; a prediction costs a third."""
    every, num_patches = plan_validations([make_task(batch_size=batch_size)], make_options(max_steps=max_steps), None)
    assert every is not None
    share = num_patches / 3 / (every * batch_size)
    assert share <= 0.03
    assert 16 <= num_patches <= 64
    assert max_steps // every <= 50


def test_by_the_clock_validations_wait_until_the_last_one_is_paid_for(make_task, make_options, tmp_path: Path):
    task, options = make_task(), make_options(max_steps=None, max_minutes=50.0)
    own = Monitor(
        small_network(), [task], held_out_of(task), tmp_path, options, Ranks(), every=None, patience=None, numbers={}
    )
    seen = []
    own.validate = lambda step, seconds: (seen.append(step), own.numbers.update(last_validation_seconds=3.0))
    for step in range(1, 251):
        own.after_step(step, step)
    # Every fiftieth of the run, 60 s; after one that took 3 s, 97 s at the least: 3 of 100.
    assert seen == [60, 157]


def test_a_run_that_is_stopped_is_saved_before_it_validates(make_task, make_options, tmp_path: Path, monkeypatch):
    """Whoever stops it may kill it soon after."""

    def be_killed(self: Monitor, step: int, seconds: float) -> None:
        raise Killed

    def stopped_learn(*arguments) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return learn(*arguments)

    task, learn = make_task(), loop.SegmentationLearner.learn
    monkeypatch.setattr(Monitor, "validate", be_killed)
    monkeypatch.setattr(loop.SegmentationLearner, "learn", stopped_learn)
    options = make_options(max_steps=4, validate_every=1, checkpoint_minutes=60.0)
    with pytest.raises(Killed):
        train_network(small_network(), [task], tmp_path, options, run={}, held_out=held_out_of(task))
    assert read_metadata(tmp_path / CHECKPOINT)["step"] == "1"


@pytest.mark.parametrize("is_killed", [False, True], ids=["in time", "while it validates"])
def test_a_run_that_is_stopped_where_a_validation_is_due_goes_on_to_the_same_ones(
    is_killed: bool, make_task, make_options, tmp_path: Path, monkeypatch
):
    """Rows, smoothed and best Dice: what --patience decides by."""
    task = make_task()
    options = make_options(max_steps=4, validate_every=2, patience=9, checkpoint_minutes=60.0)

    def train(name: str) -> None:
        train_network(small_network(), [task], tmp_path / name, options, run={}, held_out=held_out_of(task))

    def stop_at_step_2(*arguments: object) -> float:
        if next(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(*arguments)

    def be_killed(_: Monitor) -> list:
        raise Killed

    train("whole")
    count, train_step = itertools.count(1), loop.train_step
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Killed)):
        patch.setattr(loop, "train_step", stop_at_step_2)
        if is_killed:
            patch.setattr(Monitor, "count", be_killed)
        train("parts")
    assert read_progress(tmp_path / "parts" / CHECKPOINT).step == 2
    train("parts")
    assert read_validation(tmp_path / "parts") == read_validation(tmp_path / "whole")
    found = []
    for name in ("parts", "whole"):
        numbers = json.loads(read_metadata(tmp_path / name / CHECKPOINT)["numbers"])
        found.append({key: value for key, value in numbers.items() if not key.endswith(("seconds", "_at"))})
    assert found[0] == found[1]
    assert found[0]["num_validations"] == 2


# --- validation.csv


def test_dice_of_each_class_is_written_and_the_weights_are_those_of_a_run_without(
    make_task, make_options, tmp_path: Path
):
    task = make_task()
    with_it, without = small_network(), small_network()
    watched = make_options(max_steps=4, validate_every=2)
    train_network(with_it, [task], tmp_path / "with", watched, run={}, held_out=held_out_of(task))
    train_network(without, [task], tmp_path / "without", make_options(max_steps=4), run={})
    with (tmp_path / "with/validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["dataset"], row["class"]) for row in rows] == [
        (step, task.name, name) for step in ("2", "4") for name in ("organ1", "organ2")
    ]
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    assert not (tmp_path / "without/validation.csv").exists()
    for (name, value), other in zip(with_it.state_dict().items(), without.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert all(module.training for module in with_it.modules())


def test_a_class_that_is_nowhere_has_an_empty_cell(make_task, make_options, tmp_path: Path, monkeypatch):
    task = make_task()
    counts = [[[0.0, 3.0], [0.0, 4.0], [0.0, 4.0]]]
    options = make_options(max_steps=1, validate_every=1)
    monkeypatch.setattr(Monitor, "count", lambda _: counts)
    train_network(small_network(), [task], tmp_path, options, run={}, held_out=held_out_of(task))
    assert [row["dice"] for row in read_rows(tmp_path / "validation.csv")] == ["", "0.750000"]


def test_classes_of_the_same_name_are_told_apart_by_their_dataset(make_task, make_options, tmp_path: Path, monkeypatch):
    tasks = [make_task(name) for name in ("Dataset001_A", "Dataset002_B")]
    counts = [[[1.0, 3.0], [4.0, 4.0], [4.0, 4.0]], [[2.0, 0.0], [4.0, 0.0], [4.0, 0.0]]]
    monkeypatch.setattr(Monitor, "count", lambda _: counts)
    held_out = [task.cases[-1:] for task in tasks]
    options = make_options(max_steps=8)
    Monitor(
        small_network(), tasks, held_out, tmp_path, options, Ranks(), every=8, patience=None, numbers={}
    ).after_step(8, 1.0)
    assert [(point.step, point.dataset, point.name, point.dice) for point in read_validation(tmp_path)] == [
        (8, "Dataset001_A", "organ1", 0.25),
        (8, "Dataset001_A", "organ2", 0.75),
        (8, "Dataset002_B", "organ1", 0.5),
        (8, "Dataset002_B", "organ2", None),
    ]


# --- patience


def script(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Dice of the validations, one after the other; the last one for ever."""
    left = list(values)

    def count(_: Monitor) -> list:
        value = left.pop(0) if len(left) > 1 else left[0]
        return [[[value, value], [1.0, 1.0], [1.0, 1.0]]]

    monkeypatch.setattr(Monitor, "count", count)


def test_without_progress_the_rate_falls_to_zero_and_the_run_ends_early(
    make_task, make_options, tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    monkeypatch.setattr(monitor, "SMOOTHING", 0.0)
    script(monkeypatch, [0.5, 0.6, 0.6, 0.55, 0.6])
    task = make_task()
    options = make_options(max_steps=400, validate_every=5, patience=3, checkpoint_minutes=60.0)
    monkeypatch.setattr(loop, "train_step", lambda *_: 1.0)
    progress = train_network(small_network(), [task], tmp_path, options, run={}, held_out=held_out_of(task))
    # Best after 10; not better after 15, 20 and 25. A tenth of 25 steps more: 27.5.
    assert (progress.step, progress.is_finished) == (28, True)
    assert "--patience 3: the smoothed validation Dice, 0.6000, was best after step 10 (0.6000)" in caplog.text
    rates = [float(row["learning_rate"]) for row in read_rows(tmp_path / "curves.csv")]
    assert all(earlier > later for earlier, later in zip(rates[24:], rates[25:], strict=False))
    assert rates[27] < 0.15 * rates[25]
    assert "patches took" in caplog.text


def test_a_dice_that_rises_or_an_end_that_is_near_changes_nothing(make_task, make_options, tmp_path: Path, monkeypatch):
    task = make_task()
    monkeypatch.setattr(loop, "train_step", lambda *_: 1.0)
    options = make_options(max_steps=30, validate_every=2, patience=3, checkpoint_minutes=60.0)
    script(monkeypatch, [number / 100 for number in range(100)])
    assert train_network(small_network(), [task], tmp_path / "a", options, run={}, held_out=[task.cases]).step == 30
    script(monkeypatch, [number / 100 for number in range(12)] + [0.0])
    train_network(small_network(), [task], tmp_path / "b", options, run={}, held_out=[task.cases])
    rates = [[row["learning_rate"] for row in read_rows(tmp_path / name / "curves.csv")] for name in "ab"]
    assert rates[0] == rates[1]


def test_the_course_hurries_through_the_rest_of_the_schedule_without_a_jump(make_task, make_options, tmp_path: Path):
    numbers: dict[str, float] = {}
    own = Monitor(
        small_network(), [make_task()], (), tmp_path, make_options(), Ranks(), every=None, patience=2, numbers=numbers
    )
    assert own.course(0.7) == 0.7
    numbers["hurried_from"] = 0.5
    assert own.course(0.5) == 0.5
    assert own.course(0.525) == pytest.approx(0.75)
    assert own.course(0.55) == pytest.approx(1)
    numbers["hurried_from"] = 0.95  # a tenth more would be beyond the end
    assert own.course(0.97) == 0.97


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_hurried_goes_on_to_the_same_weights(
    make_task, make_options, tmp_path: Path, monkeypatch
):
    """Smoothed Dice, patience and course are in the checkpoint; validation.csv has no row twice."""
    task = make_task()
    options = make_options(max_steps=60, validate_every=4, patience=2)
    script(monkeypatch, [0.5, 0.4])
    whole = small_network()
    progress = train_network(whole, [task], tmp_path / "whole", options, run={}, held_out=held_out_of(task))
    assert progress.step < 20
    real = steps.save_state

    def save_until(path: Path, learned: Learned, progress: Progress) -> None:
        if progress.step > 12:  # patience was out after 12
            raise Killed
        real(path, learned, progress)

    script(monkeypatch, [0.5, 0.4])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(steps, "save_state", save_until)
        train_network(small_network(), [task], tmp_path / "parts", options, run={}, held_out=held_out_of(task))
    numbers = json.loads(read_metadata(tmp_path / "parts" / CHECKPOINT)["numbers"])
    assert numbers["hurried_from"] == 12 / 60
    script(monkeypatch, [0.4])
    resumed = small_network()
    again = train_network(resumed, [task], tmp_path / "parts", options, run={}, held_out=held_out_of(task))
    assert again.step == progress.step
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    tables = [(tmp_path / name / "validation.csv").read_text() for name in ("whole", "parts")]
    assert tables[0] == tables[1]
    checkpoints = [read_tensors(tmp_path / name / CHECKPOINT) for name in ("whole", "parts")]
    assert all(torch.equal(value, checkpoints[1][name]) for name, value in checkpoints[0].items())
