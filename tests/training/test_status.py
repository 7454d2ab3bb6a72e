"""Whether a run is going on: by its lock, however its process ended; else by its news."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_folder import make_run, plan_of, status_of

from spadunet.errors import InputError
from spadunet.training.status import (
    MAX_SILENCE_SECONDS,
    hold,
    is_alive,
    is_held,
    last_news,
    read_status,
    require_free,
    status_path,
    write_status,
)

HOLDER = """
import sys, time
from pathlib import Path
from spadunet.training.status import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_status_goes_to_its_file_and_back_and_is_stamped(tmp_path: Path):
    assert read_status(tmp_path) is None
    status = status_of(plans=[plan_of("Dataset001_A")], updated="2020-01-01T00:00:00Z")
    write_status(tmp_path, status)
    found = read_status(tmp_path)
    assert found is not None and found.updated.year > 2020
    assert found.model_copy(update={"updated": status.updated}) == status


def test_a_damaged_status_is_an_error_that_names_the_file(tmp_path: Path):
    status_path(tmp_path).parent.mkdir()
    status_path(tmp_path).write_text('{"kind": "dance"}', encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json: field '"):
        read_status(tmp_path)


def test_a_folder_is_held_until_the_end_and_looking_does_not_take_it(tmp_path: Path):
    assert not is_held(tmp_path)
    with hold(tmp_path):
        assert is_held(tmp_path) and is_held(tmp_path)
    assert not is_held(tmp_path)


def test_a_second_run_in_the_same_folder_is_told_whose_the_first_is_and_changes_nothing(tmp_path: Path):
    require_free(tmp_path)
    with hold(tmp_path) as is_locked:
        assert is_locked
        write_status(tmp_path, status_of(process=4711, host="node7"))
        before = status_path(tmp_path).read_bytes()
        words = r"this run is going on: process 4711 on node7; wait for it, or give another -o"
        for attempt in (lambda: require_free(tmp_path), hold(tmp_path).__enter__):
            with pytest.raises(InputError, match=words):
                attempt()
        assert status_path(tmp_path).read_bytes() == before
    require_free(tmp_path)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_a_killed_run_forked_does_not_hold_its_folder(tmp_path: Path):
    (told, tell), (ended, end) = os.pipe(), os.pipe()
    with hold(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(tell, b"here")
            os.read(ended, 1)
            os._exit(0)
        os.read(told, 4)
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    os.write(end, b"x")
    os.waitpid(child, 0)
    for number in (told, tell, ended, end):
        os.close(number)


def test_where_the_file_system_has_no_locks_news_tell_on_the_same_machine_too(tmp_path: Path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("spadunet.locks.fcntl.flock", flock)
    with hold(tmp_path) as is_locked:
        assert not is_locked
    assert not is_alive(tmp_path, status_of(is_locked=False))
    status = make_run(tmp_path, {"Dataset001_A": ("liver",)}).model_copy(update={"is_locked": is_locked})
    assert is_alive(tmp_path, status)


def test_a_killed_process_holds_nothing(tmp_path: Path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not is_held(tmp_path)


def test_of_another_machine_recent_news_tell_and_of_this_one_the_lock_alone(tmp_path: Path):
    status = make_run(tmp_path, {"Dataset001_A": ("liver",)})
    assert time.time() - last_news(tmp_path) < 60
    elsewhere = status.model_copy(update={"host": "node7"})
    assert is_alive(tmp_path, elsewhere) and is_alive(tmp_path, None)
    assert not is_alive(tmp_path, status)
    old = time.time() - MAX_SILENCE_SECONDS - 60
    for path in (tmp_path / "curves.csv", status_path(tmp_path)):
        os.utime(path, (old, old))
    assert not is_alive(tmp_path, elsewhere)
    with hold(tmp_path):
        assert is_alive(tmp_path, elsewhere) and is_alive(tmp_path, status)


def test_where_nothing_can_be_locked_a_run_goes_on(tmp_path: Path):
    (tmp_path / "state").write_text("in the way", encoding="utf-8")
    with hold(tmp_path):
        assert not is_held(tmp_path)
