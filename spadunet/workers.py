"""Who works on the cases: this process, several, or a Dask cluster; each behind `concurrent.futures.Executor`."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import ParamSpec, TypeVar

from . import __version__
from .errors import InputError, OutputError

CONNECT_SECONDS = 15
WORKER_BYTES = 200_000_000
"""Of a worker process at rest, with its libraries."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
"""How many threads libraries start; with a process a core, more than one each would wait for each other."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who works, and in how much memory."""

    num_processes: int = 1
    """1: this process, which starts no other."""
    memory_bytes: int | None = None
    """What all running cases may take together; None for no limit."""
    scheduler: str | None = None
    """Address of a Dask cluster, which then does all the work: its workers decide how many, and in what memory."""

    def __str__(self) -> str:
        if self.scheduler is not None:
            return f"on the cluster {self.scheduler}"
        memory = "" if self.memory_bytes is None else f" within {self.memory_bytes / 1e9:.3g} GB of memory"
        return f"up to {self.num_processes} at once{memory}"

    def at_most(self, num_processes: int) -> Workers:
        """The same, without processes that would have nothing to do.

        At least two, if there are several: a single case too may end its process, which must not be this one.
        """
        return replace(self, num_processes=min(self.num_processes, max(num_processes, 2)))

    @contextlib.contextmanager
    def open(self) -> Iterator[Executor]:
        """An executor; what is unfinished at the end is stopped.

        Raises:
            InputError: if the cluster cannot be used.
        """
        if self.scheduler is not None:
            with connect(self.scheduler) as executor:
                yield executor
        elif self.num_processes == 1:
            yield ThisProcess()
        else:
            pool = ProcessPool(self.num_processes)
            try:
                yield pool
            finally:
                pool.shutdown(cancel_futures=True)


THIS_PROCESS = Workers()


