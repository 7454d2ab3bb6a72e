"""What an earlier run left in a folder: gone on with, kept, or thrown away."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """The interrupted run to go on with; None where one starts anew. A finished or different one is not overwritten.

    Args:
        asked: what this run is asked for, as kept in the checkpoint.
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
    for name, value in asked.items():
        earlier = progress.run.get(name, value)
        if earlier != value:
            raise InputError(
                f"{folder}: an earlier run had {name} {earlier}, not {value}; "
                "give the same options to go on, --restart to start anew, or another folder with -o"
            )
    if progress.is_finished and (folder / files.manifest).is_file() and not must_go_on:
        raise InputError(
            f"{folder}: trained already ({progress.step} steps); --restart to start anew, or -o for another"
        )
    log.info("going on after step %d (%.1f minutes)", progress.step, progress.seconds / 60)
    return progress


def clear_earlier_run(folder: Path, files: RunFiles, done: Progress | None, *, restart: bool) -> None:
    """Remove what an earlier run left, where this one starts anew."""
    import shutil

    from ..training.state import checkpoint_path

    state = checkpoint_path(folder).parent
    if restart:
        if state.exists():
            shutil.rmtree(state)
        (folder / files.result).unlink(missing_ok=True)
    if done is None:
        for name in (files.manifest, *files.others):
            (folder / name).unlink(missing_ok=True)
