"""The loop of both pre-training stages: exact resume, honest ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from html_page import read_page
from toy_stage import NUM_STEPS, ToyBatch, ToyStage, signal_at, spoil_from, toy_batches, toy_options

from spadunet.errors import OutputError
from spadunet.pretraining.loop import pretrain
from spadunet.tensors import read_tensors
from spadunet.training.curves import read_rows
from spadunet.training.ranks import Ranks
from spadunet.training.runs import summarise
from spadunet.training.state import Progress, read_progress
from spadunet.training.status import read_status

CHECKPOINT = "state/checkpoint.safetensors"


def run_toy(folder: Path, stage: ToyStage, **changes: object) -> Progress:
    """A run of the toy stage."""
    return pretrain(stage, toy_batches(stage.ranks), folder, toy_options(**changes), stage.ranks, run={"seed": "0"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ToyStage]:
    """A run that nothing stopped."""
    folder, stage = tmp_path_factory.mktemp("whole"), ToyStage(Ranks())
    assert run_toy(folder, stage).is_finished
    return folder, stage


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_stopped_goes_on_to_the_very_same_weights(number, whole, tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path, ToyStage(Ranks(), before=signal_at(3, number)))
    progress = read_progress(tmp_path / CHECKPOINT)
    assert (progress.step, progress.is_finished, progress.run) == (4, False, {"seed": "0"})
    resumed = ToyStage(Ranks())
    torch.nn.init.zeros_(resumed.judge.weight)  # what counts comes from the checkpoint
    assert run_toy(tmp_path, resumed).step == NUM_STEPS
    folder, stage = whole
    for name, network in stage.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, resumed.networks[name].state_dict()[key]), key
    assert resumed.numbers == stage.numbers
    states = [read_tensors(path / CHECKPOINT) for path in (folder, tmp_path)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    rows = [read_rows(path / "curves.csv") for path in (folder, tmp_path)]
    told = [
        [(row["step"], row["da"], row["loss"], row["judge_loss"], row["learning_rate"]) for row in run] for run in rows
    ]
    assert told[0] == told[1]
    assert [row["step"] for row in rows[0]] == [str(step) for step in range(NUM_STEPS)]


def test_every_group_of_parameters_follows_the_schedule_from_its_own_peak(whole):
    _, stage = whole
    rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in stage.optimisers.items()}
    # Five sixths done, (5/6 - 0.2) / 0.8 of the cosine: (1 + cos(142.5 degrees)) / 2 = 0.10332.
    assert rates["encoder"] == pytest.approx(1e-6 + (1e-2 - 1e-6) * 0.10332, rel=1e-4)
    assert rates["judge"] == pytest.approx(1e-6 + (1e-3 - 1e-6) * 0.10332, rel=1e-4)


def test_pictures_are_made_now_and_then_and_at_the_end(tmp_path: Path):
    stage = ToyStage(Ranks())
    run_toy(tmp_path, stage, show_minutes=1e-9)
    assert stage.shown == [*range(1, NUM_STEPS + 1), NUM_STEPS]
    other = ToyStage(Ranks())
    run_toy(tmp_path / "other", other)
    assert other.shown == [NUM_STEPS]


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, caplog):
    progress = run_toy(tmp_path, ToyStage(Ranks(), before=spoil_from(3, 4)))
    assert (progress.step, progress.is_finished, progress.num_skipped) == (NUM_STEPS, True, 2)
    assert "loss and judge_loss became nan at step 4 (da 1; of noise): step skipped (2 so far)" in caplog.text
    told = f"2 of {NUM_STEPS} steps were skipped: a measure was not finite"
    assert caplog.records[-1].getMessage() == told
    status = read_status(tmp_path)
    assert status is not None and (status.state, status.reason) == ("finished", told)
    assert all(value.isfinite().all() for value in read_tensors(tmp_path / CHECKPOINT).values())
    assert [row["step"] for row in read_rows(tmp_path / "curves.csv")] == ["0", "1", "2", "5"]


def test_a_skipped_step_changes_no_weight(tmp_path: Path):
    stage = ToyStage(Ranks(), before=spoil_from(3))
    run_toy(tmp_path / "skipped", stage, max_steps=4)
    other = ToyStage(Ranks(), before=signal_at(2))
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path / "stopped", other, max_steps=4)
    for name, network in stage.networks.items():
        assert all(torch.equal(v, other.networks[name].state_dict()[key]) for key, v in network.state_dict().items())
    assert stage.numbers == other.numbers


def test_ten_steps_in_a_row_that_are_not_finite_end_a_run_also_if_it_was_stopped_between(tmp_path: Path):
    def run(stop: int) -> None:
        def spoil_and_stop(batch: ToyBatch) -> None:
            spoil_from(2, 99)(batch)
            signal_at(stop)(batch)

        batches = toy_batches(Ranks(), num_steps=20)
        stage = ToyStage(Ranks(), before=spoil_and_stop)
        pretrain(stage, batches, tmp_path, toy_options(max_steps=20), Ranks(), run={})

    with pytest.raises(KeyboardInterrupt):
        run(stop=5)
    progress = read_progress(tmp_path / CHECKPOINT)
    assert (progress.step, progress.num_skipped, progress.skipped_in_a_row) == (6, 4, 4)
    with pytest.raises(
        OutputError,
        match=r"became nan at step 11 \(da 2\), as in the 9 .* diverged; start anew with a lower --learning-",
    ):
        run(stop=99)


def test_images_that_cannot_be_read_are_told_at_the_end_also_of_a_run_that_was_stopped(tmp_path: Path, caplog):
    def batches(start: int) -> Iterator[ToyBatch]:
        for batch in toy_batches(Ranks())(start):
            yield replace(batch, unreadable={1: ("b", "c"), 4: ("a", "b")}.get(batch.step, ()))

    with pytest.raises(KeyboardInterrupt):
        pretrain(ToyStage(Ranks(), before=signal_at(2)), batches, tmp_path, toy_options(), Ranks(), run={})
    assert read_progress(tmp_path / CHECKPOINT).unreadable == ("b", "c")
    progress = pretrain(ToyStage(Ranks()), batches, tmp_path, toy_options(), Ranks(), run={})
    assert progress.unreadable == ("a", "b", "c")
    told = "unreadable images, whose places others took: 3 (a, b, c)"
    assert caplog.records[-1].getMessage() == told
    assert told in read_page((tmp_path / "report.html").read_text(encoding="utf-8")).words


def test_what_others_use_of_a_result_is_written_with_every_checkpoint(tmp_path: Path):
    kept: list[tuple[int, int]] = []

    def keep(step: int) -> None:
        kept.append((step, read_progress(tmp_path / CHECKPOINT).step))

    stage = ToyStage(Ranks())
    options = toy_options(max_steps=2, checkpoint_minutes=1e-9)
    pretrain(stage, toy_batches(Ranks()), tmp_path, options, Ranks(), run={}, keep=keep)
    assert kept == [(1, 1), (2, 2), (2, 2)]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_batches_are_closed_at_the_end_with_the_processes_that_make_them(is_stopped: bool, tmp_path: Path):
    closed = []

    def batches(start: int) -> Iterator[ToyBatch]:
        try:
            yield from toy_batches(Ranks(), num_steps=100)(start)
        finally:
            closed.append(start)

    stage = ToyStage(Ranks(), before=signal_at(1)) if is_stopped else ToyStage(Ranks())
    with pytest.raises(KeyboardInterrupt) if is_stopped else contextlib.nullcontext():
        pretrain(stage, batches, tmp_path, toy_options(max_steps=3), Ranks(), run={})
    assert closed == [0]


def test_max_minutes_ends_a_run(tmp_path: Path):
    progress = run_toy(tmp_path, ToyStage(Ranks()), max_steps=None, max_minutes=1e-6)
    assert (progress.step, progress.is_finished) == (1, True)


def test_a_run_is_shown_on_its_page_and_listed_with_how_it_ended(whole, tmp_path: Path):
    folder, _ = whole
    reader = read_page((folder / "report.html").read_text(encoding="utf-8"))
    assert {"Finished", "Loss", "Judge loss", str(NUM_STEPS)} <= set(reader.words)
    assert (summarise(folder).state, summarise(folder).kind, summarise(folder).steps) == ("finished", "mim", NUM_STEPS)
    with pytest.raises(KeyboardInterrupt):
        run_toy(tmp_path, ToyStage(Ranks(), before=signal_at(3)))
    assert "Interrupted" in read_page((tmp_path / "report.html").read_text(encoding="utf-8")).words
    assert (summarise(tmp_path).state, summarise(tmp_path).steps) == ("interrupted", 4)
