"""Curves: one row a step, however often a run was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadunet.training import curves as curves_module
from spadunet.training.curves import CSV_FILE, PNG_FILE, TENSORBOARD_FOLDER, Curves, read_rows


def add(curves: Curves, step: int, loss: float = 1.0, task: str = "A") -> None:
    """A row."""
    curves.add(step, step / 60, {"task": task, "da": 0}, {"loss": loss}, {"learning_rate": 0.1, "waiting_share": 0})


def steps(folder: Path) -> list[int]:
    """Those in the file."""
    return [int(row["step"]) for row in read_rows(folder / CSV_FILE)]


def test_a_row_is_on_disk_as_soon_as_it_is_added(tmp_path: Path):
    curves = Curves(tmp_path, 0)
    add(curves, 0)
    assert steps(tmp_path) == [0]
    curves.close()
    assert (tmp_path / CSV_FILE).read_text().splitlines()[0] == "step,minutes,task,da,loss,learning_rate,waiting_share"


def test_closing_leaves_a_picture_and_tensorboard_files(tmp_path: Path):
    curves = Curves(tmp_path, 0, by="task")
    add(curves, 0, task="A")
    add(curves, 1, task="B")
    curves.close()
    assert (tmp_path / PNG_FILE).read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / TENSORBOARD_FOLDER).iterdir())


def test_a_run_without_a_step_draws_nothing(tmp_path: Path):
    Curves(tmp_path, 0).close()
    assert steps(tmp_path) == []
    assert not (tmp_path / PNG_FILE).exists()


@pytest.mark.parametrize(("start", "kept"), [(0, []), (2, [0, 1]), (4, [0, 1, 2, 3])])
def test_opening_at_a_step_drops_what_a_killed_run_did_beyond_it(tmp_path: Path, start: int, kept: list[int]):
    curves = Curves(tmp_path, 0)
    for step in range(4):
        add(curves, step)
    curves.close()
    with (tmp_path / CSV_FILE).open("a") as file:
        file.write("4,0.1,A")  # half a row, as a kill leaves it
    curves = Curves(tmp_path, start)
    add(curves, start)
    curves.close()
    assert steps(tmp_path) == [*kept, start]


def test_many_measures_share_a_picture_and_columns_that_came_later_are_empty_before(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(curves_module, "MAX_POINTS", 20)
    first = Curves(tmp_path, 0)
    add(first, 0)
    first.close()
    curves = Curves(tmp_path, 1)
    pace = {"learning_rate": 0.1}
    for step in range(1, 100):
        curves.add(step, step / 60, {"da": step % 6}, {"loss": 1 / step, "entropy": 4.0, "codes_used": 1024}, pace)
    curves.close()
    rows = read_rows(tmp_path / CSV_FILE)
    assert [row["step"] for row in rows] == [str(step) for step in range(100)]
    assert (rows[0]["loss"], rows[0]["entropy"]) == ("1", "")
    assert (tmp_path / PNG_FILE).read_bytes().startswith(b"\x89PNG")


def test_a_dataset_may_be_called_anything(tmp_path: Path):
    curves = Curves(tmp_path, 0, by="task")
    for step, task in enumerate(["$x^$", "_hidden", "<b>"]):
        add(curves, step, task=task)
    curves.close()
    assert (tmp_path / PNG_FILE).read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_fails_ends_no_run(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(curves_module, "plot_smooth", lambda *_: 1 / 0)
    curves = Curves(tmp_path, 0, by="task")
    add(curves, 0)
    curves.draw()
    add(curves, 1)
    curves.close()
    assert steps(tmp_path) == [0, 1]
    assert "curves.png: cannot be drawn (ZeroDivisionError" in caplog.text


def test_short_curves_are_smoothed_over_a_fifth_and_long_ones_over_fifty():
    widths = [curves_module.smoothing_width(number) for number in (0, 1, 10, 100, 250, 100_000)]
    assert widths == [1, 1, 2, 20, 50, 50]
