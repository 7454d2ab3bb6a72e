"""Locks of files and folders, which end with the process that holds them however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def flock(descriptor: int, *, is_shared: bool = False, waits: bool = False) -> None:
    """Hold an open file or folder until it is closed.

    Args:
        is_shared: beside others that share it.
        waits: until nobody else holds it.

    Raises:
        BlockingIOError: if another process holds it.
        OSError: where the file system or the operating system has no such locks.
    """
    if fcntl is None:
        raise OSError("this operating system has no locks of files by flock")
    fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | (0 if waits else fcntl.LOCK_NB))


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Wait until no other process holds a folder, then hold it; not where the file system has no locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            number = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, number)
            flock(number, waits=True)
        yield
