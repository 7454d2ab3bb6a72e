"""`spadunet_evaluate`: predictions against references, in the space of the original images, or classes of studies."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.definitions import DEFINITIONS
from ..metrics import KNOWN, UNITS, complete_names
from ..missing import DEFAULT_MISSING, POLICIES
from .options import add_worker_options, find_workers
from .protocols import add_protocol_option, settle_scoring
from .run import add_dry_run_option, log_to_file, make_parser, run_command, write_manifest
from .scored_pairs import MANIFEST, find_images, find_labels, score_runs
from .scored_studies import is_classification, require_same_kind, score_studies

if TYPE_CHECKING:
    from ..evaluation.scoring import Scoring

EXAMPLES = """\
  spadunet_evaluate -p predictions -r spadunet_data/raw/Dataset004_Hippocampus/labelsTs
  spadunet_evaluate -p predictions -r references -o scores --metrics dice iou hd95 nsd_2mm ravd_percent
  spadunet_evaluate -p predictions -r references --definition monai --unit voxel --missing zero
  spadunet_evaluate -p predictions -r references --allow-missing -np 4
  spadunet_evaluate -p predictions -r references --report --images spadunet_data/raw/Dataset007_Liver/imagesTs
  spadunet_evaluate -p predictions -r spadunet_data/raw/Dataset007_BTCV/labelsTr --protocol btcv
  spadunet_evaluate -p predictions/predictions.csv -r labels.csv --report
  spadunet_evaluate -p predictions/predictions.csv -r organmnist3d.npz --split test"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and score two folders."""
    parser = make_parser(
        "Score predictions against references of the same file names, by case and class: overlaps, surface\n"
        "distances in mm or voxels, volumes, lesions. Writes scores.json and summary.json (nnU-Net's keys) with\n"
        "the definition of every metric, and scores.csv with its name. A predictions.csv of a classification is\n"
        "scored by AUC and ACC as MedMNIST defines them.",
        EXAMPLES,
    )
    parser.add_argument(
        "-p",
        "--predictions",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of predicted label maps, or predictions.csv of a classification",
    )
    parser.add_argument(
        "-r",
        "--references",
        type=Path,
        required=True,
        metavar="PATH",
        help="label maps of the same names, or a CSV of labels (study, label; or study and a column a finding), "
        "a folder with labels.csv, a MedMNIST .npz file",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (else -p, or its folder)")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="of a classification: score the studies that -r puts into this split (default: test if there is one, "
        "else all)",
    )
    add_scoring_options(parser)
    add_protocol_option(parser)
    add_worker_options(parser)
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="where references have no prediction, count all their classes as missed (else it is an error)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a dataset.json that names the labels (else labels.json beside the predictions, "
        "else dataset.json beside the reference folder, else labels are called by their ids; it is an error if both "
        "are there and differ); of a classification a classes.json (else the one beside references or predictions, "
        "else classes are those of the predictions' columns)",
    )
    add_report_options(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def add_scoring_options(parser: argparse.ArgumentParser) -> None:
    """What is measured, how, and what a missing class counts."""
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"any of {KNOWN}; without _mm or _voxels as --unit says (default: dice assd hd hd95; with --definition "
        "chaos: dice ravd_percent assd hd chaos_score)",
    )
    parser.add_argument(
        "--definition",
        choices=tuple(DEFINITIONS),
        help="whose definition of surface metrics: border, pooled or mean of two, percentile (default: default)",
    )
    parser.add_argument(
        "--unit",
        choices=tuple(UNITS),
        help="of distances: mm, by the voxel size in the reference's header, or voxel (default: mm)",
    )
    parser.add_argument(
        "--missing",
        choices=tuple(POLICIES),
        help="what a class counts in the means that is missed or a false alarm. worst: 0 for overlaps, the image's "
        "diagonal for distances; zero: 0 for overlaps, distances left out; nan: all left out. Only with worst can "
        f"missing a class improve no mean (default: {DEFAULT_MISSING})",
    )


def find_scoring(options: argparse.Namespace) -> Scoring:
    """What the options of `add_scoring_options` ask for.

    Raises:
        InputError: if a metric is unknown, or its library is not installed.
    """
    from ..errors import InputError
    from ..evaluation.lesions import require_panoptica
    from ..evaluation.scoring import Scoring

    try:
        metrics = complete_names(options.metrics, options.unit)
        require_panoptica(metrics)
    except InputError as error:
        raise InputError(f"--metrics: {error}") from error
    return Scoring(metrics=metrics, definition=options.definition, missing=options.missing)


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """`--report` and `--images`."""
    parser.add_argument(
        "--report", action="store_true", help="write report.html too: tables, distributions, and pictures of the worst"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images for --report (else outlines on a dark ground)"
    )


def execute(options: argparse.Namespace) -> int:
    """Score, write, print the table; returns the exit code."""
    from ..errors import InputError
    from ..evaluation.label_names import annotated_in
    from ..evaluation.pairs import find_pairs
    from ..evaluation.protocols.runs import ProtocolRun
    from ..evaluation.tables import table_text
    from ..files import require_writable

    started = time.time()
    if is_classification(options):
        return score_studies(options)
    for flag, folder in (("-p", options.predictions), ("-r", options.references)):
        if not folder.is_dir():
            raise InputError(f"{flag} {folder}: folder not found")
    settled = settle_scoring(options)
    scoring = find_scoring(options)
    if options.images and not options.report:
        raise InputError(f"--images {options.images}: images are for the report; add --report")
    workers = find_workers(options)
    output = options.output or options.predictions
    require_writable(output, dry_run=options.dry_run)
    require_same_kind(output, is_classification=False)
    if options.dry_run:
        from .dry_evaluate import show_evaluation

        return show_evaluation(options, output, scoring)
    log_to_file(output / "spadunet_evaluate.log")
    if options.protocol:
        from .protocols import score_protocol

        failed, files, table = score_protocol(options, output, scoring, workers, settled)
    else:
        problems: list[str] = []
        annotated = annotated_in(options.references, options.labels, problems)
        pairs = find_pairs(options.predictions, options.references, annotated, problems)
        runs = [ProtocolRun(predictions=options.predictions, pairs=pairs)]
        images = find_images(options, runs, problems)
        labels = find_labels(options, runs, workers, problems)
        (scores,), files = score_runs(runs, labels, options, output, scoring, images, workers)
        failed, table = scores.failed, table_text(scores)
    write_manifest(output / MANIFEST, "spadunet_evaluate", options, started=started, device="cpu", files=files)
    print(table, end="")
    print(f"written: {', '.join(map(str, files))}")
    return 1 if failed else 0
