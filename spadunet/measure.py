"""What a function costs in time and memory, measured here and now."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from .errors import OutputError

Result = TypeVar("Result")

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Linux's account of this process, and where it is told to forget the peak (proc(5))."""


@dataclass(frozen=True, kw_only=True)
class Cost(Generic[Result]):
    """What one call took."""

    result: Result
    seconds: float
    resting_bytes: int
    """Of the process before the call: Python and its libraries."""
    peak_bytes: int
    """Of the process at its largest during the call."""
    start_seconds: float = 0.0
    """Until the process was there and had its libraries, where it was made for the call."""


@dataclass(frozen=True, kw_only=True)
class Amount:
    """An estimate in seconds or bytes and where it comes from; None is unknown, and `basis` says why."""

    value: float | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What some work is expected to take."""

    time: Amount
    memory: Amount
    disk: Amount
    device_memory: Amount | None = None
    """Of a GPU, where one is used."""


def measure(function: Callable[..., Result], *arguments: object) -> Cost[Result]:
    """Call a function in this process.

    Where the system keeps no peak that can be reset (all but Linux), the peak is that of the whole process so far.
    """
    resting = memory_bytes("VmRSS")
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")
    start = time.monotonic()
    result = function(*arguments)
    seconds = time.monotonic() - start
    return Cost(result=result, seconds=seconds, resting_bytes=resting, peak_bytes=max(resting, memory_bytes("VmHWM")))


def measure_apart(function: Callable[..., Result], *arguments: object) -> Cost[Result]:
    """Call a function in a fresh process, whose memory holds nothing of this one's.

    Args:
        function: importable by name, with arguments and a result that can be pickled.

    Raises:
        OutputError: if the process dies.
    """
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    start = time.time()
    try:
        cost, began = pool.submit(measure_with_clock, function, *arguments).result()
    except BrokenProcessPool as error:
        raise OutputError("the trial run died, probably for lack of memory") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return Cost(
        result=cost.result,
        seconds=cost.seconds,
        resting_bytes=cost.resting_bytes,
        peak_bytes=cost.peak_bytes,
        start_seconds=began - start,
    )


def measure_with_clock(function: Callable[..., Result], *arguments: object) -> tuple[Cost[Result], float]:
    """As `measure`, and the time of day when the call began."""
    began = time.time()
    return measure(function, *arguments), began


def memory_bytes(field: str) -> int:
    """Memory of this process: VmRSS now, VmHWM at its peak; elsewhere than on Linux the peak for both."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