class ThisProcess(Executor):
    """Calls at once, in this process."""

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Call the function; what it raises is raised here."""
        future: Future[Result] = Future()
        future.set_result(function(*args, **kwargs))
        return future


class WorkerDied(Exception):
    """A process died in the middle of a call; the text says how."""


class ProcessPool(Executor):
    """Worker processes, of which one that dies takes only its own call with it.

    A `ProcessPoolExecutor` breaks as a whole and does not tell whose fault it was. So each process has one of its own,
    and a thread that waits for it.
    """

    def __init__(self, num_processes: int) -> None:
        self._num_threads = threads_each(num_processes)
        self._threads = ThreadPoolExecutor(num_processes)
        self._busy: list[WorkerProcess] = []
        self._is_stopped = False

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Call the function in a free process; the future has WorkerDied if that dies, OutputError if none starts.

        Args:
            function: importable by name, with arguments and a result that can be pickled.
        """
        return self._threads.submit(self._call, function, *args, **kwargs)

    def _call(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        worker = resting_worker() or start_worker(self._num_threads)
        self._busy.append(worker)
        try:
            if self._is_stopped:
                raise KeyboardInterrupt
            return worker.pool.submit(call_unless_stopped, function, *args, **kwargs).result()
        except BrokenProcessPool as error:
            raise WorkerDied(worker.cause_of_death()) from error
        finally:
            self._busy.remove(worker)
            if worker.process.is_alive():
                RESTING.append(done(worker))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the processes rest for the next pool; `cancel_futures` interrupts running calls as Ctrl-C does."""
        if cancel_futures:
            self._is_stopped = True
            self._threads.shutdown(wait=False, cancel_futures=True)
            for worker in list(self._busy):
                with contextlib.suppress(OSError):
                    os.kill(worker.process.pid or 0, signal.SIGINT)
        self._threads.shutdown(wait=wait)


@dataclass(frozen=True, kw_only=True)
class WorkerProcess:
    """One process and the executor that feeds it."""

    pool: ProcessPoolExecutor
    process: BaseProcess
    place: tuple[str, ...]
    """As `place_here`, when it was started."""

    def cause_of_death(self) -> str:
        """How the process ended, in words."""
        self.pool.shutdown()  # only then its exit code is known for sure
        code = self.process.exitcode
        if code == -signal.SIGKILL:
            how = "its worker process was killed (SIGKILL), probably by the system for lack of memory"
            return f"{how}; free some, or use a larger machine"
        how = f"by {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
        return f"its worker process was ended {how}; look at its files, or leave it out"


RESTING: list[Future[WorkerProcess]] = []
"""Processes without work, and those that are being started. Loading their libraries takes a second, so that they
outlive their pool."""
atexit.register(RESTING.clear)  # before the interpreter takes its modules apart, which their ends still need


def start_early(workers: Workers, module: str) -> None:
    """Start worker processes while this one still loads its own libraries: one a core, if they find room.

    Args:
        module: that their first call will need.
    """
    room = math.inf if workers.memory_bytes is None else workers.memory_bytes // WORKER_BYTES
    num_early = int(min(workers.num_processes, num_cores(), room))
    if workers.scheduler is None and workers.num_processes > 1 and num_early:
        threads = ThreadPoolExecutor(num_early)
        num_threads = threads_each(workers.num_processes)
        RESTING.extend(threads.submit(start_worker, num_threads, module) for _ in range(num_early))
        threads.shutdown(wait=False)


def resting_worker() -> WorkerProcess | None:
    """A process without work, if there is one that has the same places as this one by now."""
    while True:
        try:
            worker = RESTING.pop().result()
        except IndexError:
            return None
        if worker.process.is_alive() and worker.place == place_here():
            return worker
        worker.pool.shutdown(wait=False)


def place_here() -> tuple[str, ...]:
    """The working directory, which relative paths mean, and where modules are looked for."""
    return os.getcwd(), *sys.path


def num_cores() -> int:
    """How many cores this process may run on, as those of a batch job on a larger machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(num_processes: int) -> int:
    """How many threads leave no more than one a core."""
    return max(1, num_cores() // num_processes)


def done(worker: WorkerProcess) -> Future[WorkerProcess]:
    """A worker that is there already, as one that is awaited."""
    future: Future[WorkerProcess] = Future()
    future.set_result(worker)
    return future


def start_worker(num_threads: int, module: str = __name__) -> WorkerProcess:
    """A process that waits for calls.

    Args:
        num_threads: that its libraries may start, unless the environment says so.
        module: to load, in the background.

    Raises:
        OutputError: if it dies before the first.
    """
    place = place_here()
    pool = ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin_worker,
        initargs=(os.getpid(), num_threads),
    )
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process knows what to do with it
    try:
        number = pool.submit(os.getpid).result()
    except (BrokenProcessPool, RuntimeError) as error:
        raise OutputError(
            "no worker process can be started; use -np 1, or in a script call this under if __name__ == '__main__'"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
    pool.submit(load, module)
    (process,) = [child for child in multiprocessing.active_children() if child.pid == number]
    return WorkerProcess(pool=pool, process=process, place=place)


def load(module: str) -> None:
    """Import a module."""
    importlib.import_module(module)


def begin_worker(parent: int, num_threads: int) -> None:
    """Limit the threads of libraries before they come, and leave Ctrl-C to the parent.

    Ends this worker process soon after the parent was killed: else it would go on writing beside the next run.
    """
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(num_threads))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def call_unless_stopped(
    function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Call; Ctrl-C interrupts it, so that it deletes what is half-written."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return function(*args, **kwargs)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def connect(address: str) -> Iterator[Executor]:
    """An executor on the workers of a Dask cluster (https://distributed.dask.org).

    A case whose worker dies goes to another, up to the scheduler's `allowed-failures` times.

    Raises:
        InputError: if Dask is not installed, no scheduler answers, there are no workers or they have another spadunet.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise InputError(f"--dask {address}: Dask is not installed; pip install 'spadunet[cluster]'") from error
    try:
        if not address.startswith("inproc://"):  # of this very process
            get_address_host_port(address)  # Dask never closes a client of a wrong address, and complains at the end
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dask {address}: no scheduler answers there; give the address that `dask scheduler` says, tcp://HOST:PORT"
        ) from error
    with client:
        try:
            versions = client.run(version_here)
        except Exception as error:
            raise InputError(
                f"--dask {address}: its workers cannot run spadunet ({error}); install the same version there"
            ) from error
        if not versions:
            raise InputError(f"--dask {address}: has no workers; start some with `dask worker {address}`")
        for worker, version in sorted(versions.items()):
            if version != __version__:
                raise InputError(
                    f"--dask {address}: {worker} has spadunet {version}, not {__version__}; install that there"
                )
        yield client.get_executor(pure=False)


def version_here() -> str:
    """The version of spadunet, asked of each worker."""
    return __version__
