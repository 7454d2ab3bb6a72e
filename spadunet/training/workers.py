"""Processes that make batches ahead."""

from __future__ import annotations

import signal

import blosc2

LINGER_SECONDS = 30
"""As long as torchrun leaves a run to save itself."""


def begin_worker(number: int = 0) -> None:
    """Outlive Ctrl-C and SIGTERM for a while: terminals, torchrun and batch systems send them to all of a run.

    A worker that died of one would take away the batches of the step that the run wants to finish before it saves. It
    ends when the run does, or LINGER_SECONDS after SIGTERM: nobody waits for it for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LINGER_SECONDS))


def end_threads() -> None:
    """Before processes are forked: from now on Blosc2 reads with a single thread.

    A forked process has none of the threads of the one that it was forked from, and waits for Blosc2's for ever if that
    had read a patch before.
    """
    blosc2.set_nthreads(1)
