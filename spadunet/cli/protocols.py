"""Protocols of `spadunet_evaluate`: how BTCV, CHAOS and runs with few labels are scored, and what wins over that."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..metrics import BTCV_METRICS, CHAOS_METRICS, DEFAULT_METRICS
from ..missing import DEFAULT_MISSING
from .recipes import Recipe, settle
from .scored_pairs import find_images, find_labels, score_runs

if TYPE_CHECKING:
    from ..evaluation.scoring import Scoring
    from ..workers import Workers

MONAI = Recipe(
    options={
        "metrics": list(BTCV_METRICS),
        "definition": "monai",
        "unit": "mm",
        "missing": "zero",
    }
)
"""As the paper's BTCV results."""
PROTOCOLS: Mapping[str, Recipe] = {
    "btcv": MONAI,
    "chaos": Recipe(
        options={"metrics": list(CHAOS_METRICS), "definition": "chaos", "unit": "mm", "missing": DEFAULT_MISSING}
    ),
    "few-shot": MONAI,
}
SUBMISSION_UNCHECKED = "submission to CHAOS: not checked, since {} is not there (spadunet_convert_chaos writes it)"

log = logging.getLogger("spadunet")


def add_protocol_option(parser: argparse.ArgumentParser) -> None:
    """`--protocol`."""
    parser.add_argument(
        "--protocol",
        choices=tuple(PROTOCOLS),
        help="score as published results were, and put these beside: btcv (the nine validation scans, or -p with "
        "fold_0 … in it), chaos (T1 and T2 apart and together, the challenge's points, a submission tried out), "
        "few-shot (-p holds runs of spadunet_train --fraction). Sets metrics, definition, unit, policy and labels "
        "where you give none; writes protocol.json and protocol.csv, too",
    )


def settle_scoring(options: argparse.Namespace) -> list[str]:
    """Give the scoring options that were not given the protocol's values, or the usual; lines on what differs."""
    usual = Recipe(
        options={
            "definition": "default",
            "unit": "mm",
            "missing": DEFAULT_MISSING,
            "metrics": usual_metrics(options.definition),
        }
    )
    differs = [f"--labels {options.labels}"] if options.labels else []
    differs += ["--allow-missing"] if options.allow_missing else []
    lines = settle(options, usual, PROTOCOLS.get(options.protocol, usual), differs, kind="protocol")[1]
    for line in lines:
        log.info(line)
    return lines


def usual_metrics(definition: str | None) -> list[str]:
    """Metrics where none are given, which follow --unit where they can."""
    return [name.removesuffix("_mm") for name in (CHAOS_METRICS if definition == "chaos" else DEFAULT_METRICS)]


def score_protocol(
    options: argparse.Namespace, output: Path, scoring: Scoring, workers: Workers, settled: Sequence[str]
) -> tuple[tuple[str, ...], list[Path], str]:
    """Score all runs of a protocol and write its report.

    Returns:
        Cases that failed, the files written, and the tables as text.
    """
    from ..errors import InputError
    from ..evaluation.protocols.protocol import PROTOCOLS as FOUND
    from ..evaluation.protocols.report import csv_text, report_text
    from ..evaluation.tables import table_text
    from ..files import write_text
    from ..record import write_record

    protocol = FOUND[options.protocol]
    problems: list[str] = []
    more_notes = []
    runs = protocol.find_runs(options.predictions, options.references, problems)
    images = find_images(options, runs, problems)
    folders = {pair.prediction.parent for run in runs for pair in run.pairs if pair.prediction}
    if protocol.name == "chaos" and folders:
        try:
            more_notes.append(try_submission(sorted(folders), options.references))
        except InputError as error:
            problems.append(f"as a submission to CHAOS: {error}")
    labels = find_labels(options, runs, workers, problems, protocol.labels)
    found, files = score_runs(runs, labels, options, output, scoring, images, workers)
    scored = list(zip(runs, found, strict=True))
    report = protocol.report(scored, settled, more_notes)
    paths = [output / "protocol.json", output / "protocol.csv"]
    write_record(paths[0], report)
    write_text(paths[1], csv_text(report))
    failed = tuple(case for _, scores in scored for case in scores.failed)
    tables = [table_text(scores) for _, scores in scored] if len(scored) == 1 else []
    return failed, [*files, *paths], "\n".join([*tables, report_text(report)])


def try_submission(predictions: Sequence[Path], references: Path) -> str:
    """Export the predictions as the challenge's server takes them, and read them back; what came of it."""
    from ..preprocessing.converters.chaos import SLICES_JSON
    from ..preprocessing.converters.chaos_submission import check_export

    dataset = references.resolve().parent
    if not (dataset / SLICES_JSON).is_file():
        return SUBMISSION_UNCHECKED.format(dataset / SLICES_JSON)
    number, missing = check_export(predictions, dataset)
    told = f"submission to CHAOS: {number} label maps exported and read back, voxel for voxel"
    return f"{told}; test cases without one: {', '.join(missing) or 'none'}"
