"""What is kept up to date while a run goes on: its state, its page, and validation scores in TensorBoard."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..classification_plan import ClassificationPlan
from ..errors import InputError
from ..plan import Plan
from .board import ValidationBoard, read_class_scores, read_final_scores
from .curves import CSV_FILE, read_rows
from .options import LoopOptions
from .report import write_report
from .status import RunKind, RunState, RunStatus, hold, now, read_status, write_status

DRAWING_SHARE = 0.02
"""At most this part of a run's time goes into its page."""
LIBRARIES = ("torch", "monai", "numpy")

log = logging.getLogger("spadunet")


class Followed:
    """A run whose folder tells how it stands.

    Args:
        is_silent: nothing is written, as in all but the first process of a run.

    Attributes:
        problems: lines about what could not be done, of a run that ends well otherwise.
    """

    def __init__(self, folder: Path, status: RunStatus, *, is_silent: bool):
        self.folder, self.status, self.is_silent = folder, status, is_silent
        self.problems: list[str] = []
        self.board = ValidationBoard(folder)
        self.rest_until = 0.0

    def tell(self, state: RunState, reason: str = "") -> None:
        """Write the state, and the page."""
        self.status = self.status.model_copy(update={"state": state, "reason": reason})
        self.attempt(lambda: write_status(self.folder, self.status), "its state")
        self.draw()

    def refresh(self) -> None:
        """Draw the page anew, unless that was done just now."""
        if time.monotonic() >= self.rest_until:
            self.tell("running")

    def finish(self) -> None:
        """Write that the run is done, with its final scores."""
        self.attempt(self.show_scores, "validation scores for TensorBoard")
        self.tell("finished", "\n".join(self.problems))

    def show_scores(self) -> None:
        """Put the final scores into TensorBoard."""
        rows = read_rows(self.folder / CSV_FILE)
        step, since = int(rows[-1]["step"]) + 1 if rows else 0, self.status.started.timestamp()
        for dataset, scores in read_final_scores(self.folder, since=since).items():
            self.board.add_final(dataset, scores, step)
        for dataset, of_classes in read_class_scores(self.folder, since=since).items():
            self.board.add_classes(dataset, of_classes, step)

    def draw(self) -> None:
        """Draw the page."""
        start = time.monotonic()
        self.attempt(self.board.update, "validation scores for TensorBoard")
        self.attempt(lambda: write_report(self.folder), "its page")
        end = time.monotonic()
        self.rest_until = end + (end - start) / DRAWING_SHARE

    def attempt(self, act: Callable[[], object], what: str) -> None:
        """Do what no run shall die of."""
        if self.is_silent:
            return
        try:
            act()
        except Exception as error:
            log.warning("%s: %s cannot be written (%s: %s)", self.folder, what, type(error).__name__, error)


@contextlib.contextmanager
def followed(
    folder: Path,
    kind: RunKind,
    options: LoopOptions,
    *,
    request: Mapping[str, str],
    plans: Sequence[Plan] = (),
    classification: ClassificationPlan | None = None,
    is_first: bool = True,
    is_locked: bool | None = None,
) -> Iterator[Followed]:
    """Keep a run's state and page in its folder until it ends, however it ends.

    Args:
        request: what was asked for, as kept in the checkpoint.
        plans: of the datasets that are trained on.
        classification: of the dataset whose studies are classified.
        is_first: of several processes of the run, the one that writes.
        is_locked: what `hold` gave, where the caller holds the folder; None to hold it here.

    Raises:
        InputError: if another run goes on in the folder.
    """
    holds_here = is_first and is_locked is None
    with hold(folder) if holds_here else contextlib.nullcontext(bool(is_locked)) as holds_lock:
        earlier = None
        with contextlib.suppress(InputError):  # a damaged one is written anew
            earlier = read_status(folder)
        status = RunStatus(
            kind=kind,
            state="running",
            started=earlier.started if earlier else now(),
            updated=now(),
            num_starts=earlier.num_starts + 1 if earlier else 1,
            host=platform.node(),
            process=os.getpid(),
            is_locked=holds_lock,
            checkpoint_minutes=options.checkpoint_minutes,
            request=dict(request),
            facts={
                "device": device_name(options),
                "precision": str(options.precision).removeprefix("torch."),
                "processes that make batches": str(options.num_workers),
                "spadunet": __version__,
                "Python": platform.python_version(),
                **{name: metadata.version(name) for name in LIBRARIES},
                "system": platform.platform(),
            },
            plans=tuple(plans),
            classification=classification,
        )
        run = Followed(folder, status, is_silent=not is_first)
        run.tell("running")
        try:
            yield run
        except KeyboardInterrupt:
            run.tell("interrupted")
            raise
        except BaseException as error:
            run.tell("failed", f"{error}" or type(error).__name__)
            raise
        else:
            run.finish()
        finally:
            run.attempt(run.board.close, "validation scores for TensorBoard")


def device_name(options: LoopOptions) -> str:
    """The device, and what it is called."""
    import torch

    if options.device.type == "cuda":
        return f"{options.device}, {torch.cuda.get_device_name(options.device)}"
    return f"{options.device}, {torch.get_num_threads()} threads"
