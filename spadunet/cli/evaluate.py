"""`spadunet_evaluate`: predictions against references, in the space of the original images."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from .options import add_worker_options, find_workers
from .run import add_dry_run_option, log_to_file, make_parser, run_command, write_manifest

EXAMPLES = """\
  spadunet_evaluate -p predictions -r spadunet_data/raw/Dataset004_Hippocampus/labelsTs
  spadunet_evaluate -p predictions -r references -o scores --labels dataset.json
  spadunet_evaluate -p predictions -r references --allow-missing -np 4"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and score two folders."""
    parser = make_parser(
        "Score predictions against references of the same file names, by case and class: Dice,\n"
        "average symmetric surface distance (mm) and Hausdorff distance (mm).\n"
        "Writes scores.json, summary.json (nnU-Net's keys) and scores.csv.",
        EXAMPLES,
    )
    parser.add_argument("-p", "--predictions", type=Path, required=True, metavar="FOLDER", help="predicted label maps")
    parser.add_argument(
        "-r", "--references", type=Path, required=True, metavar="FOLDER", help="label maps of the same names"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (else -p)")
    add_worker_options(parser)
    parser.add_argument(
        "--allow-missing", action="store_true", help="score the others where some references have no prediction"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a dataset.json that names the labels (else labels.json beside the predictions, "
        "else dataset.json beside the reference folder, else labels are called by their ids)",
    )
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Score, write, print the table; returns the exit code."""
    from ..errors import InputError
    from ..evaluation.evaluate import evaluate_folders
    from ..evaluation.label_names import annotated_in, labels_for
    from ..evaluation.tables import table_text, write_scores
    from ..files import require_writable

    started = time.time()
    for flag, folder in (("-p", options.predictions), ("-r", options.references)):
        if not folder.is_dir():
            raise InputError(f"{flag} {folder}: folder not found")
    workers = find_workers(options)
    output = options.output or options.predictions
    require_writable(output, dry_run=options.dry_run)
    if options.dry_run:
        from .dry_evaluate import show_evaluation

        return show_evaluation(options, output)
    log_to_file(output / "spadunet_evaluate.log")
    labels = labels_for(options.predictions, options.references, options.labels)
    scores = evaluate_folders(
        options.predictions.absolute(),
        options.references.absolute(),
        labels,
        workers=workers,
        allow_missing=options.allow_missing,
        annotated=annotated_in(options.references, options.labels),
    )
    files = write_scores(output, scores, labels)
    write_manifest(
        output / "spadunet_evaluate.json", "spadunet_evaluate", options, started=started, device="cpu", files=files
    )
    print(table_text(scores), end="")
    print(f"written: {', '.join(map(str, files))}")
    return 1 if scores.failed else 0
