"""One way to run a function over many cases, whoever works and however little memory there is, with a progress bar."""

from __future__ import annotations

import contextlib
import logging
import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from .errors import InputError, OutputError
from .workers import RESTING, THIS_PROCESS, WORKER_BYTES, WorkerDied, Workers

LINE_SECONDS = 30
"""Without a terminal there is no bar: a line this often says how far the work is."""
OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "MPS backend out of memory",
)
"""Words of torch's errors that have no type of their own: of processors, of Windows, of CUDA and its libraries, of
Apple's GPUs."""

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
    may_pass_alone: bool = False
    """It failed for lack of memory, or its worker died: what others did at that time may be the cause."""

    @property
    def is_bad_input(self) -> bool:
        """It failed for what the user gave, as each further attempt will."""
        return self.problem is not None and self.traceback is None and not self.may_pass_alone

    def failed(self) -> Outcome[Item, Any]:
        """The same problem, where another kind of result would have come."""
        return replace(self, result=None)


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    title: str,
    workers: Workers = THIS_PROCESS,
    memory_of: Callable[[Item], int] | None = None,
    most_memory_of: Callable[[Item], int] | None = None,
) -> Iterator[Outcome[Item, Result]]:
    """An outcome for each item as it is done, in any order; a bad item never stops the others.

    An item that ran out of memory beside others, or whose worker died, is tried once more at the end, alone.

    Args:
        function: importable by name, with arguments that can be pickled, unless all is done in this process.
        title: what the bar says; without a terminal, a line now and then.
        memory_of: bytes that an item is expected to take at its peak. Of those that still fit into the workers'
            memory the largest goes next; one too large for it waits until it is alone, and a warning says so.
        most_memory_of: bytes that it takes at the very most, told at once; where they fit, `memory_of` is not asked.

    Raises:
        InputError: if the cluster cannot be used.
        OutputError: if no worker process can be started, or the cluster is gone.
    """
    return with_progress(
        work_through(function, items, title, workers, memory_of, most_memory_of), len(items), title=title
    )


def with_progress(
    outcomes: Generator[Outcome[Item, Result]], num_items: int, *, title: str
) -> Iterator[Outcome[Item, Result]]:
    """The same outcomes, beside a progress bar; without a terminal, a line now and then."""
    last_line = time.monotonic()
    with contextlib.closing(outcomes), tqdm(total=num_items, desc=title, unit="case", disable=None) as bar:
        for number, outcome in enumerate(outcomes, start=1):
            if outcome.traceback:
                log.debug(outcome.traceback)
            yield outcome
            bar.update()
            if bar.disable and time.monotonic() - last_line > LINE_SECONDS:
                log.info("%s: %d of %d cases", title, number, num_items)
                last_line = time.monotonic()


def work_through(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    title: str,
    workers: Workers,
    memory_of: Callable[[Item], int] | None,
    most_memory_of: Callable[[Item], int] | None,
) -> Generator[Outcome[Item, Result]]:
    """The outcomes of `map_cases`."""
    if not items:
        return
    workers = workers.at_most(len(items))
    num_at_once = workers.num_processes if workers.scheduler is None else len(items)
    if num_at_once > 1:
        log.info("%s: %d cases, %s", title, len(items), workers)
    memory_bytes = math.inf if workers.memory_bytes is None else workers.memory_bytes
    if most_memory_of is not None and memory_bytes < math.inf:
        most = max(most_memory_of(item) for item in items)
        memory_of = None if num_at_once * (most + WORKER_BYTES) <= memory_bytes else memory_of
    needs = [(item, 0 if memory_of is None or memory_bytes == math.inf else memory_of(item)) for item in items]
    again: list[tuple[Item, int]] = []
    with workers.open() as executor:
        for outcome, need in run(executor, function, needs, num_at_once, memory_bytes):
            if outcome.may_pass_alone and num_at_once > 1:
                log.warning("%s; tried again alone at the end", outcome.problem)
                again.append((outcome.item, need))
            else:
                yield outcome
        for outcome, _ in run(executor, function, again, 1, math.inf):
            yield outcome


def run(
    executor: Executor,
    function: Callable[[Item], Result],
    needs: Sequence[tuple[Item, int]],
    num_at_once: int,
    memory_bytes: float,
) -> Generator[tuple[Outcome[Item, Result], int]]:
    """Outcome and need of each item; never more at once than the number and the memory allow.

    Args:
        needs: items and the bytes that each takes, beside `WORKER_BYTES`.
    """
    waiting = sorted(needs, key=lambda pair: -pair[1])
    running: dict[Future[Outcome[Item, Result]], tuple[Item, int]] = {}
    while waiting or running:
        while waiting and len(running) < num_at_once:
            num_workers = len(running) + max(len(RESTING), 1)  # those that rest keep their own memory
            free = memory_bytes - num_workers * WORKER_BYTES - sum(need for _, need in running.values())
            fitting = next((index for index, (_, need) in enumerate(waiting) if need <= free), None)
            if fitting is None and running:
                break
            item, need = waiting.pop(fitting or 0)
            if need > max(free, 0):
                log.warning(
                    "%s: expected to take %.3g GB, more than the %.3g GB that is set or free; it runs alone",
                    name_of(item),
                    (need + WORKER_BYTES) / 1e9,
                    memory_bytes / 1e9,
                )
            running[executor.submit(attempt, function, item)] = (item, need)
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            item, need = running.pop(future)
            yield outcome_of(future, item), need


def outcome_of(future: Future[Outcome[Item, Result]], item: Item) -> Outcome[Item, Result]:
    """The outcome that a worker sent, or that its death is."""
    try:
        return future.result()
    except CancelledError as error:
        raise OutputError("the cluster is gone; start it and run the same command again") from error
    except OutputError:  # no worker can be started
        raise
    except Exception as error:
        what = " ".join(str(error).split())
        problem = what if isinstance(error, WorkerDied) else f"{type(error).__name__}: {what}"
        return Outcome(item=item, result=None, problem=f"{name_of(item)}: {problem}", may_pass_alone=True)


def attempt(function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
    """Call the function; errors meant for the user become the outcome's problem."""
    try:
        return Outcome(item=item, result=function(item), problem=None)
    except (InputError, OutputError) as error:
        return Outcome(item=item, result=None, problem=str(error))
    except Exception as error:
        is_short = is_out_of_memory(error)
        if is_short:
            problem = "out of memory; free some, or use a larger machine"
        else:
            place = traceback.extract_tb(error.__traceback__)[-1]
            what = " ".join(str(error).split())
            problem = f"unexpected {type(error).__name__}: {what} (in {place.name}, {place.filename}:{place.lineno})"
        return Outcome(
            item=item,
            result=None,
            problem=f"{name_of(item)}: {problem}",
            traceback=traceback.format_exc(),
            may_pass_alone=is_short,
        )


def name_of(item: object) -> str:
    """What the user calls an item: its name, where it has one."""
    return str(getattr(item, "name", item))


def is_out_of_memory(error: Exception) -> bool:
    """True for Python's, NumPy's and torch's errors (the last by name and words: torch is not imported here)."""
    is_named_so = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or is_named_so or any(words in str(error) for words in OUT_OF_MEMORY)
