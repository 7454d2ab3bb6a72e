"""The same function over many cases, in one process and in two.

The functions come from the package: a worker process must find them by name.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from spadunet.errors import InputError, OutputError
from spadunet.labels import LabelSet
from spadunet.parallel import Outcome, map_cases
from spadunet.record import read_record, write_record

LABELS = LabelSet(names=("background", "liver"), ids=(0, 1))
READ = partial(read_record, kind=LabelSet, remedy="write it")


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_bad_item_gets_its_line_and_does_not_stop_the_others(tmp_path: Path, num_processes: int):
    first, missing, last = (tmp_path / f"{name}.json" for name in "abc")
    write_record(first, LABELS)
    write_record(last, LABELS)
    outcomes = map_cases(READ, [first, missing, last], num_processes=num_processes, title="Reading")
    assert sorted(outcomes, key=lambda outcome: outcome.item) == [
        Outcome(item=first, result=LABELS, problem=None),
        Outcome(item=missing, result=None, problem=f"{missing}: not found; write it"),
        Outcome(item=last, result=LABELS, problem=None),
    ]


@pytest.mark.parametrize("error", [InputError("bad scan"), OutputError("disk full")])
def test_errors_meant_for_the_user_become_problems(error: Exception):
    def fail(item: int) -> int:
        raise error

    assert list(map_cases(fail, [7], num_processes=1, title="")) == [Outcome(item=7, result=None, problem=str(error))]


def test_an_error_of_ours_names_its_place_and_does_not_stop_the_others():
    first, second = map_cases(lambda item: 1 / item, [0, 1], num_processes=1, title="")
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

    first, second = map_cases(fail_at_seven, [7, 8], num_processes=1, title="")
    assert first.problem == "7: out of memory; free some, or use a larger machine"
    assert second == Outcome(item=8, result=8, problem=None)


def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog):
    caplog.set_level("INFO", "spadunet")
    monkeypatch.setattr("spadunet.parallel.LINE_SECONDS", 0)
    list(map_cases(str, [1, 2], num_processes=1, title="Reading"))
    assert [record.getMessage() for record in caplog.records] == ["Reading: 1 of 2 cases", "Reading: 2 of 2 cases"]


def test_no_items_have_no_outcomes_whatever_the_number_of_processes():
    assert list(map_cases(READ, [], num_processes=8, title="")) == []


def test_one_item_needs_no_second_process():
    [outcome] = map_cases(lambda item: os.getpid(), [0], num_processes=8, title="")
    assert outcome.result == os.getpid()


def test_a_worker_that_dies_is_told_in_one_line():
    with pytest.raises(OutputError) as caught:
        list(map_cases(os._exit, [9, 9], num_processes=2, title="Preprocessing BTCV"))
    assert str(caught.value) == (
        "Preprocessing BTCV: a worker process died, probably for lack of memory; run the same command with a lower -np"
    )
