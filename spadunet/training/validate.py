"""Scores of the cases that a run held out, predicted from their images as a user's would be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..dataset import RawCase
from ..errors import InputError
from ..evaluation.evaluate import evaluate_pair
from ..evaluation.pairs import Pair
from ..evaluation.scoring import gather_scores
from ..evaluation.tables import table_text, write_scores
from ..inference.pipeline import predict_cases
from ..inference.predict import Engine, build_network
from ..model import Model
from .loop import RunOptions
from .ranks import Ranks
from .samples import draw_samples

log = logging.getLogger("spadunet")


def validate(
    model: Model, name: str, cases: Sequence[RawCase], folder: Path, *, ranks: Ranks, options: RunOptions
) -> list[str]:
    """Predict held-out cases from their raw images, write label maps and scores; a line for each that failed.

    Processes share the cases; each comes to know all that failed.

    Args:
        name: of the model's task.
        cases: with their references.
        folder: where label maps, scores and pictures go.
    """
    plan = model.tasks[name].plan
    together = ranks.part_for_long()
    engine = Engine(
        network=build_network(model, name).to(options.device),
        plan=plan,
        device=options.device,
        precision=options.precision,
        overlap=options.overlap,
        mirror=options.mirror,
    )
    scores, problems = [], []
    for outcome in predict_cases(
        list(cases[ranks.rank :: ranks.world_size]), engine, folder, is_quiet=not ranks.is_first
    ):
        if outcome.result is None:
            log.error("failed: %s", outcome.problem)
            problems.append(str(outcome.problem))
            continue
        assert outcome.item.label_path is not None
        pair = Pair(outcome.item.name, outcome.result, outcome.item.label_path, outcome.item.annotated)
        try:
            scores.append(evaluate_pair(pair, plan.labels))
        except InputError as error:
            log.error("failed: %s", error)
            problems.append(str(error))
    found = ranks.gather((scores, problems), together)
    scores = [score for part, _ in found for score in part]
    problems = [problem for _, part in found for problem in part]
    scored = {score.case for score in scores}
    result = gather_scores(scores, failed={case.name for case in cases} - scored)
    if ranks.is_first:
        write_scores(folder, result, plan.labels)
        draw_samples(cases, folder, result, plan.labels)
    log.info("validation of %s:\n%s", name, table_text(result).rstrip())
    return problems
