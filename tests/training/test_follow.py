"""A run's folder tells how it ended, and nothing that is shown can end it."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
from html_page import read_page
from run_folder import plan_of, score_of, write_curves, write_validation
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spadunet.training import follow as follow_module
from spadunet.training.board import DicePoint
from spadunet.training.board import write_validation as write_board
from spadunet.training.follow import Followed, followed
from spadunet.training.report import REPORT_HTML
from spadunet.training.status import RunStatus, hold, is_held, read_status

PLAN = plan_of("Dataset001_A", ("liver",))
REQUEST = {"datasets": PLAN.dataset_name, "fold": "0", "max_steps": "100"}


@pytest.fixture
def follow(tmp_path: Path, make_options):
    """Follow a run in a folder."""

    def follow(**changes: object):
        return followed(tmp_path, "train", make_options(), request=REQUEST, plans=[PLAN], **changes)

    return follow


def status_in(folder: Path) -> RunStatus:
    """It is there."""
    status = read_status(folder)
    assert status is not None
    return status


def words_in(folder: Path) -> list[str]:
    """On the page."""
    return read_page((folder / REPORT_HTML).read_text(encoding="utf-8")).words


def test_while_it_goes_on_a_run_is_held_and_shown_as_running_and_then_as_finished(tmp_path: Path, follow):
    with follow() as run:
        assert is_held(tmp_path)
        assert status_in(tmp_path).state == "running"
        assert {"Running", "0 of 100"} <= set(words_in(tmp_path))
        write_curves(tmp_path, [PLAN.dataset_name], 40)
        run.rest_until = 0
        run.refresh()
        assert "40 of 100" in words_in(tmp_path)
        run.problems = ["c1: damaged"]
    assert not is_held(tmp_path)
    assert (status_in(tmp_path).state, status_in(tmp_path).reason) == ("finished", "c1: damaged")
    assert {"Finished", "c1: damaged"} <= set(words_in(tmp_path))


def test_a_folder_that_is_held_already_stays_so_and_where_there_is_no_lock_that_is_told(tmp_path: Path, follow):
    with hold(tmp_path) as is_locked:
        with follow(is_locked=is_locked):
            assert status_in(tmp_path).is_locked
        assert is_held(tmp_path)
    with follow(is_locked=False):
        assert not status_in(tmp_path).is_locked
        assert not is_held(tmp_path)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (RuntimeError("out of memory"), "failed", "out of memory"),
        (SystemExit(), "failed", "SystemExit"),
    ],
)
def test_how_it_ended_is_told_and_the_error_goes_on(tmp_path: Path, follow, error, state: str, reason: str):
    with pytest.raises(type(error)), follow():
        raise error
    assert (status_in(tmp_path).state, status_in(tmp_path).reason) == (state, reason)
    assert state.capitalize() in words_in(tmp_path)


def test_a_run_that_goes_on_keeps_its_first_start(tmp_path: Path, follow):
    with pytest.raises(KeyboardInterrupt), follow():
        raise KeyboardInterrupt
    first = status_in(tmp_path)
    with follow():
        pass
    second = status_in(tmp_path)
    assert (second.started, second.num_starts) == (first.started, 2)


def test_the_page_is_drawn_seldom_enough_to_cost_little(tmp_path: Path, follow, monkeypatch):
    drawn: list[Path] = []
    monkeypatch.setattr(follow_module, "write_report", drawn.append)
    with follow() as run:
        for _ in range(1000):
            run.refresh()
        run.rest_until = 0
        run.refresh()
        assert run.rest_until > 0
    assert 3 <= len(drawn) < 100


def test_nothing_that_fails_ends_the_run_but_is_logged(tmp_path: Path, follow, monkeypatch, caplog):
    monkeypatch.setattr(follow_module, "write_report", lambda folder: 1 / 0)
    with caplog.at_level(logging.WARNING, "spadunet"), follow() as run:
        run.refresh()
    assert "its page cannot be written (ZeroDivisionError: division by zero)" in caplog.text
    assert status_in(tmp_path).state == "finished"


def test_a_full_disk_ends_no_run(tmp_path: Path, follow, full_disk, caplog):
    with caplog.at_level(logging.WARNING, "spadunet"), follow() as run:
        run.refresh()
    assert "No space left" in caplog.text or "no space is left" in caplog.text
    assert not (tmp_path / REPORT_HTML).exists()


def test_a_process_that_is_not_the_first_writes_nothing(tmp_path: Path, follow):
    with follow(is_first=False) as run:
        run.refresh()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_what_the_file_says_when_a_run_goes_on_from_before_its_last_rows(tmp_path: Path, follow):
    def points(*steps: int) -> list[DicePoint]:
        return [DicePoint(dataset="Dataset001_A", step=step, name="liver", dice=step / 128) for step in steps]

    with pytest.raises(KeyboardInterrupt), follow() as run:
        write_board(tmp_path, points(16, 32, 64))
        run.draw()
        raise KeyboardInterrupt
    time.sleep(1.1)  # TensorBoard orders its files by the second they were begun in, then by their number as text
    with follow() as run:  # from a checkpoint after step 20; by the clock, steps may be others than before
        write_board(tmp_path, points(16, 24, 48))
        run.draw()
    board = EventAccumulator(str(tmp_path / "tensorboard/validation"))
    board.Reload()
    shown = [(point.step, point.value) for point in board.Scalars("validation_dice/Dataset001_A/liver")]
    assert shown == [(16, 0.125), (24, 0.1875), (48, 0.375)]


def test_tensorboard_gets_validation_dice_as_it_comes_and_at_the_end(tmp_path: Path, follow):
    def see(run: Followed, *lines: str) -> None:
        text = "\n".join(["step,dataset,class,dice", *lines, ""])
        (tmp_path / "validation.csv").write_text(text, encoding="utf-8")
        run.draw()

    write_curves(tmp_path, [PLAN.dataset_name], 100)
    with follow() as run:
        see(run, "10,Dataset001_A,liver,0.25")
        see(run, "10,Dataset001_A,liver,0.25", "20,Dataset001_A,liver,", "30,Dataset001_A,liver,0.5")
        write_validation(tmp_path, PLAN.dataset_name, {"c1": {"liver": score_of(0.75)}})
    board = EventAccumulator(str(tmp_path / "tensorboard/validation"))
    board.Reload()
    points = [(point.step, point.value) for point in board.Scalars("validation_dice/Dataset001_A/liver")]
    assert points == [(10, 0.25), (30, 0.5)]
    for name in ("liver", "mean"):
        assert [(point.step, point.value) for point in board.Scalars(f"final_dice/Dataset001_A/{name}")] == [
            (100, 0.75)
        ]
