"""The output folder of a prediction: how it is begun, shown and finished."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .asked_prediction import Asked
from .run import write_manifest

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..inference.predict import Engine
    from ..inference.quality_table import QualityTable
    from ..inference.resume import Start
    from ..parallel import Outcome
    from ..training.ranks import Ranks

log = logging.getLogger("spadunet")


def show(options: argparse.Namespace, asked: Asked, start: Start, ranks: Ranks) -> int:
    """The dry run, of the first process alone."""
    if not ranks.is_first:
        return 0
    from .dry_predict import show_prediction

    return show_prediction(
        asked.cases,
        asked.sources,
        options,
        device=ranks.device,
        precision=asked.precision,
        label_maps=asked.paths,
        kept=start.kept,
        order=asked.job.order,
    )


def open_table(asked: Asked, start: Start, ranks: Ranks) -> QualityTable:
    """Clear the output folder of what is not kept; its table of quality, with the rows of what is."""
    from ..evaluation.label_names import LABELS_JSON
    from ..inference.quality_table import QUALITY_CSV, QualityTable
    from ..record import write_record

    if ranks.is_first:  # in this order: whatever lies there when the run is stopped must pass for nothing else
        start.clear()
    table = QualityTable(start.folder, asked.judgement, keep=start.keeps, rank=ranks.rank)
    if not ranks.is_first:
        return table
    start.begin()
    write_record(start.folder / LABELS_JSON, asked.judgement.labels)
    if start.keeps:
        log.info("%d of %d label maps are there already and kept", len(start.kept), len(asked.cases))
        table.sort({name: asked.paths[name] for name in start.kept})
        if num_unknown := len(start.kept - table.table.keys()):
            log.info("%d of these have no row in %s; predict them again for one", num_unknown, QUALITY_CSV)
    return table


def finish(
    options: argparse.Namespace,
    asked: Asked,
    start: Start,
    outcomes: list[Outcome[RawCase, Path]],
    table: QualityTable,
    *,
    started: float,
) -> None:
    """Write table and manifest, and say what became of all cases."""
    from ..evaluation.label_names import LABELS_JSON
    from ..inference.quality_table import QUALITY_CSV, REVIEW_FOLDER, review_path
    from ..inference.resume import MANIFEST
    from ..inference.saved_probabilities import probabilities_path
    from ..record import write_record

    problems = {outcome.item.name: outcome.problem for outcome in outcomes if outcome.problem}
    for problem in problems.values():
        log.error("failed: %s", problem)
    for line in table.finish(problems.keys()):
        log.info(line)
    if (options.output / REVIEW_FOLDER).is_dir():
        write_record(review_path(options.output / LABELS_JSON), asked.judgement.labels)
    written = [outcome.result for outcome in outcomes if outcome.result is not None]
    beside = [
        probabilities_path(outcome.result, outcome.item.name)
        for outcome in outcomes
        if outcome.result is not None and options.saves_probabilities
    ]
    write_manifest(
        options.output / MANIFEST,
        "spadunet_predict",
        options,
        started=started,
        device=str(asked.device),
        files=[*written, *beside, options.output / QUALITY_CSV],
        more={"made": start.made.model_dump(mode="json")},
    )
    start.end()
    log.info("%d label maps written, %d failed: %s", len(written), len(problems), options.output)


def tell_memory(cases: list[RawCase], engine: Engine) -> None:
    """Say how the logits of the largest image will fit into memory, as far as headers tell; bad ones are told later."""
    from ..inference.budget import tell_choice, tell_shortage
    from ..inference.predict import plan_at
    from .dry_run import read_headers

    headers, _ = read_headers(cases, None)
    plan = plan_at(engine.plan, engine.spacing)
    demands = {name: engine.demand(*header.target_grid(plan), header.facts.shape) for name, header in headers.items()}
    if not demands:
        return
    name = max(demands, key=lambda name: demands[name].least_bytes())
    log.info(tell_choice(name, demands[name], engine.budget, engine.device))
    if shortage := tell_shortage(name, demands[name], engine.budget):
        log.warning(shortage)
