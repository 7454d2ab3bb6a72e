"""The same function over many cases, in one process and in several, of which some die.

The functions come from the package or from `deadly`: a worker process must find them by name.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from deadly import (
    die_at_once,
    die_once,
    need_much_memory,
    note_who_is_there,
    number_of_process,
    square_unless_deadly,
    write_slowly,
)

from spadunet.errors import InputError, OutputError
from spadunet.labels import LabelSet
from spadunet.parallel import WORKER_BYTES, Outcome, map_cases, run
from spadunet.record import read_record, write_record
from spadunet.workers import RESTING, Workers

UNIT = 10**9
THREE, EIGHT = Workers(num_processes=3), Workers(num_processes=8)
LABELS = LabelSet(names=("background", "liver"), ids=(0, 1))
READ = partial(read_record, kind=LabelSet, remedy="write it")


@pytest.fixture(autouse=True)
def nobody_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of earlier tests, which take memory too, are not counted."""
    monkeypatch.setattr("spadunet.parallel.RESTING", [])


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_bad_item_gets_its_line_and_does_not_stop_the_others(tmp_path: Path, num_processes: int):
    first, missing, last = (tmp_path / f"{name}.json" for name in "abc")
    write_record(first, LABELS)
    write_record(last, LABELS)
    outcomes = map_cases(READ, [first, missing, last], workers=Workers(num_processes=num_processes), title="Reading")
    assert sorted(outcomes, key=lambda outcome: outcome.item) == [
        Outcome(item=first, result=LABELS, problem=None),
        Outcome(item=missing, result=None, problem=f"{missing}: not found; write it"),
        Outcome(item=last, result=LABELS, problem=None),
    ]


@pytest.mark.parametrize("error", [InputError("bad scan"), OutputError("disk full")])
def test_errors_meant_for_the_user_become_problems(error: Exception):
    def fail(item: int) -> int:
        raise error

    assert list(map_cases(fail, [7], title="")) == [Outcome(item=7, result=None, problem=str(error))]


def test_an_error_of_ours_names_its_place_and_does_not_stop_the_others():
    first, second = map_cases(lambda item: 1 / item, [0, 1], title="")
    assert str(first.problem).startswith("0: unexpected ZeroDivisionError: division by zero (in <lambda>, ")
    assert f"{__file__}:" in str(first.problem)
    assert second.result == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …")]
)
def test_too_little_memory_for_one_case_does_not_stop_the_others(error: Exception):
    def fail_at_seven(item: int) -> int:
        if item == 7:
            raise error
        return item

    first, second = map_cases(fail_at_seven, [7, 8], title="")
    assert first.problem == "7: out of memory; free some, or use a larger machine"
    assert second == Outcome(item=8, result=8, problem=None)


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog):
    caplog.set_level("INFO", "spadunet")
    monkeypatch.setattr("spadunet.parallel.LINE_SECONDS", 0)
    list(map_cases(str, [1, 2], title="Reading"))
    assert [record.getMessage() for record in caplog.records] == ["Reading: 1 of 2 cases", "Reading: 2 of 2 cases"]


def test_no_items_have_no_outcomes_whatever_the_number_of_processes():
    assert list(map_cases(READ, [], workers=EIGHT, title="")) == []


def test_cases_that_end_their_process_are_named_with_the_cause_and_all_others_finish():
    outcomes = {
        outcome.item: outcome for outcome in map_cases(square_unless_deadly, range(10), workers=THREE, title="")
    }
    assert {number: outcome.result for number, outcome in outcomes.items() if outcome.problem is None} == {
        number: number**2 for number in (0, 1, 2, 4, 6, 7, 9)
    }
    assert {number: outcome.problem for number, outcome in outcomes.items() if outcome.problem} == {
        3: "3: its worker process was killed (SIGKILL), probably by the system for lack of memory; "
        "free some, or use a larger machine",
        5: "5: its worker process was ended with exit code 3; look at its files, or leave it out",
        8: "8: its worker process was ended by SIGSEGV; look at its files, or leave it out",
    }


@pytest.mark.parametrize("function", [die_once, need_much_memory])
def test_a_case_that_others_left_too_little_memory_is_done_alone_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, function: Callable[..., int]
):
    caplog.set_level("WARNING", "spadunet")
    outcomes = list(map_cases(partial(function, folder=tmp_path), [5, 6, 7, 8], workers=THREE, title=""))
    assert all(outcome.problem is None for outcome in outcomes)
    assert [outcome.result for outcome in outcomes][-1] == 7
    assert sorted(outcome.item for outcome in outcomes) == [5, 6, 7, 8]
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("7: ")
    assert line.endswith("; tried again alone at the end")


