"""The dry run of `spadunet_evaluate`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError
from ..measure import Amount, Needs
from .dry_run import (
    at_once,
    begin,
    bytes_of,
    finish,
    num_working,
    pairing_table,
    read_headers,
    show,
    show_needs,
    size_text,
    state_of,
    unknown,
)
from .scored_pairs import find_images, prediction_folders, stale_files

if TYPE_CHECKING:
    from ..dataset import RawCase
    from ..evaluation.scoring import Scoring
    from ..labels import LabelSet
    from ..preprocessing.estimate import HeaderCase

BYTES_A_CASE = 2000
"""Of scores.json, summary.json and scores.csv, for a case of two classes."""


def show_evaluation(options: argparse.Namespace, output: Path, scoring: Scoring) -> int:
    """Print which predictions would be scored against which references.

    Raises:
        InputError: if folders do not pair, the labels are wrong, or headers show a file to be wrong.
    """
    from ..dataset import RawCase
    from ..evaluation.label_names import find_labels
    from ..evaluation.pairs import find_pairs, missing_problem
    from ..evaluation.protocols.protocol import PROTOCOLS
    from ..evaluation.protocols.runs import ProtocolRun

    begin("spadunet_evaluate")
    wrong: list[str] = []
    protocol = PROTOCOLS[options.protocol] if options.protocol else None
    if protocol:
        runs = protocol.find_runs(options.predictions, options.references, wrong)
    else:
        paired = find_pairs(options.predictions, options.references, problems=wrong)
        runs = [ProtocolRun(predictions=options.predictions, pairs=paired)]
    find_images(options, runs, wrong)
    labels = find_labels(
        prediction_folders(options, runs),
        options.references,
        options.labels,
        protocol=protocol.labels if protocol else None,
        problems=wrong,
    )
    pairs = [pair for run in runs for pair in run.pairs]
    lacking = [
        line
        for run in runs
        if (line := missing_problem(run.pairs, run.predictions, allow_missing=options.allow_missing))
    ]
    missing = [pair.name for pair in pairs if pair.prediction is None]
    cases = [
        RawCase(name=pair.name, image_paths=(pair.prediction,), label_path=pair.reference)
        for pair in pairs
        if pair.prediction is not None
    ]
    headers, problems = read_headers(cases, None)
    problems = [*wrong, *lacking, *problems]
    paths = [path for case in cases for path in case.paths]
    show(
        "reads", [f"{len(cases)} predictions and as many references, {len(paths)} files, {size_text(bytes_of(paths))}"]
    )
    if missing:
        show(
            "counted as missed, since there is no prediction" if not lacking else "no prediction of",
            [", ".join(missing)],
        )
    names = ["scores.json", "summary.json", "scores.csv", "spadunet_evaluate.json"]
    names += ["protocol.json", "protocol.csv"] if options.protocol else []
    names += ["report.html"] if options.report else []
    log = state_of(output / "spadunet_evaluate.log", "added to")
    show(f"writes into {output}", [*(state_of(output / name) for name in names), log])
    if stale := stale_files(output, []):
        show("removes, of an earlier evaluation", [", ".join(map(str, stale))])
    show("pairs", pairing_table(cases, headers, ["prediction"], options.predictions, label="reference"))
    needs = estimate(cases, list(headers.values()), labels, scoring, num_working(options, len(cases)))
    show_needs(needs, output)
    return finish(problems)


def estimate(
    cases: list[RawCase], found: list[HeaderCase], labels: LabelSet | None, scoring: Scoring, processes: int
) -> Needs:
    """Time and memory from a trial that scores the middle slices of a few cases."""
    from ..evaluation.label_names import labels_of
    from ..preprocessing.estimate import Stage, samples_of, try_stages

    if not found:
        return unknown("no header could be read")
    try:
        with samples_of(found) as samples:
            references = [sample.case.label_path for sample in samples if sample.case.label_path]
            known = labels or labels_of(references[0].parent, references)
            assert known is not None
            trial = try_stages({"score": Stage(run=partial(score, labels=known, scoring=scoring))}, samples)
    except (InputError, OutputError) as error:
        return unknown(f"the trial failed: {str(error).splitlines()[0]}")
    work = sorted(header.work(None) for header in found)
    return Needs(
        time=Amount(
            value=trial.seconds("score", sum(work), processes),
            basis=f"{trial.basis}, scaled by the voxels of all cases; {at_once(processes)}",
        ),
        memory=Amount(
            value=trial.memory_bytes("score", work[-processes:]),
            basis=f"{trial.basis}, scaled by the voxels of the largest; {at_once(processes)}",
        ),
        disk=Amount(
            value=BYTES_A_CASE * len(cases) * known.num_classes / 3, basis="by the number of cases and classes"
        ),
    )


def score(case: RawCase, *, labels: LabelSet, scoring: Scoring) -> object:
    """What the command does with each pair."""
    from ..evaluation.evaluate import evaluate_pair
    from ..evaluation.pairs import Pair

    assert case.label_path is not None
    assert case.image_paths[0] is not None
    return evaluate_pair(Pair(case.name, case.image_paths[0], case.label_path), labels, scoring)
