"""What `spadunet_predict` does with a task that classifies: a folder of images or a MedMNIST file to probabilities."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..workspace import find_workspace
from .asked_classes import AskedClasses, find_classes_asked
from .predict_options import OF_CLASSES, OF_LABEL_MAPS, find_models_asked, refuse_others
from .run import log_to_file, write_manifest

if TYPE_CHECKING:
    import numpy as np

    from ..inference.predict_classes import ClassAnswer, Item
    from ..parallel import Outcome

    Done = tuple[str, np.ndarray, list[Path]]

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
    from ..evaluation.classification_tables import SCORES_JSON
    from ..files import require_writable

    started = time.time()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("torchrun: classes are predicted by one process; start spadunet_predict by itself")
    asked = find_classes_asked(options)
    require_writable(options.output, dry_run=options.dry_run)
    if options.dry_run:
        from .dry_predict_classes import show_classes

        return show_classes(options, asked)
    log_to_file(options.output / "spadunet_predict.log")
    for source in asked.sources:
        log.info("model %s, task %s, on %s", source.folder, source.task, asked.device)
    if len(asked.sources) > 1:
        log.info("the mean of %d models counts", len(asked.sources))
    start = asked.start
    start.begin()
    if asked.todo and (options.output / SCORES_JSON).is_file():
        log.warning("%s: is of the predictions before; run spadunet_evaluate again", options.output / SCORES_JSON)
    if start.kept:
        log.info("%d of %d studies are there already and kept", len(start.kept), len(asked.studies.names))
    probabilities = dict(start.kept)
    problems: list[str] = []
    heat_maps: list[Path] = []
    written = time.monotonic()
    try:
        for outcome in work(options, asked):
            if outcome.result is None:
                problems.append(outcome.problem or "")
                continue
            name, row, paths = outcome.result
            probabilities[name] = row
            heat_maps += paths
            if time.monotonic() - written > WRITE_SECONDS:
                start.write(asked.studies.names, probabilities)
                written = time.monotonic()
    finally:  # whatever stops it, what is known is kept
        table = start.write(asked.studies.names, probabilities)
    for problem in problems:
        log.error("failed: %s", problem)
    write_manifest(
        options.output / "spadunet_predict.json",
        "spadunet_predict",
        options,
        started=started,
        device=str(asked.device),
        files=[*([table] if probabilities else []), *heat_maps],
        more={"made": start.made.model_dump(mode="json")},
    )
    start.end()
    log.info("%d studies predicted, %d failed: %s", len(probabilities), len(problems), table)
    return 1 if problems else 0


def work(options: argparse.Namespace, asked: AskedClasses) -> Iterator[Outcome[Item, Done]]:
    """Name, probabilities and heat maps of each study, beside a progress bar."""
    from ..inference.heat_maps import tell_constant_maps, tell_one_patch, write_heat_maps
    from ..inference.predict_classes import predict_studies
    from ..parallel import Outcome, attempt, with_progress

    told = tell_constant_maps(asked.sources) if options.heat_maps else []
    for line in told:
        log.warning("%s", line)

    def finish(outcome: Outcome[Item, ClassAnswer]) -> Outcome[Item, Done]:
        answer = outcome.result
        if answer is None:
            return outcome.failed()
        if options.heat_maps and not told and (line := tell_one_patch(answer)):
            log.warning("%s", line)
            told.append(line)
        written = attempt(lambda _: write_heat_maps(options.output, answer) if options.heat_maps else [], outcome.item)
        if written.result is None:
            return written.failed()
        return Outcome(
            item=outcome.item, result=(outcome.item.name, answer.probabilities, written.result), problem=None
        )

    outcomes = predict_studies(
        asked.studies,
        asked.todo,
        asked.sources,
        device=asked.device,
        precision=asked.precision,
        batch_size=options.batch_size,
        has_focus=options.heat_maps,
    )
    return with_progress((finish(outcome) for outcome in outcomes), len(asked.todo), title="Classifying")
