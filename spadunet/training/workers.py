"""Processes that make batches ahead."""

from __future__ import annotations

import signal


def begin_worker(number: int = 0) -> None:
    """Leave Ctrl-C and SIGTERM to the run: torchrun and terminals send them to all its processes.

    A worker that died of one would end the step that the run wants to finish before it saves.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
