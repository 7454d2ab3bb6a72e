"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from .errors import InputError, OutputError

PARTIAL_PREFIX = ".partial-"
ORPHAN_SECONDS = 3600
"""Since its last byte was written. In containers each run may have a machine name of its own."""


@contextlib.contextmanager
def atomic_path(path: Path, *, is_durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name holds the machine's name and the process's number, so that runs side by side keep apart; what
    killed runs left behind for the same file is deleted.

    Args:
        is_durable: wait until the disk has it before the name is given, so that a power cut leaves the older file.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    partial = partial_path(path, os.getpid())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        delete_orphans(path)
        yield partial
        if is_durable:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_be_written(path, error) from error
        raise


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Give an empty temporary folder beside `folder`, which is not there; rename it on success, delete it on failure.

    Raises:
        OutputError: if the disk is full, the place cannot be written, or something is there meanwhile.
    """
    partial = partial_path(folder, os.getpid())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        delete_orphans(folder)
        partial.mkdir()
        yield partial
        os.replace(partial, folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_be_written(folder, error) from error
        raise


def cannot_be_written(path: Path, error: OSError) -> OutputError:
    """What to tell the user of an error of the file system."""
    reason = disk_error_reason(error) or f"{error}; is the disk full?"
    return OutputError(f"{path}: cannot be written: {reason}")


def partial_path(path: Path, process: int) -> Path:
    """Where a process on this machine writes what will become `path`."""
    return path.with_name(f"{PARTIAL_PREFIX}{platform.node()}-{process}-{path.name}")


def delete_orphans(path: Path) -> None:
    """Delete temporary files and folders for `path` whose processes on this machine are gone; of any if an hour old."""
    for name in os.listdir(path.parent):
        if not (name.startswith(PARTIAL_PREFIX) and name.endswith(f"-{path.name}")):
            continue
        orphan = path.with_name(name)
        machine, _, number = name.removeprefix(PARTIAL_PREFIX).removesuffix(f"-{path.name}").rpartition("-")
        is_gone = machine == platform.node() and number.isdigit() and not is_running(int(number))
        with contextlib.suppress(OSError):  # another process was faster, or it is another user's
            if is_gone or time.time() - orphan.stat().st_mtime > ORPHAN_SECONDS:
                shutil.rmtree(orphan) if orphan.is_dir() else orphan.unlink()


def is_running(process: int) -> bool:
    """True if a process of that number runs on this machine; one that has ended but is still listed does not."""
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return bool(psutil.pid_exists(process))  # another user's may be hidden
    except psutil.AccessDenied:
        return True


def disk_error_reason(error: BaseException) -> str | None:
    """Say in words why the file system refused, with the remedy; None for any other error."""
    remedies = {
        errno.ENOSPC: "no space is left on the device; free some and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EFBIG: "the file is larger than this system allows; ask for a higher limit or choose another folder",
        errno.EACCES: "permission denied; choose a folder that you may write to",
        errno.EPERM: "permission denied; choose a folder that you may write to",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
        errno.EEXIST: "a file of that name is in the way; choose another folder",
    }
    if not isinstance(error, OSError) or error.errno is None:
        return None
    return remedies.get(error.errno)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def require_writable(folder: Path, *, dry_run: bool = False) -> None:
    """Make `folder` and try to write into it, before any work starts.

    Args:
        dry_run: make nothing; ask the system whether the folder could be made and written.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        if dry_run:
            there = nearest_existing(folder)
            if not there.is_dir():
                code = errno.EEXIST if there == folder.absolute() else errno.ENOTDIR
                raise OSError(code, os.strerror(code))
            if not os.access(there, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = disk_error_reason(error) or f"{error.strerror or error}; choose another folder"
        raise InputError(f"{folder}: cannot be written: {reason}") from error


def nearest_existing(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    path = path.absolute()
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content; of a folder, of the names and contents of all files in it."""
    digest = hashlib.sha256()
    if path.is_dir():
        for inner in sorted(inner for inner in path.rglob("*") if inner.is_file()):
            digest.update(f"{inner.relative_to(path).as_posix()} {sha256_of_file(inner)}\n".encode())
        return digest.hexdigest()
    facts = path.stat()
    return sha256_of_version(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 16)
def sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    """Of a file that is not read again unless its size or time has changed."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
