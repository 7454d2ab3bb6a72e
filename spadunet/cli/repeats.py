"""`spadunet_train --repeats`: runs that differ in their seed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from .run import close_log_files

if TYPE_CHECKING:
    from ..training.ranks import Ranks

log = logging.getLogger("spadunet")


def train_repeats(
    options: argparse.Namespace, ranks: Ranks, train_one: Callable[[argparse.Namespace, Ranks], tuple[int, Path]]
) -> int:
    """A run for each seed, unless it is done already, and the table of all in the folder above theirs.

    Where one fails, those after it are not begun, and the table is of those before it.

    Args:
        train_one: exit code and folder of a run.
    """
    folders: dict[int, Path] = {}
    code = 0
    try:
        for seed in range(options.seed, options.seed + options.repeats):
            log.info("seed %d:", seed)
            own_code, folders[seed] = train_one(argparse.Namespace(**{**vars(options), "seed": seed}), ranks)
            code = max(code, own_code)
            close_log_files()
    except (InputError, OutputError):
        if ranks.is_first and folders:
            tell(folders)
        raise
    if ranks.is_first:
        tell(folders)
    return code


def tell(folders: Mapping[int, Path]) -> None:
    """Write and log the table of the runs of these seeds."""
    from ..model import read_model_record
    from ..training.repeats import gather_repeats, repeats_text, write_repeats

    folder = next(iter(folders.values()))
    repeats = gather_repeats(folders, list(read_model_record(folder).tasks))
    write_repeats(folder.parent, repeats)
    log.info("%s:\n%s", folder.parent, repeats_text(repeats).rstrip())
