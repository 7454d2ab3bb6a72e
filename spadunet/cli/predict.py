"""spadunet_predict: a folder of images to a folder of label maps, or to a table of classes."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..workers import Workers
from .asked_prediction import Asked, find_prediction
from .options import find_device
from .predict_options import add_options
from .predict_tasks import check_tasks_options, predict_tasks
from .prediction_folder import finish, open_table, show, tell_memory
from .run import log_to_file, make_parser, run_command
from .stages import GOES_ON

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.job import Job
    from ..inference.quality_table import QualityTable
    from ..inference.stages import StageTimes
    from ..parallel import Outcome
    from ..training.ranks import Ranks

EXAMPLES = """\
  spadunet_predict -i imagesTs -o predictions -d Hippocampus
  spadunet_predict -i imagesTs -o predictions -m results/Dataset004_Hippocampus/spad_unet_tiny/fold_0
  spadunet_predict -i imagesTs -o predictions                 with the model trained last
  spadunet_predict -i imagesTs -o predictions -d Hippocampus -f 0 1 2 3 4        the mean of five folds
  spadunet_predict -i imagesTs -o predictions -m model_a model_b                 the mean of two models
  spadunet_predict -i imagesTs -o predictions -m model --tasks Liver Spleen      each into a folder of its own
  spadunet_predict -i imagesTs -o predictions --roi-subset liver spleen          nothing else
  spadunet_predict -i imagesTs -o predictions --save-probabilities               <case>.npz beside each label map
  spadunet_predict -i imagesTs -o predictions --continue      go on after an interruption
  spadunet_predict -i imagesTs -o predictions --reject-below 0.7      doubtful label maps go to predictions/review
  spadunet_predict -i study -o segmentations --format dicom-seg
  torchrun --standalone --nproc-per-node 4 $(which spadunet_predict) -i imagesTs -o predictions     on four GPUs
  spadunet_predict -i /shared/imagesTs -o /shared/predictions --dask tcp://node7:8786
  spadunet_predict -i organmnist3d.npz -o predictions -m MODEL --heat-maps      classes, and where the network looks
"""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Predict a label map for every image of a folder, on the image's own grid. quality.csv beside them tells how\n"
        "far each can be trusted. A task that classifies writes predictions.csv, the probability of each class.",
        EXAMPLES,
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Join the other processes, if torchrun started several, and predict."""
    from ..training.ranks import open_ranks
    from .predict_classes import predict_classes, predicts_classes

    if options.dask is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"--dask {options.dask}: does not go with torchrun; give one of them")
    check_tasks_options(options)
    if options.tasks is None and predicts_classes(options):
        return predict_classes(options)
    with open_ranks(find_device(options.device), is_training=False) as ranks:
        return predict(options, ranks) if options.tasks is None else predict_tasks(options, ranks)


def predict(options: argparse.Namespace, ranks: Ranks) -> int:
    """Predict what was asked for, but what is there already; of several processes, each takes case by case.

    What is shared is written by the first process alone.
    """
    from ..files import require_writable
    from ..inference.resume import find_start
    from ..inference.stages import StageTimes

    started = time.time()
    asked = find_prediction(options, ranks.device)
    start = find_start(
        options.output,
        asked.request,
        asked.paths,
        must_keep=options.keep,
        saves_probabilities=options.saves_probabilities,
    )
    require_writable(options.output, dry_run=options.dry_run)
    if not options.dry_run and ranks.is_first:
        log_to_file(options.output / "spadunet_predict.log")
    for note in asked.notes:
        log.info(note)
    if start.left:
        log.warning(start.tell_left())
    if options.dry_run:
        return show(options, asked, start, ranks)
    ranks.wait()  # all have looked at what is there
    table = open_table(asked, start, ranks)
    ranks.wait()  # what is not kept is gone
    times = StageTimes()
    cases = [case for case in asked.cases if case.name not in start.kept]
    if asked.workers is not None:
        outcomes = predict_elsewhere([absolute(case) for case in cases], asked.job, asked.workers, table, times)
    else:
        outcomes = predict_here(cases, asked, options.output, ranks, table, times)
    found = ranks.gather((outcomes, table.table, times.seconds))
    outcomes = [outcome for each, _, _ in found for outcome in each]
    if ranks.is_first:
        for _, rows, _ in found:
            table.table |= rows
        for _, _, seconds in found[1:]:
            times.add(seconds)
        log.info("%s", times)
        finish(options, asked, start, outcomes, table, started=started)
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def predict_here(
    cases: list[RawCase], asked: Asked, folder: Path, ranks: Ranks, table: QualityTable, times: StageTimes
) -> list[Outcome[RawCase, Path]]:
    """Predict in this process, or in this one of several."""
    from ..inference.job import engine_of
    from ..inference.pipeline import predict_cases

    engine = engine_of(asked.job, asked.sources, ranks.device)
    tell_memory(cases, engine)
    outcomes = predict_cases(
        cases,
        engine,
        folder,
        take=ranks.take_turns if ranks.world_size > 1 else None,
        label_format=asked.job.label_format,
        order=asked.job.order,
        is_quiet=not ranks.is_first,
        times=times,
        place=table.add,
    )
    return list(outcomes)


def predict_elsewhere(
    cases: list[RawCase], job: Job, workers: Workers, table: QualityTable, times: StageTimes
) -> list[Outcome[RawCase, Path]]:
    """Let a cluster predict; rows of the table and seconds come back with the outcomes."""
    from ..inference.budget import HOST_SHARE
    from ..inference.job import predict_case
    from ..parallel import Outcome, map_cases

    if job.memory_gb is None:
        log.info(
            "memory: each worker plans with %.0f %% of its own limit (dask worker --memory-limit)", 100 * HOST_SHARE
        )
    outcomes: list[Outcome[RawCase, Path]] = []
    for outcome in map_cases(partial(predict_case, job=job), cases, title="Predicting", workers=workers):
        if outcome.result is None:
            outcomes.append(outcome.failed())
            continue
        path, rows, seconds = outcome.result
        times.add(seconds)
        table.keep(outcome.item.name, rows)
        outcomes.append(Outcome(item=outcome.item, result=path, problem=None))
    return outcomes


def absolute(case: RawCase) -> RawCase:
    """The same, wherever it is read from."""
    return replace(case, image_paths=tuple(path and path.absolute() for path in case.image_paths))
