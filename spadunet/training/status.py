"""How a run stands, kept in its folder from start to end: state/run.json, and a lock that ends with its process."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TextIO

from pydantic import Field

from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..locks import flock
from ..model import STATE_FOLDER
from ..plan import Plan
from ..record import FormatVersion, Record, is_unused, read_record, write_record
from .curves import CSV_FILE
from .state import CHECKPOINT_FILE

STATUS_JSON, LOCK_FILE = "run.json", "run.lock"
LOG_FILE = "training.log"
MAX_SILENCE_SECONDS = 900
"""A run on another machine that has written nothing for so long is taken to be dead."""
LOCK_TRIES = 20

RunState = Literal["running", "interrupted", "failed", "finished"]
RunKind = Literal["train", "classification", "tokenizer", "mim"]


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
    process: int | None = None
    """Its number on that machine, of the first where there are several."""
    is_locked: bool = True
    """Its folder is locked while it goes on; where the file system has no locks, its news tell."""
    checkpoint_minutes: float
    request: dict[str, str]
    """What was asked for, as kept in the checkpoint."""
    facts: dict[str, str]
    """What else is worth knowing: device, versions."""
    plans: tuple[Plan, ...] = ()
    """Of the datasets that are trained on."""
    classification: ClassificationPlan | None = Field(default=None, exclude_if=is_unused)
    """Of the dataset whose studies are classified."""


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
def hold(folder: Path) -> Iterator[bool]:
    """Let others see that a run is going on; however its process ends, this ends with it.

    Gives False where the file system has no locks: nothing is held then, and a run's news tell instead.

    Raises:
        InputError: if another run holds the folder; nothing of it is touched.
    """
    path = folder / STATE_FOLDER / LOCK_FILE
    with contextlib.ExitStack() as stack:
        is_locked = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a"))
            lock(file)
            os.register_at_fork(after_in_child=file.close)  # workers that outlive a killed run do not hold it
            is_locked = True
        except BlockingIOError as error:
            raise going_on(folder) from error
        except OSError:
            pass
        yield is_locked


def require_free(folder: Path) -> None:
    """Look whether a run may use a folder, before anything is written there.

    Raises:
        InputError: if another one holds it.
    """
    if is_held(folder):
        raise going_on(folder)


def going_on(folder: Path) -> InputError:
    """Says whose run holds a folder, as far as that is known."""
    whose = ""
    with contextlib.suppress(InputError):
        status = read_status(folder)
        if status is not None and status.process is not None:
            whose = f": process {status.process} on {status.host}"
    return InputError(f"{folder}: this run is going on{whose}; wait for it, or give another -o")


def lock(file: TextIO) -> None:
    """Lock a file until it is closed.

    Raises:
        BlockingIOError: if another process holds it.
        OSError: if the file system has no locks.
    """
    for is_last in [False] * (LOCK_TRIES - 1) + [True]:  # who looks whether it is held holds it for a moment
        try:
            return flock(file.fileno())
        except BlockingIOError:
            if is_last:
                raise
            time.sleep(0.01)


def is_held(folder: Path) -> bool:
    """True if a process holds a run's folder, as far as this machine can see."""
    try:
        with (folder / STATE_FOLDER / LOCK_FILE).open("rb") as file:
            flock(file.fileno(), is_shared=True)
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


def is_alive(folder: Path, status: RunStatus | None) -> bool:
    """Whether a run that has not said its end is still going on.

    Its lock tells, on this machine and most shared disks; of another machine, and where no lock could be had, news of
    the last quarter of an hour do.

    Args:
        status: what the run has said of itself, None if nothing.
    """
    if is_held(folder):
        return True
    is_told_by_lock = status is not None and status.is_locked and status.host == platform.node()
    return not is_told_by_lock and time.time() - last_news(folder) < MAX_SILENCE_SECONDS
