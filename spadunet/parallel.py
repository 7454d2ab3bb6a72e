"""One way to run a function over many cases: in this process or in several, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from tqdm import tqdm

from .errors import InputError, OutputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a result, or the line that says why not."""

    item: Item
    result: Result | None
    problem: str | None


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], *, num_processes: int, title: str
) -> Iterator[Outcome[Item, Result]]:
    """Yield an outcome for each item as it is done, in any order; a bad item never stops the others.

    Args:
        function: importable by name, with arguments that can be pickled, if num_processes > 1.
        num_processes: 1 runs in this process.
        title: what the bar says; the bar is off without a terminal.

    Raises:
        OutputError: if a worker process dies.
    """
    num_processes = min(num_processes, len(items))
    with tqdm(total=len(items), desc=title, unit="case", disable=None) as bar:
        if num_processes <= 1:
            for item in items:
                yield attempt(function, item)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            num_processes, mp_context=context, initializer=leave_with_parent, initargs=(os.getpid(),)
        )
        try:
            futures: list[Future[Outcome[Item, Result]]] = [pool.submit(attempt, function, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
                bar.update()
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
        if not is_out_of_memory(error):
            raise
        return Outcome(
            item=item,
            result=None,
            problem=f"{getattr(item, 'name', item)}: out of memory; free some, or use a larger machine",
        )


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's, NumPy's and torch's errors (the last by name: torch is not imported here)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
