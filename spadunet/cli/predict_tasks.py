"""spadunet_predict --tasks: several tasks of one model, each into a folder of its own."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .asked_prediction import Asked, find_prediction
from .predict_classes import predict_classes
from .predict_options import OF_CLASSES, OF_LABEL_MAPS, find_models_asked, refuse_others
from .prediction_folder import finish, open_table, show, tell_memory
from .run import log_to_file

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.many_tasks import Part
    from ..inference.quality_table import QualityTable
    from ..inference.resume import Start
    from ..inference.sources import Source
    from ..training.ranks import Ranks

log = logging.getLogger("spadunet")


def check_tasks_options(options: argparse.Namespace) -> None:
    """Refuse what does not go with `--tasks`.

    Raises:
        InputError: names the option.
    """
    if options.tasks is None:
        return
    others = {"-d": options.dataset, "--roi-subset": options.roi_subset, "--dask": options.dask}
    for flag, value in others.items():
        if value is not None:
            raise InputError(f"{flag}: does not go with --tasks; leave one of them out")
    if len(options.model or ()) > 1 or len(options.fold or ()) > 1:
        raise InputError("--tasks: are of one model; give one with -m, and one fold")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("--tasks: runs in one process; start it without torchrun")


def predict_tasks(options: argparse.Namespace, ranks: Ranks) -> int:
    """Predict all tasks, those that classify last; 1 if some case failed.

    Args:
        ranks: this process, alone.
    """
    from ..workspace import find_workspace

    (folder,) = find_models_asked(options, find_workspace(options.data), may_classify=True)
    segmenting, classifying = find_tasks(folder, options.tasks)
    if not classifying:
        refuse_others(options, OF_CLASSES, "is for tasks that classify, and these predict label maps")
    if not segmenting:
        refuse_others(options, OF_LABEL_MAPS, "is for label maps, and these tasks classify")
    code = predict_label_maps(options, folder, segmenting, ranks) if segmenting else 0
    for name in classifying:
        code = max(code, predict_classes(alone(options, folder, name)))
    return code


def alone(options: argparse.Namespace, folder: Path, name: str) -> argparse.Namespace:
    """The options by which one task would be asked for, with its own folder."""
    own = {"tasks": None, "model": [folder], "fold": None, "dataset": name, "output": options.output / name}
    return argparse.Namespace(**(vars(options) | own))


def predict_label_maps(options: argparse.Namespace, folder: Path, names: Sequence[str], ranks: Ranks) -> int:
    """As `predict_tasks`, of those that segment."""
    from ..inference.many_tasks import predict_many
    from ..inference.sources import open_tasks
    from ..inference.stages import StageTimes
    from ..parallel import Outcome, with_progress

    started = time.time()
    runs = {source.task: begin(options, source, ranks) for source in open_tasks(folder, names)}
    if options.dry_run:
        return max(show(run.options, run.asked, run.start, ranks) for run in runs.values())
    log_to_file(options.output / "spadunet_predict.log")
    parts, tables = {}, {}
    for name, run in runs.items():
        tables[name] = open_table(run.asked, run.start, ranks)
        parts[name] = part_of(run, tables[name], ranks)
    tell_sharing(parts)
    times = StageTimes()
    outcomes: dict[str, list[Outcome[RawCase, Path]]] = {name: [] for name in names}

    def take_down() -> Generator[Outcome[RawCase, Path]]:
        for written in predict_many(parts, times):
            for name, outcome in written.items():
                outcomes[name].append(outcome)
                yield outcome

    num_answers = sum(len(part.cases) for part in parts.values())
    for _ in with_progress(take_down(), num_answers, title="Predicting"):
        pass
    log.info("%s", times)
    for name, run in runs.items():
        finish(run.options, run.asked, run.start, outcomes[name], tables[name], started=started)
    return 1 if any(outcome.problem for members in outcomes.values() for outcome in members) else 0


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """What of a command concerns one task."""

    options: argparse.Namespace
    """As if the task had been asked for alone."""
    asked: Asked
    start: Start


def begin(options: argparse.Namespace, source: Source, ranks: Ranks) -> TaskRun:
    """Look for a task's images, and at what lies in its folder.

    Raises:
        InputError: if what was asked for does not go together.
    """
    from ..files import require_writable
    from ..inference.resume import find_start

    own = alone(options, source.folder, source.task)
    asked = find_prediction(own, ranks.device, [source])
    start = find_start(
        own.output, asked.request, asked.paths, must_keep=own.keep, saves_probabilities=own.saves_probabilities
    )
    require_writable(own.output, dry_run=own.dry_run)
    for note in asked.notes:
        log.info(note)
    if start.left:
        log.warning(start.tell_left())
    return TaskRun(options=own, asked=asked, start=start)


def part_of(run: TaskRun, table: QualityTable, ranks: Ranks) -> Part:
    """A task, ready to be predicted."""
    from ..inference.job import engine_of
    from ..inference.many_tasks import Part

    job, cases = run.asked.job, [case for case in run.asked.cases if case.name not in run.start.kept]
    engine = engine_of(job, run.asked.sources, ranks.device)
    tell_memory(cases, engine)
    return Part(
        engine=engine,
        cases={case.name: case for case in cases},
        order=job.order,
        folder=run.options.output,
        label_format=job.label_format,
        place=table.add,
    )


def find_tasks(folder: Path, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The model's tasks that names, numbers or paths mean, each once: those that segment, those that classify.

    Raises:
        InputError: if one is no task of the model, or may mean several.
    """
    from ..model import read_model_record
    from ..models import find_task

    record = read_model_record(folder)
    found = []
    for word in words:
        name = find_task(record.all_tasks, word, asked=f"--tasks {word}", place=folder)
        if name is None:
            there = ", ".join(record.all_tasks) or "none, it is a pre-trained backbone"
            raise InputError(f"--tasks {word}: is no task of {folder}, which has {there}")
        found.append(name)
    found = list(dict.fromkeys(found))
    return [name for name in found if name in record.tasks], [name for name in found if name in record.classifiers]


def tell_sharing(parts: Mapping[str, Part]) -> None:
    """Say which tasks one pass of the backbone serves."""
    from ..inference.shared import group

    for members in group({name: part.engine for name, part in parts.items()}):
        one_pass = "one pass of the backbone serves" if len(members) > 1 else "a pass of its own:"
        log.info("%s %s", one_pass, ", ".join(members))