def test_running_cases_stay_within_the_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Memory for five units beside three workers at rest: 5, then 3 and 2, but never 5 and 1."""
    needs = {50: 5, 51: 5, 30: 3, 20: 2, 10: 1, 11: 1}
    function = partial(note_who_is_there, folder=tmp_path)
    with ThreadPoolExecutor(3) as executor:
        memory_bytes = 3 * WORKER_BYTES + 5 * UNIT
        pairs = [(number, need * UNIT) for number, need in needs.items()]
        outcomes = [outcome for outcome, _ in run(executor, function, pairs, 3, memory_bytes)]
    assert sorted(outcome.item for outcome in outcomes) == sorted(needs)
    seen = [outcome.result or [] for outcome in outcomes]
    for together in seen:
        assert sum(needs[number] for number in together) * UNIT + len(together) * WORKER_BYTES <= memory_bytes
    assert max(len(together) for together in seen) > 1
    assert caplog.records == []


def test_a_case_too_large_for_the_memory_runs_alone_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", "spadunet")
    function = partial(note_who_is_there, folder=tmp_path)
    with ThreadPoolExecutor(2) as executor:
        pairs = [(1, 1 * UNIT), (9, 9 * UNIT), (2, 2 * UNIT)]
        outcomes = run(executor, function, pairs, 2, 2 * WORKER_BYTES + 5 * UNIT)
        assert [(outcome.item, outcome.result) for outcome, _ in outcomes][-1] == (9, [9])
    [line] = [record.getMessage() for record in caplog.records]
    assert line == "9: expected to take 9.2 GB, more than the 5.4 GB that is set or free; it runs alone"


def test_memory_is_asked_of_each_item_before_it_runs(caplog: pytest.LogCaptureFixture):
    caplog.set_level("WARNING", "spadunet")
    workers = Workers(memory_bytes=UNIT)
    outcomes = map_cases(str, [1, 2, 3], workers=workers, title="", memory_of=lambda number: number * UNIT // 3)
    assert [outcome.result for outcome in outcomes] == ["2", "1", "3"]
    assert [record.getMessage()[:2] for record in caplog.records] == ["3:"]


def child_pids() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children()}


def resting_pids() -> set[int | None]:
    return {worker.result().process.pid for worker in RESTING}


def test_workers_are_interrupted_when_the_caller_stops(tmp_path: Path):
    """A worker in the middle of a case deletes what is half-written and leaves at once."""
    function = partial(write_slowly, folder=tmp_path)

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    def wait_for_two() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGUSR1)

    of_others = child_pids() - resting_pids()
    before = signal.signal(signal.SIGUSR1, stop)
    began = time.monotonic()
    try:
        threading.Thread(target=wait_for_two, daemon=True).start()
        with pytest.raises(Stop):
            list(map_cases(function, [1, 2, 3], workers=Workers(num_processes=2), title=""))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - began < 30
    assert child_pids() - resting_pids() <= of_others  # none works on


def test_the_next_cases_find_the_processes_of_the_last():
    numbers = [
        {
            outcome.result
            for outcome in map_cases(number_of_process, range(20), workers=Workers(num_processes=2), title="")
        }
        for _ in range(2)
    ]
    assert not numbers[0] & {os.getpid(), None}
    assert numbers[0] & numbers[1]
    assert len(numbers[0] | numbers[1]) <= 2 + len(RESTING)


def test_processes_that_import_from_elsewhere_are_not_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    workers = Workers(num_processes=2)
    list(map_cases(number_of_process, range(4), workers=workers, title=""))
    (tmp_path / "late_module.py").write_text("def double(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    double = importlib.import_module("late_module").double
    outcomes = list(map_cases(double, [1, 2, 3], workers=workers, title=""))
    assert sorted((outcome.result, outcome.problem) for outcome in outcomes) == [(2, None), (4, None), (6, None)]


def test_processes_that_were_started_in_another_folder_are_not_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """They would take relative paths for others."""
    workers = Workers(num_processes=2)
    list(map_cases(number_of_process, range(4), workers=workers, title=""))
    (tmp_path / "case").touch()
    monkeypatch.chdir(tmp_path)
    outcomes = list(map_cases(Path.exists, [Path("case"), Path("none")], workers=workers, title=""))
    assert {str(outcome.item): outcome.result for outcome in outcomes} == {"case": True, "none": False}


def test_processes_that_died_while_they_rested_are_not_used():
    workers = Workers(num_processes=2)
    list(map_cases(number_of_process, range(8), workers=workers, title=""))
    dead = [worker.result().process for worker in RESTING]
    for process in dead:
        process.kill()
        process.join()
    outcomes = list(map_cases(number_of_process, range(8), workers=workers, title=""))
    assert [outcome.problem for outcome in outcomes] == [None] * 8
    assert not {outcome.result for outcome in outcomes} & {process.pid for process in dead}


def test_a_single_case_that_ends_its_process_does_not_end_the_caller():
    (outcome,) = map_cases(die_at_once, [1], workers=Workers(num_processes=4), title="")
    assert outcome.problem is not None
    assert "was killed (SIGKILL)" in outcome.problem
