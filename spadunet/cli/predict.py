"""spadunet_predict: a folder of images to a folder of label maps."""

from __future__ import annotations

import argparse
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..workers import Workers
from .fine_tuning import settle_prediction
from .options import find_cluster, find_device, find_mirror_axes
from .predict_options import USUAL, add_options, find_models_asked
from .run import log_to_file, make_parser, run_command, write_manifest
from .stages import GOES_ON

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.job import Job
    from ..inference.predict import Engine
    from ..inference.quality_table import QualityTable
    from ..parallel import Outcome
    from ..training.ranks import Ranks

EXAMPLES = """\
  spadunet_predict -i imagesTs -o predictions -d Hippocampus
  spadunet_predict -i imagesTs -o predictions -m results/Dataset004_Hippocampus/spad_unet_tiny/fold_0
  spadunet_predict -i imagesTs -o predictions                 with the model trained last
  spadunet_predict -i imagesTs -o predictions -d Hippocampus -f 0 1 2 3 4        the mean of five folds
  spadunet_predict -i imagesTs -o predictions -m model_a model_b                 the mean of two models
  spadunet_predict -i imagesTs -o predictions --roi-subset liver spleen          nothing else
  spadunet_predict -i imagesTs -o predictions --continue      go on after an interruption
  spadunet_predict -i imagesTs -o predictions --reject-below 0.7      doubtful label maps go to predictions/review
  spadunet_predict -i study -o segmentations --format dicom-seg
  torchrun --standalone --nproc-per-node 4 $(which spadunet_predict) -i imagesTs -o predictions     on four GPUs
  spadunet_predict -i /shared/imagesTs -o /shared/predictions --dask tcp://node7:8786
"""
MANIFEST = "spadunet_predict.json"
UNFINISHED_FILE = "spadunet_predict.unfinished"

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Predict a label map for every image of a folder, on the image's own grid. quality.csv beside them tells how\n"
        "far each can be trusted.",
        EXAMPLES,
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Join the other processes, if torchrun started several, and predict."""
    from ..training.ranks import open_ranks

    if options.dask is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"--dask {options.dask}: does not go with torchrun; give one of them")
    with open_ranks(find_device(options.device), is_training=False) as ranks:
        return predict(options, ranks)


def predict(options: argparse.Namespace, ranks: Ranks) -> int:
    """Load the model, find the images, predict them one after the other; of several processes, each its share.

    What is shared is written by the first process alone.
    """
    from ..evaluation.label_names import LABELS_JSON
    from ..files import require_writable, sha256_of_file, write_text
    from ..formats import is_dicom
    from ..inference.cases import find_cases, tell_series
    from ..inference.channels import order_of
    from ..inference.job import Job, engine_of
    from ..inference.label_format import check_format, label_ending
    from ..inference.pipeline import predict_cases, prediction_path
    from ..inference.quality_table import QUALITY_CSV, REVIEW_FOLDER, Judgement, QualityTable, review_path
    from ..inference.sources import (
        calibration_of,
        choose_structures,
        open_sources,
        rules_of,
        tell_sources,
    )
    from ..inference.stages import StageTimes
    from ..inference.subset import labels_of
    from ..model import MODEL_JSON
    from ..network.device import choose_precision
    from ..record import write_record
    from ..workspace import find_workspace

    started = time.time()
    folders = find_models_asked(options, find_workspace(options.data))
    sources = open_sources(folders, options.dataset, options.spacing)
    plan = sources[0].plan
    settled = settle_prediction(options, USUAL, sources[0].provenance)
    mirror = find_mirror_axes(options.mirror)
    chosen = choose_structures(plan.labels, options.roi_subset or ())
    labels = labels_of(plan.labels, chosen)
    rule_notes = rules_of(sources, chosen)[1] if options.cleans else ["post-processing: left out as asked"]
    calibration, told = calibration_of(sources)
    if options.reject_below is not None and calibration is None:
        raise InputError(f"--reject-below {options.reject_below:g}: {told}")
    order = order_of(plan, options.input, options.channels)
    cases = find_cases(options.input, len(order.names), order.optional)
    device = ranks.device
    workers = None if options.dask is None else find_cluster(options.dask)
    notes = [*tell_sources(sources, device), *settled, *tell_series(cases)]
    notes += check_format(cases, options.format, labels)
    notes += [plan.labels.tell_mirror(axis) for axis in mirror]
    notes += [f"only {', '.join(chosen)} is predicted"] if chosen else []
    notes += [*rule_notes, told]
    if options.output.resolve() == options.input.resolve():
        raise InputError(f"-o {options.output}: is the input folder; its images would be overwritten: give another")
    if is_dicom(cases[0].paths[0]) and options.input.resolve() in options.output.resolve().parents:
        raise InputError(
            f"-o {options.output}: lies among the DICOM files of -i, whose folders are cases: give another"
        )
    require_writable(options.output, dry_run=options.dry_run)
    precision = choose_precision(options.precision, device)
    if not options.dry_run and ranks.is_first:
        log_to_file(options.output / "spadunet_predict.log")
    for note in notes:
        log.info(note)

    unfinished = options.output / UNFINISHED_FILE
    what = (options.input.resolve(), options.overlap, precision, options.format, options.spacing, mirror, order)
    models = (f"{it.task} {sha256_of_file(it.folder / MODEL_JSON)}" for it in sources)
    request = "\n".join((*map(str, (*what, chosen, options.cleans)), *models))
    goes_on = unfinished.is_file() and unfinished.read_text(encoding="utf-8") == request
    paths = {
        case.name: prediction_path(options.output, case.name, label_ending(case, options.format)) for case in cases
    }
    require_own(options.output, paths)
    if options.dry_run:
        if not ranks.is_first:
            return 0
        from .dry_predict import show_prediction

        return show_prediction(
            cases,
            sources,
            options,
            device=device,
            precision=precision,
            label_maps=paths,
            keeps=options.keep or goes_on,
            order=order,
        )
    ranks.wait()  # all have looked at what is there
    keeps = options.keep or goes_on
    if not keeps and ranks.is_first:
        for path in paths.values():  # those of an earlier run must not pass as this one's if it is interrupted
            path.unlink(missing_ok=True)
            review_path(path).unlink(missing_ok=True)
    if ranks.is_first:
        write_text(unfinished, request)
        write_record(options.output / LABELS_JSON, labels)
    judgement = Judgement(labels=labels, calibration=calibration, reject_below=options.reject_below)
    table = QualityTable(options.output, judgement, keep=keeps, rank=ranks.rank)
    if keeps and ranks.is_first:
        there = {name for name, path in paths.items() if path.is_file() or review_path(path).is_file()}
        log.info("%d of %d label maps are there already and kept", len(there), len(cases))
        cases = [case for case in cases if case.name not in there]
        table.sort({name: paths[name] for name in there})
        if num_unknown := len(there - table.table.keys()):
            log.info("%d of these have no row in %s; predict them again for one", num_unknown, QUALITY_CSV)
    cases = ranks.gather(cases)[0]
    times = StageTimes()
    job = Job(
        models=tuple(folder.absolute() for folder in folders),
        dataset=options.dataset and sources[0].task,
        device=options.device,
        precision=options.precision,
        overlap=options.overlap,
        spacing=options.spacing,
        mirror=mirror,
        chosen=chosen,
        cleans=options.cleans,
        memory_gb=options.memory_gb,
        folder=options.output.absolute(),
        label_format=options.format,
        order=order,
        reject_below=options.reject_below,
    )
    if workers is not None:
        cases = [absolute(case) for case in cases]
        outcomes = predict_elsewhere(cases, job, workers, table)
    else:
        engine = engine_of(job, sources, device)
        tell_memory(cases, engine)
        outcomes = list(
            predict_cases(
                cases[ranks.rank :: ranks.world_size],
                engine,
                options.output,
                label_format=options.format,
                order=order,
                is_quiet=not ranks.is_first,
                times=times,
                place=table.add,
            )
        )
    found = ranks.gather((outcomes, table.table))
    outcomes = [outcome for each, _ in found for outcome in each]
    for _, rows in found:
        table.table |= rows
    if not ranks.is_first:
        return 1 if any(outcome.problem for outcome in outcomes) else 0
    written = [outcome.result for outcome in outcomes if outcome.result is not None]
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    for problem in problems:
        log.error("failed: %s", problem)
    for line in table.finish({outcome.item.name for outcome in outcomes if outcome.problem}):
        log.info(line)
    if (options.output / REVIEW_FOLDER).is_dir():
        write_record(review_path(options.output / LABELS_JSON), labels)
    written.append(options.output / QUALITY_CSV)
    write_manifest(
        options.output / MANIFEST,
        "spadunet_predict",
        options,
        started=started,
        device=str(device),
        files=written,
    )
    unfinished.unlink(missing_ok=True)
    log.info("%s", times)
    log.info("%d label maps written, %d failed: %s", len(cases) - len(problems), len(problems), options.output)
    return 1 if problems else 0


def predict_elsewhere(
    cases: list[RawCase], job: Job, workers: Workers, table: QualityTable
) -> list[Outcome[RawCase, Path]]:
    """Let a cluster predict; rows of the table come back with the outcomes."""
    from ..inference.job import predict_case
    from ..parallel import Outcome, map_cases

    outcomes: list[Outcome[RawCase, Path]] = []
    for outcome in map_cases(partial(predict_case, job=job), cases, title="Predicting", workers=workers):
        if outcome.result is None:
            outcomes.append(outcome.failed())
            continue
        path, rows = outcome.result
        table.keep(outcome.item.name, rows)
        outcomes.append(Outcome(item=outcome.item, result=path, problem=None))
    return outcomes


def absolute(case: RawCase) -> RawCase:
    """The same, wherever it is read from."""
    return replace(case, image_paths=tuple(path and path.absolute() for path in case.image_paths))


def tell_memory(cases: list[RawCase], engine: Engine) -> None:
    """Say how the logits of the largest image will fit into memory, as far as headers tell; bad ones are told later."""
    from ..inference.budget import tell_choice
    from ..inference.predict import plan_at
    from .dry_run import read_headers

    headers, _ = read_headers(cases, None)
    plan = plan_at(engine.plan, engine.spacing)
    grids = {name: header.target_grid(plan) for name, header in headers.items()}
    if grids:
        name = max(grids, key=lambda name: math.prod(grids[name][0]))
        shape, da = grids[name]
        log.info(tell_choice(name, engine.demand(shape, da), engine.budget, engine.device))


def require_own(folder: Path, predictions: dict[str, Path]) -> None:
    """Refuse to write over label maps that are no predictions: a slip of `-o` must not cost hand-drawn references.

    Nor beside one of the same case in another format: it would pass as this run's.

    Args:
        predictions: by case name.

    Raises:
        InputError: if such files lie in the folder, and nothing tells that `spadunet_predict` wrote them, or if a
            prediction of another format does.
    """
    from ..inference.label_format import written_before
    from ..inference.quality_table import REVIEW_FOLDER

    is_own = any((folder / name).is_file() for name in (UNFINISHED_FILE, MANIFEST))
    there = [
        (path, prediction)
        for case, prediction in predictions.items()
        for place in (folder, folder / REVIEW_FOLDER)
        for path in written_before(place, case)
    ]
    for path, prediction in there:
        shown = path.relative_to(folder)
        if not is_own:
            raise InputError(f"-o {folder}: holds {shown}, which spadunet_predict did not write; give another folder")
        if path.name != prediction.name:
            raise InputError(f"-o {folder}: holds {shown}, the same case in another format; give another folder")
