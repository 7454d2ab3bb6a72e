"""`spadunet_train --repeats`: runs that differ in their seed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .run import close_log_files

if TYPE_CHECKING:
    from ..training.ranks import Ranks

log = logging.getLogger("spadunet")


def train_repeats(
    options: argparse.Namespace, ranks: Ranks, train_one: Callable[[argparse.Namespace, Ranks], tuple[int, Path]]
) -> int:
    """A run for each seed, unless it is done already, and the table of all in the folder above theirs.

    Args:
        train_one: exit code and folder of a run.
    """
    from ..model import read_model_record
    from ..training.repeats import gather_repeats, repeats_text, write_repeats

    folders, code = {}, 0
    for seed in range(options.seed, options.seed + options.repeats):
        log.info("seed %d:", seed)
        own_code, folders[seed] = train_one(argparse.Namespace(**{**vars(options), "seed": seed}), ranks)
        code = max(code, own_code)
        close_log_files()
    if ranks.is_first:
        folder = folders[options.seed]
        repeats = gather_repeats(folders, list(read_model_record(folder).tasks))
        write_repeats(folder.parent, repeats)
        log.info("%s:\n%s", folder.parent, repeats_text(repeats).rstrip())
    return code
