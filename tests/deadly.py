"""Functions that worker processes find by name, and that end them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square_unless_deadly(number: int) -> int:
    """The square; three is killed, five ends its process, eight crashes in a library."""
    time.sleep(0.05)
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        os._exit(3)
    if number == 8:
        os.kill(os.getpid(), signal.SIGSEGV)
    return number**2


def die_once(number: int, *, folder: Path) -> int:
    """As when another process took the memory: killed the first time, fine the second."""
    mark = folder / str(number)
    if number == 7 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def need_much_memory(number: int, *, folder: Path) -> int:
    """Seven finds enough memory only while no other is at work; the others work until it has tried."""
    mark, tried = folder / str(number), folder / "tried"
    mark.touch()
    end = time.monotonic() + 20
    is_first = not tried.exists()
    while is_first and time.monotonic() < end and not (tried.exists() or (number == 7 and len(at_work(folder)) > 1)):
        time.sleep(0.02)
    others = len(at_work(folder)) - 1
    mark.unlink()
    if number == 7:
        tried.touch()
        if others:
            raise MemoryError
    return number


def at_work(folder: Path) -> list[Path]:
    """Marks of those that run."""
    return [path for path in folder.iterdir() if path.name.isdigit()]


def note_who_is_there(number: int, *, folder: Path) -> list[int]:
    """Who was at work at the end of this one."""
    mark = folder / str(number)
    mark.touch()
    time.sleep(0.1)
    found = sorted(int(path.name) for path in folder.iterdir())
    mark.unlink()
    return found


def write_slowly(number: int, *, folder: Path) -> int:
    """Write half of a file, wait to be stopped, and clean up."""
    path = folder / f"half-{number}-{os.getpid()}"
    path.touch()
    try:
        time.sleep(60)
    finally:
        path.unlink()
    return number


def die_at_once(_: int) -> None:
    """As the system ends a process for lack of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def number_of_process(_: int) -> int:
    """Its number; slowly, so that each has some."""
    time.sleep(0.02)
    return os.getpid()
