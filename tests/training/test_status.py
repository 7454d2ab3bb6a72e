"""Whether a run is going on: by its lock, however its process ended; else by its news."""

from __future__ import annotations

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
        with hold(tmp_path):  # another run in the same folder is not kept from running
            assert is_held(tmp_path)
    assert not is_held(tmp_path)


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
    assert is_alive(tmp_path, "node7") and is_alive(tmp_path, None)
    assert not is_alive(tmp_path, status.host)
    old = time.time() - MAX_SILENCE_SECONDS - 60
    for path in (tmp_path / "curves.csv", status_path(tmp_path)):
        os.utime(path, (old, old))
    assert not is_alive(tmp_path, "node7")
    with hold(tmp_path):
        assert is_alive(tmp_path, "node7") and is_alive(tmp_path, status.host)


def test_where_nothing_can_be_locked_a_run_goes_on(tmp_path: Path):
    (tmp_path / "state").write_text("in the way", encoding="utf-8")
    with hold(tmp_path):
        assert not is_held(tmp_path)
