"""Models that grow: tasks trained on a frozen backbone join those that are there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import InputError
from ..model import ADDED, BACKBONE_FILE, Model, read_model_record
from ..model_changes import add_tasks
from .init import Coverage
from .status import require_free


def require_whole(coverage: Coverage) -> None:
    """Refuse to freeze a backbone of which some is as fresh as dice gave it.

    Raises:
        InputError: names the parts.
    """
    new = [row.group for row in coverage.rows if row.fate == "new" and not row.is_of_task]
    if new:
        raise InputError(
            f"--freeze-backbone: {coverage.source} has no weights for {', '.join(new)} of the backbone, which would "
            "stay random; give a model that was trained with labels, or leave --freeze-backbone out"
        )


def backbone_of(source: Path) -> str:
    """Which backbone a model has, by its file's SHA-256.

    Raises:
        InputError: if it is no model.
    """
    return read_model_record(source).sha256[BACKBONE_FILE]


def add_trained(source: Path, folder: Path, trained: Model, *, backbone_sha256: str) -> None:
    """Add the tasks of a run to the model whose backbone they were trained on; tells in both what was added and when.

    Args:
        source: the model, which stays as it is unless it is `folder`.
        trained: the tasks, with the run's provenance.
        backbone_sha256: of the source when the run began.

    Raises:
        OutputError: if the source has got another backbone meanwhile: see `add_tasks`.
        InputError: if it has got a task of such a name, is damaged, or is being trained further: that run will write
            its model anew, without what it does not know of.
    """
    if source.resolve() == folder.resolve():
        require_free(folder)
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    told = f"{when}, after {trained.provenance['steps']} steps, by spadunet {__version__}, to {source.resolve()}"
    tasks = {name: replace(task, provenance=trained.provenance) for name, task in trained.all_tasks.items()}
    add_tasks(source, folder, tasks, {f"{ADDED}{name}": told for name in tasks}, backbone_sha256=backbone_sha256)
