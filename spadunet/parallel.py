"""One way to run a function over many cases: in this process or in several, with a progress bar."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

from .errors import InputError, OutputError

LINE_SECONDS = 30
"""Without a terminal there is no bar: a line this often says how far the work is."""

log = logging.getLogger("spadunet")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the line that says why not."""

    item: Item
    result: Result | None
    problem: str | None
    traceback: str | None = None
    """Where an error happened that was not meant for the user; logged with `--debug`."""


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_processes: int, title: str
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each item as it is done, in any order; a bad item never stops the others.

    Args:
        function: importable by name, with arguments that can be pickled, if num_processes > 1.
        num_processes: 1 runs in this process.
        title: what the bar says; without a terminal, a line now and then.

    Raises:
        OutputError: if a worker process dies.
    """
    if min(num_processes, len(items)) <= 1:
        outcomes: Generator[Outcome[Item, Result]] = (attempt(function, item) for item in items)
    else:
        outcomes = run_in_pool(function, items, min(num_processes, len(items)), title)
    last_line = time.monotonic()
    with contextlib.closing(outcomes), tqdm(total=len(items), desc=title, unit="case", disable=None) as bar:
        for number, outcome in enumerate(outcomes, start=1):
            if outcome.traceback:
                log.debug(outcome.traceback)
            yield outcome
            bar.update()
            if bar.disable and time.monotonic() - last_line > LINE_SECONDS:
                log.info("%s: %d of %d cases", title, number, len(items))
                last_line = time.monotonic()


def run_in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], num_processes: int, title: str
) -> Generator[Outcome[Item, Result]]:
    """The outcomes of `map_cases`, from worker processes."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        num_processes, mp_context=context, initializer=leave_with_parent, initargs=(os.getpid(),)
    )
    try:
        futures: list[Future[Outcome[Item, Result]]] = [pool.submit(attempt, function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"{title}: a worker process died, probably for lack of memory; run the same command with a lower -np"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def leave_with_parent(parent: int) -> None:
    """End this worker process soon after its parent was killed; else it would go on writing beside the next run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """Call the function; errors meant for the user become the outcome's problem."""
    try:
        return Outcome(item=item, result=function(item), problem=None)
    except (InputError, OutputError) as error:
        return Outcome(item=item, result=None, problem=str(error))
    except Exception as error:
        if is_out_of_memory(error):
            problem = "out of memory; free some, or use a larger machine"
        else:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = " ".join(str(error).split())
            problem = f"unexpected {type(error).__name__}: {what} (in {place.name}, {place.filename}:{place.lineno})"
        problem = f"{getattr(item, 'name', item)}: {problem}"
        return Outcome(item=item, result=None, problem=problem, traceback=traceback.format_exc())


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's, NumPy's and torch's errors (the last by name and words: torch is not imported here)."""
    is_named_so = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_named_so
