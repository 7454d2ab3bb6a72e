"""Planned datasets, found by what users call them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .stages import FINGERPRINT_JSON, PLAN_JSON

if TYPE_CHECKING:
    from ..workspace import Workspace

log = logging.getLogger("spadunet")


def planned_last(folder: Path) -> str:
    """Name of the dataset whose plan is the newest; told to the user.

    Raises:
        InputError: if there is none.
    """
    plans = sorted(folder.glob(f"*/{PLAN_JSON}"), key=lambda path: path.stat().st_mtime)
    if not plans:
        raise InputError(f"{folder}: no planned dataset; run spadunet_plan_and_preprocess, or name one with -d")
    log.info("dataset: %s, planned last", plans[-1].parent.name)
    return plans[-1].parent.name


def find_planned(name: str, workspace: Workspace) -> Path:
    """The raw folder of a dataset: as `find_dataset`, else where it lay when it was planned by path.

    Raises:
        InputError: if it is in neither place.
    """
    from ..dataset import find_dataset, is_named
    from ..fingerprint import Fingerprint
    from ..record import read_record

    try:
        return find_dataset(name, workspace.raw)
    except InputError:
        for path in workspace.preprocessed.glob(f"*/{FINGERPRINT_JSON}"):
            if is_named(path.parent.name, name):
                return Path(read_record(path, Fingerprint, remedy="run spadunet_fingerprint").source_folder)
        raise
