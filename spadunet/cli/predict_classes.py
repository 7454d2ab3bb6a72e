"""What `spadunet_predict` does with a task that classifies: a folder of images or a MedMNIST file to probabilities."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..workspace import find_workspace
from .asked_classes import AskedClasses, find_classes_asked
from .predict_options import OF_CLASSES, OF_LABEL_MAPS, find_models_asked, refuse_others
from .run import log_to_file, logging_to, write_manifest

if TYPE_CHECKING:
    import numpy as np

    from ..inference.predict_classes import ClassAnswer, Item
    from ..parallel import Outcome

LOG_FILE = "spadunet_predict.log"
WRITE_SECONDS = 60.0
"""Probabilities reach the disk this often, and whenever a run ends or is stopped."""

log = logging.getLogger("spadunet")


def predicts_classes(options: argparse.Namespace) -> bool:
    """Whether the task asked for is one that classifies.

    Raises:
        InputError: if there is no such model, or an option does not go with its task.
    """
    from ..models import is_classifier

    folder = find_models_asked(options, find_workspace(options.data), may_classify=True)[0]
    answer = is_classifier(folder, options.dataset)
    if answer:
        refuse_others(options, OF_LABEL_MAPS, f"is for label maps, and {folder} classifies")
    else:
        refuse_others(options, OF_CLASSES, f"is for a task that classifies, and {folder} predicts label maps")
    return answer


def predict_classes(options: argparse.Namespace) -> int:
    """Predict what was asked for, but what is there already; the exit code.

    Raises:
        InputError: if something is missing or damaged or does not go together.
    """
    from ..files import require_writable

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("torchrun: classes are predicted by one process; start spadunet_predict by itself")
    asked = find_classes_asked(options)
    require_writable(options.output, dry_run=options.dry_run)
    if options.dry_run:
        from .dry_predict_classes import show_classes

        return show_classes(options, asked)
    log_to_file(options.output / LOG_FILE)
    return predict_together([ClassRun(options, asked)])


class ClassRun:
    """The prediction of one task: what is known of its studies, and its output folder.

    Args:
        options: as if the task had been asked for alone.
    """

    def __init__(self, options: argparse.Namespace, asked: AskedClasses) -> None:
        self.options, self.asked, self.started = options, asked, time.time()
        self.probabilities: dict[str, np.ndarray] = dict(asked.start.kept)
        self.problems: list[str] = []
        self.heat_maps: list[Path] = []
        self.told: list[str] = []
        self.log_path = options.output / LOG_FILE

    def begin(self) -> None:
        """Leave nothing of another request in the folder, and say what will be done."""
        from ..evaluation.classification_tables import SCORES_JSON
        from ..inference.heat_maps import tell_constant_maps

        asked, scores = self.asked, self.options.output / SCORES_JSON
        self.started = time.time()
        with logging_to(self.log_path):
            for source in asked.sources:
                log.info("model %s, task %s, on %s", source.folder, source.task, asked.device)
            if len(asked.sources) > 1:
                log.info("the mean of %d models counts", len(asked.sources))
            asked.start.begin()
            if asked.todo and scores.is_file():
                log.warning("%s: is of the predictions before; run spadunet_evaluate again", scores)
            if asked.start.kept:
                log.info("%d of %d studies are there already and kept", len(asked.start.kept), len(asked.studies.names))
            self.told = tell_constant_maps(asked.sources) if self.options.heat_maps else []
            for line in self.told:
                log.warning("%s", line)

    def take(self, outcome: Outcome[Item, ClassAnswer]) -> Outcome[Item, ClassAnswer]:
        """Keep the answer to a study; what became of it."""
        from ..parallel import attempt

        if outcome.result is not None:
            outcome = attempt(partial(self.keep, outcome.result), outcome.item)
        if outcome.problem:
            self.problems.append(outcome.problem)
        return outcome

    def keep(self, answer: ClassAnswer, item: Item) -> ClassAnswer:
        """The same, once its heat maps are written."""
        from ..inference.heat_maps import tell_one_patch, write_heat_maps

        if self.options.heat_maps:
            if not self.told and (line := tell_one_patch(answer)):
                with logging_to(self.log_path):
                    log.warning("%s", line)
                self.told.append(line)
            self.heat_maps += write_heat_maps(self.options.output, answer)
        self.probabilities[item.name] = answer.probabilities
        return answer

    def write(self) -> Path:
        """Bring what is known to the disk; the table."""
        return self.asked.start.write(self.asked.studies.names, self.probabilities)

    def finish(self, table: Path) -> int:
        """Write the manifest and say what became of all studies; the exit code."""
        with logging_to(self.log_path):
            for problem in self.problems:
                log.error("failed: %s", problem)
            write_manifest(
                self.options.output / "spadunet_predict.json",
                "spadunet_predict",
                self.options,
                started=self.started,
                device=str(self.asked.device),
                files=[*([table] if self.probabilities else []), *self.heat_maps],
                more={"made": self.asked.start.made.model_dump(mode="json")},
            )
            self.asked.start.end()
            log.info("%d studies predicted, %d failed: %s", len(self.probabilities), len(self.problems), table)
        return 1 if self.problems else 0


def predict_together(runs: Sequence[ClassRun]) -> int:
    """Predict tasks that have the same studies to do and see them prepared alike, reading each once; the exit code."""
    from ..inference.predict_classes import predict_together as answer
    from ..parallel import with_progress

    for run in runs:
        run.begin()
    asked, options, written = runs[0].asked, runs[0].options, time.monotonic()

    def take_down() -> Generator[Outcome[Item, ClassAnswer]]:
        nonlocal written
        outcomes = answer(
            asked.studies,
            asked.todo,
            [run.asked.sources for run in runs],
            device=asked.device,
            precision=asked.precision,
            batch_size=options.batch_size,
            has_focus=options.heat_maps,
        )
        for of_study in outcomes:
            for run, outcome in zip(runs, of_study, strict=True):
                yield run.take(outcome)
            if time.monotonic() - written > WRITE_SECONDS:  # of all: then they have the same to do once they go on
                written = time.monotonic()
                for run in runs:
                    run.write()

    try:
        for _ in with_progress(take_down(), len(asked.todo) * len(runs), title="Classifying"):
            pass
    finally:  # whatever stops it, what is known is kept
        tables = [run.write() for run in runs]
    return max([run.finish(table) for run, table in zip(runs, tables, strict=True)])
