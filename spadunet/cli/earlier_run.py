"""The folder of a run: held by one at a time; what an earlier one left is gone on with, kept, or thrown away."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .run import log_to_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..training.state import Progress

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Names of what a command leaves in its folder beside the checkpoint."""

    result: str
    manifest: str
    """Written last: a run without it is unfinished, even if its last step is done."""
    others: tuple[str, ...] = ()
    """Thrown away with the run that made them."""


@contextlib.contextmanager
def take_folder(folder: Path, *, is_first: bool, dry_run: bool) -> Iterator[bool]:
    """Hold a run's folder, which is made, from before one looks at what an earlier run left to the end; log into it.

    Gives what `hold` does; False in other processes than the first, and for a dry run, which only looks.

    Raises:
        InputError: if the folder cannot be written, or another run holds it; nothing of that is touched.
    """
    from ..files import require_writable
    from ..training.status import LOG_FILE, hold, require_free

    if not is_first:
        yield False
        return
    require_writable(folder, dry_run=dry_run)
    if dry_run:
        require_free(folder)
        yield False
        return
    with hold(folder) as is_locked:
        log_to_file(folder / LOG_FILE)
        yield is_locked


def require_apart(init: Path | None, folder: Path, *, is_repeat: bool = False) -> None:
    """Refuse to write a model over the one it starts from, which a run that starts anew would throw away before.

    Args:
        is_repeat: the folder is that of one seed of several, none of which may be `init`.

    Raises:
        InputError: names the folder.
    """
    if init is None:
        return
    source, target = init.resolve(), folder.resolve()
    is_sibling = is_repeat and source.parent == target.parent and source.name.startswith("seed_")
    if source == target or is_sibling:
        runs = "runs of --repeats" if is_repeat else "this run"
        raise InputError(f"--init {init}: {runs} would be written over the model to start from; give another -o")


def request_of(folder: Path) -> dict[str, str]:
    """What the unfinished or finished run in a folder was asked for; empty where there is none.

    Raises:
        InputError: if its checkpoint is damaged.
    """
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    return read_progress(checkpoint).run if checkpoint.is_file() else {}


def find_earlier_run(
    folder: Path, files: RunFiles, asked: Mapping[str, str], *, restart: bool, must_go_on: bool = False
) -> Progress | None:
    """As `check_earlier_run`, and tells with what it goes on."""
    progress = check_earlier_run(folder, files, asked, restart=restart, must_go_on=must_go_on)
    if progress is not None:
        log.info("going on after step %d (%.1f minutes)", progress.step, progress.seconds / 60)
    return progress


def check_earlier_run(
    folder: Path, files: RunFiles, asked: Mapping[str, str], *, restart: bool, must_go_on: bool = False
) -> Progress | None:
    """The interrupted run to go on with; None where one starts anew. A finished or different one is not overwritten.

    Args:
        asked: what this run is asked for, as kept in the checkpoint, or a part of that.
        must_go_on: a finished run is gone on with too, and none is an error (`--c`).

    Raises:
        InputError: says which of --restart and -o is called for.
    """
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    is_there = checkpoint.is_file() and not restart
    if not is_there and not restart and (folder / files.result).is_file():
        raise InputError(f"{folder}: holds a model already; --restart to start anew, or another folder with -o")
    if not is_there:
        if must_go_on:
            raise InputError(f"--c: {checkpoint} not found: no run to go on with; leave --c out to start one")
        return None
    progress = read_progress(checkpoint)
    require_same(folder, progress, asked)
    if progress.is_finished and (folder / files.manifest).is_file() and not must_go_on:
        raise InputError(
            f"{folder}: trained already ({progress.step} steps); --restart to start anew, or -o for another"
        )
    return progress


def require_same(folder: Path, progress: Progress, asked: Mapping[str, str]) -> None:
    """Refuse to go on with a run that was asked for something else.

    Raises:
        InputError: names it.
    """
    for name, value in asked.items():
        earlier = progress.run.get(name, value)
        if earlier != value:
            raise InputError(
                f"{folder}: an earlier run had {name} {earlier}, not {value}; "
                "give the same options to go on, --restart to start anew, or another folder with -o"
            )


def clear_earlier_run(folder: Path, files: RunFiles, done: Progress | None, *, restart: bool) -> None:
    """Remove what an earlier run left, where this one starts anew; call it while the folder is held."""
    import shutil

    from ..model import STATE_FOLDER
    from ..training.status import LOCK_FILE

    if restart:
        for path in (folder / STATE_FOLDER).glob("*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK_FILE:  # a lock on a file that is gone keeps nobody out
                path.unlink()
        (folder / files.result).unlink(missing_ok=True)
    if done is None:
        for name in (files.manifest, *files.others):
            (folder / name).unlink(missing_ok=True)
