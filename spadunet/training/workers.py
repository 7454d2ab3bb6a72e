"""Processes that make batches ahead."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Generic, TypeVar

import blosc2
from torch.utils.data import DataLoader, Dataset

from ..errors import InputError

Drawn = TypeVar("Drawn")

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


class ErrorsAsItems(Dataset, Generic[Drawn]):
    """A stream that gives an `InputError` instead of raising it: torch would put a worker's traceback into its text."""

    def __init__(self, stream: Dataset[Drawn]):
        self.stream = stream

    def __getitem__(self, step: int) -> Drawn | InputError:
        try:
            return self.stream[step]
        except InputError as error:
            return error


def make_ahead(stream: Dataset[Drawn], steps: range, num_workers: int) -> Iterator[Drawn]:
    """Batches of these steps, made ahead by worker processes, which end when this is closed.

    Raises:
        InputError: what the stream raises, the same with and without workers.
    """
    if num_workers:
        end_threads()
    loader = DataLoader(
        ErrorsAsItems(stream),
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=begin_worker,
    )
    for drawn in loader:
        if isinstance(drawn, InputError):
            raise drawn
        yield drawn
