"""Processes that make batches outlive a signal, but not their run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection

import pytest

from spadunet.training import workers


def work(ready: Connection, linger_seconds: int) -> None:
    """What a worker does that nobody ends."""
    workers.LINGER_SECONDS = linger_seconds
    workers.begin_worker()
    ready.send(True)
    while True:
        time.sleep(0.01)
        if ready.poll():
            ready.send(ready.recv())


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_worker_outlives_the_signals_of_a_run_but_not_for_ever():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs, 1), daemon=True)
    process.start()
    assert ours.recv()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    ours.send("still there")
    assert ours.recv() == "still there"
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == -signal.SIGALRM
