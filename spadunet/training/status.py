"""How a run stands, kept in its folder from start to end: state/run.json, and a lock that ends with its process."""

from __future__ import annotations

import contextlib
import fcntl
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TextIO

from ..model import STATE_FOLDER
from ..plan import Plan
from ..record import FormatVersion, Record, read_record, write_record
from .curves import CSV_FILE
from .state import CHECKPOINT_FILE

STATUS_JSON, LOCK_FILE = "run.json", "run.lock"
LOG_FILE = "training.log"
MAX_SILENCE_SECONDS = 900
"""A run on another machine that has written nothing for so long is taken to be dead."""
LOCK_TRIES = 20

RunState = Literal["running", "interrupted", "failed", "finished"]
RunKind = Literal["train", "tokenizer", "mim"]


class RunStatus(Record):
    """state/run.json: what a run is and how it stands."""

    format_version: FormatVersion = 1
    kind: RunKind
    state: RunState
    reason: str = ""
    """Why it failed, or what could not be done of a finished one."""
    started: datetime
    """The first time."""
    updated: datetime
    num_starts: int = 1
    host: str
    checkpoint_minutes: float
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint."""
    facts: dict[str, str]
    """What else is worth knowing: device, versions."""
    plans: tuple[Plan, ...] = ()
    """Of the datasets that are trained on."""


def status_path(folder: Path) -> Path:
    """Where a run's status lies."""
    return folder / STATE_FOLDER / STATUS_JSON


def read_status(folder: Path) -> RunStatus | None:
    """The status of a run's folder, None where there is none.

    Raises:
        InputError: if it is damaged or of a newer format.
    """
    path = status_path(folder)
    return read_record(path, RunStatus, remedy="delete it") if path.is_file() else None


def write_status(folder: Path, status: RunStatus) -> None:
    """Write how a run stands, as of now."""
    write_record(status_path(folder), status.model_copy(update={"updated": now()}))


def now() -> datetime:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Let others see that a run is going on; however its process ends, this ends with it.

    Where it cannot be locked, nothing is held, and a run's news tell instead.
    """
    path = folder / STATE_FOLDER / LOCK_FILE
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock(stack.enter_context(path.open("w")))
        yield


def lock(file: TextIO) -> None:
    """Lock a file for this process and those it forks, until it is closed.

    Raises:
        OSError: if another process holds it, or the file system has no locks.
    """
    for is_last in [False] * (LOCK_TRIES - 1) + [True]:  # who looks whether it is held holds it for a moment
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if is_last:
                raise
            time.sleep(0.01)


def is_held(folder: Path) -> bool:
    """True if a process holds a run's folder, as far as this machine can see."""
    try:
        with (folder / STATE_FOLDER / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def last_news(folder: Path) -> float:
    """When a run last wrote something, in seconds since 1970; 0 if never."""
    names = (CSV_FILE, LOG_FILE, f"{STATE_FOLDER}/{STATUS_JSON}", f"{STATE_FOLDER}/{CHECKPOINT_FILE}")
    times = [0.0]
    for name in names:
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def is_alive(folder: Path, host: str | None) -> bool:
    """Whether a run that has not said its end is still going on.

    Its lock tells, on this machine and most shared disks; of another machine, news of the last quarter of an hour do.

    Args:
        host: where it was started, None if unknown.
    """
    if is_held(folder):
        return True
    return host != platform.node() and time.time() - last_news(folder) < MAX_SILENCE_SECONDS
