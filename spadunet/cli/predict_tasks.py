"""spadunet_predict --tasks: several tasks of one model, each into a folder of its own."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import InputError
from .asked_classes import find_classes_asked
from .asked_prediction import Asked, find_prediction
from .predict_classes import LOG_FILE, ClassRun, predict_together
from .predict_options import OF_CLASSES, OF_LABEL_MAPS, find_models_asked, given_of, refuse_others
from .prediction_folder import finish, open_table, show, tell_memory
from .run import log_to_file

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.many_tasks import Part
    from ..inference.quality_table import QualityTable
    from ..inference.resume import Start
    from ..inference.sources import Source
    from ..model import Model
    from ..training.ranks import Ranks

log = logging.getLogger("spadunet")

Task = TypeVar("Task")


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
    """Predict all tasks, those that classify last; 1 if some case failed. All is checked before the work.

    Args:
        ranks: this process, alone.

    Raises:
        InputError: if what was asked for does not go together, or something is missing or damaged.
    """
    from ..files import require_writable
    from ..inference.sources import open_tasks
    from ..model import load_model
    from ..workspace import find_workspace

    (folder,) = find_models_asked(options, find_workspace(options.data), may_classify=True)
    segmenting, classifying = find_tasks(folder, options.tasks)
    if not classifying:
        refuse_others(options, OF_CLASSES, "is for tasks that classify, and these predict label maps")
    if not segmenting:
        refuse_others(options, OF_LABEL_MAPS, "is for label maps, and these tasks classify")
    model = load_model(folder)
    runs = {it.task: begin(options, it, ranks) for it in (open_tasks(folder, segmenting, model) if segmenting else ())}
    class_runs = find_class_runs(options, folder, classifying, model) if classifying else {}
    del model
    for name in (*segmenting, *classifying):
        require_writable(options.output / name, dry_run=options.dry_run)
    if not options.dry_run:
        log_to_file(options.output / LOG_FILE)
    if runs and class_runs:
        for flags, names in ((OF_LABEL_MAPS, segmenting), (OF_CLASSES, classifying)):
            for flag in given_of(options, flags):
                log.info("%s: for %s alone", flag, ", ".join(names))
    codes = [predict_label_maps(options, runs, ranks)] if runs else []
    return max([*codes, *predict_all_classes(class_runs, dry_run=options.dry_run)])


def alone(options: argparse.Namespace, folder: Path, name: str) -> argparse.Namespace:
    """The options by which one task would be asked for, with its own folder."""
    own = {"tasks": None, "model": [folder], "fold": None, "dataset": name, "output": options.output / name}
    return argparse.Namespace(**(vars(options) | own))


def predict_label_maps(options: argparse.Namespace, runs: Mapping[str, TaskRun], ranks: Ranks) -> int:
    """As `predict_tasks`, of those that segment."""
    from ..inference.many_tasks import predict_many
    from ..inference.shared import see_the_same
    from ..inference.stages import StageTimes
    from ..parallel import Outcome, with_progress

    started = time.time()
    for run in runs.values():
        tell(run)
    if options.dry_run:
        return max(show(run.options, run.asked, run.start, ranks) for run in runs.values())
    parts, tables = {}, {}
    for name, run in runs.items():
        tables[name] = open_table(run.asked, run.start, ranks)
        parts[name] = part_of(run, tables[name], ranks)
    tell_sharing({name: part.engine for name, part in parts.items()}, see_the_same, "backbone")
    times = StageTimes()
    outcomes: dict[str, list[Outcome[RawCase, Path]]] = {name: [] for name in runs}

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


def find_class_runs(
    options: argparse.Namespace, folder: Path, names: Sequence[str], model: Model
) -> dict[str, ClassRun]:
    """Look for studies, once for all tasks of the same channels, and at what lies in the folders of these tasks.

    Raises:
        InputError: if what was asked for does not go together.
    """
    from ..inference.asked_studies import AskedStudies, find_studies
    from ..inference.class_sources import channels_of, open_classifiers

    sources = open_classifiers(folder, names, model)
    found: dict[object, AskedStudies] = {}
    runs = {}
    for source in sources:
        own, channels = alone(options, folder, source.task), channels_of(source)
        if channels not in found:
            plans = [it.plan for it in sources if channels_of(it) == channels]
            found[channels] = find_studies(
                own.input, source.plan, split=own.split, channels=own.channels, others=plans[1:]
            )
        asked = find_classes_asked(own, [source], replace(found[channels], plan=source.plan))
        runs[source.task] = ClassRun(own, asked)
    return runs


def predict_all_classes(runs: Mapping[str, ClassRun], *, dry_run: bool) -> list[int]:
    """As `predict_tasks`, of those that classify; exit codes."""
    if not runs:
        return []
    if dry_run:
        from .dry_predict_classes import show_classes

        return [show_classes(run.options, run.asked) for run in runs.values()]
    from ..inference.shared import group
    from ..inference.shared_tokens import prepare_alike, share_tokens

    def read_alike(run: ClassRun, other: ClassRun) -> bool:
        return run.asked.todo == other.asked.todo and prepare_alike(run.asked.sources, other.asked.sources)

    def encode_alike(run: ClassRun, other: ClassRun) -> bool:
        return read_alike(run, other) and share_tokens(run.asked.sources[0], other.asked.sources[0])

    tell_sharing(runs, encode_alike, "encoder")
    return [predict_together([runs[name] for name in members]) for members in group(runs, read_alike)]


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
    from ..inference.resume import find_start

    own = alone(options, source.folder, source.task)
    asked = find_prediction(own, ranks.device, [source])
    start = find_start(
        own.output, asked.request, asked.paths, must_keep=own.keep, saves_probabilities=own.saves_probabilities
    )
    return TaskRun(options=own, asked=asked, start=start)


def tell(run: TaskRun) -> None:
    """Say what will be done."""
    for note in run.asked.notes:
        log.info(note)
    if run.start.left:
        log.warning(run.start.tell_left())


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


def tell_sharing(tasks: Mapping[str, Task], are_alike: Callable[[Task, Task], bool], what: str) -> None:
    """Say which tasks one pass of the backbone, or its encoder, serves."""
    from ..inference.shared import group

    for members in group(tasks, are_alike):
        one_pass = f"one pass of the {what} serves" if len(members) > 1 else "a pass of its own:"
        log.info("%s %s", one_pass, ", ".join(members))
