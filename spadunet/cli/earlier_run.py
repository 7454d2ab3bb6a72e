"""What an earlier `spadunet_train` left in a model folder: gone on with, kept, or thrown away."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..training.state import Progress

MANIFEST = "spadunet_train.json"
"""Written last: a run without it is unfinished, even if its last step is done."""

log = logging.getLogger("spadunet")


def request_of(folder: Path) -> dict[str, str]:
    """What the unfinished or finished run in a model folder was asked for; empty where there is none.

    Raises:
        InputError: if its checkpoint is damaged.
    """
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    return read_progress(checkpoint).run if checkpoint.is_file() else {}


def find_earlier_run(folder: Path, options: argparse.Namespace, asked: dict[str, str]) -> Progress | None:
    """The interrupted run to go on with; None where one starts anew. A finished or different one is not overwritten.

    Args:
        asked: what this run is asked for, as `training.train.PreparedRun.request`.

    Raises:
        InputError: says which of --restart and -o is called for.
    """
    from ..model import MODEL_JSON
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    is_there = checkpoint.is_file() and not options.restart
    if not is_there and not options.restart and (folder / MODEL_JSON).is_file():
        raise InputError(f"{folder}: holds a model already; --restart to start anew, or another folder with -o")
    if not is_there:
        if options.c:
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
    if progress.is_finished and (folder / MANIFEST).is_file() and not options.c:
        raise InputError(
            f"{folder}: trained already ({progress.step} steps); --restart to start anew, or -o for another"
        )
    log.info("going on after step %d (%.1f minutes)", progress.step, progress.seconds / 60)
    return progress


def clear_earlier_run(folder: Path, options: argparse.Namespace, done: Progress | None) -> None:
    """Remove what an earlier run left, where this one starts anew."""
    import shutil

    from ..model import MODEL_JSON
    from ..training.init import INIT_COVERAGE_JSON
    from ..training.state import checkpoint_path

    state = checkpoint_path(folder).parent
    if options.restart:
        if state.exists():
            shutil.rmtree(state)
        (folder / MODEL_JSON).unlink(missing_ok=True)
    if done is None:
        (folder / MANIFEST).unlink(missing_ok=True)
        (folder / INIT_COVERAGE_JSON).unlink(missing_ok=True)
