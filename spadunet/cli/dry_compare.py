"""The dry run of `spadunet_compare`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import comb
from typing import TYPE_CHECKING

from ..measure import Amount, Needs, measure
from .dry_run import begin, show, show_needs, state_of, table

if TYPE_CHECKING:
    from ..evaluation.compare.paired import Paired

BYTES_A_DIFFERENCE = 1500
"""Of compare.json and compare.csv."""
BYTES_A_PICTURE = 120_000
TRIAL_RESAMPLES = 1000
BYTES_A_MEAN = 24
"""Of a model and class in a resample, which is in memory up to three times."""


def show_comparison(options: argparse.Namespace, paired: Paired) -> int:
    """Print what would be compared and written."""
    from ..evaluation.compare.plots import RANKING_PNG, difference_png, num_pages

    begin("spadunet_compare")
    shared = set(paired.cases)
    rows = [[it.name, str(len(it.cases)), str(len(set(it.cases) - shared)), str(it.file)] for it in paired.models]
    show("models", table(["model", "cases", "not shared", "file"], rows, "models", max_rows=len(rows)))
    metrics = [it.metric.name for it in paired.metrics]
    num_pairs = comb(len(paired.models), 2)
    show(
        "compares",
        [
            f"cases: {len(paired.cases)} of {len(paired.patients)} patients",
            f"classes: {', '.join(paired.classes)}",
            f"metrics: {', '.join(metrics)}",
            f"pairs of models: {num_pairs}",
            *paired.notes,
        ],
    )
    pictures = [difference_png(metric, page) for metric in metrics for page in range(num_pages(num_pairs))]
    names = ["compare.json", "compare.csv", *pictures, RANKING_PNG, "spadunet_compare.json"]
    log = state_of(options.output / "spadunet_compare.log", "added to")
    show(f"writes into {options.output}", [*(state_of(options.output / name) for name in names), log])
    show_needs(estimate(options, paired, num_pairs), options.output)
    return 0


def estimate(options: argparse.Namespace, paired: Paired, num_pairs: int) -> Needs:
    """Time and memory from a trial: two models by one metric, with fewer resamples."""
    from ..evaluation.compare.comparison import compare
    from ..evaluation.compare.plots import num_pages

    resamples = min(options.resamples, TRIAL_RESAMPLES)
    cost = measure(lambda: compare(first_pair(paired), resamples=resamples, seed=options.seed))
    num_differences = len(paired.metrics) * num_pairs * (len(paired.classes) + 1)
    num_pictures = len(paired.metrics) * num_pages(num_pairs) + 1
    basis = f"a trial with two models, one metric and {resamples} resamples took {cost.seconds:.1f} s"
    times = len(paired.metrics) * num_pairs * options.resamples / resamples
    num_resampled = options.resamples * len(paired.models) * len(paired.classes)
    return Needs(
        time=Amount(value=cost.seconds * times, basis=f"{basis}, scaled; without pictures"),
        memory=Amount(
            value=max(cost.peak_bytes, BYTES_A_MEAN * num_resampled),
            basis="by the number of resamples, models and classes",
        ),
        disk=Amount(
            value=BYTES_A_DIFFERENCE * num_differences + BYTES_A_PICTURE * num_pictures,
            basis="by the number of metrics, pairs and classes",
        ),
    )


def first_pair(paired: Paired) -> Paired:
    """The first two models by the first metric."""
    values = paired.metrics[0]
    counts = {name: getattr(values, name)[:2] for name in ("by_patient", "num_filled", "num_best")}
    return replace(paired, models=paired.models[:2], metrics=(replace(values, **counts),))
