"""`spadunet_compare`: the scores of several models on the same cases, and what their difference is worth."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .options import non_negative_int, positive_int
from .run import add_dry_run_option, log_to_file, make_parser, run_command, write_manifest

if TYPE_CHECKING:
    from ..evaluation.compare.paired import Paired

log = logging.getLogger("spadunet")

COMMAND = "spadunet_compare"
RESAMPLES = 10_000
EXAMPLES = """\
  spadunet_compare predictions_a predictions_b
  spadunet_compare scratch/scores.json pretrained/scores.json -o comparison --metrics dice hd95
  spadunet_compare nnunet/summary.json ours twin --names nnU-Net ours twin --patients dataset.json"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and compare."""
    parser = make_parser(
        "Compare models by their scores on the cases that all share: paired differences by class with bootstrap\n"
        "intervals, Wilcoxon's test with Holm's correction, a ranking and its stability. Says where a difference is\n"
        "within noise. Writes compare.json, compare.csv and pictures.",
        EXAMPLES,
    )
    parser.add_argument(
        "models",
        nargs="+",
        type=Path,
        metavar="SCORES",
        help="folders with the scores.json of spadunet_evaluate, or such files; nnU-Net's summary.json is taken too",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("comparison"), metavar="FOLDER", help="default: ./comparison"
    )
    parser.add_argument("--names", nargs="+", metavar="NAME", help="of the models (default: of their folders)")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="as of spadunet_evaluate, e.g. dice hd95 (default: all that all models were scored by)",
    )
    parser.add_argument(
        "--patients",
        type=Path,
        metavar="FILE",
        help="a dataset.json whose `patients` says which cases show one patient (else their names tell)",
    )
    parser.add_argument(
        "--resamples",
        type=positive_int,
        default=RESAMPLES,
        metavar="N",
        help=f"of the bootstrap (default: {RESAMPLES})",
    )
    parser.add_argument(
        "--seed",
        type=non_negative_int,
        default=0,
        help="of the bootstrap; the same gives the same numbers (default: 0)",
    )
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Read, compare, write, print; returns the exit code."""
    from ..evaluation.compare.comparison import compare
    from ..evaluation.compare.plots import draw_comparison
    from ..evaluation.compare.tables import comparison_text, csv_text
    from ..files import require_writable, write_text
    from ..record import write_record

    started = time.time()
    paired = read_paired(options)
    require_writable(options.output, dry_run=options.dry_run)
    if options.dry_run:
        from .dry_compare import show_comparison

        return show_comparison(options, paired)
    log_to_file(options.output / f"{COMMAND}.log")
    log.info(
        "comparing %d models on %d cases of %d patients, %d resamples, seed %d",
        len(paired.models),
        len(paired.cases),
        len(paired.patients),
        options.resamples,
        options.seed,
    )
    comparison = compare(paired, resamples=options.resamples, seed=options.seed)
    files = [options.output / "compare.json", options.output / "compare.csv"]
    write_record(files[0], comparison)
    write_text(files[1], csv_text(comparison))
    files += draw_comparison(options.output, comparison, paired)
    manifest = options.output / f"{COMMAND}.json"
    remove_stale_pictures(manifest, files)
    write_manifest(manifest, COMMAND, options, started=started, device="cpu", files=files)
    print(comparison_text(comparison), end="")
    print(f"written: {', '.join(map(str, files))}")
    return 0


def remove_stale_pictures(manifest: Path, files: Sequence[Path]) -> None:
    """Remove pictures that the last run wrote beside its manifest and this one did not: they show other differences."""
    import json

    from ..evaluation.compare.plots import is_picture

    try:
        listed = [Path(file).name for file in json.loads(manifest.read_bytes())["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the first run here, or a manifest that another program wrote
    for name in {name for name in listed if is_picture(name)} - {file.name for file in files}:
        (manifest.parent / name).unlink(missing_ok=True)
        log.info("removed %s of the last comparison", name)


def read_paired(options: argparse.Namespace) -> Paired:
    """The models side by side.

    Raises:
        InputError: with all that forbids to compare them.
    """
    from ..description import DatasetDescription
    from ..evaluation.compare.model_scores import read_models
    from ..evaluation.compare.paired import pair_models
    from ..record import read_record

    models = read_models(options.models, options.names)
    known = {}
    if options.patients is not None:
        known = read_record(options.patients, DatasetDescription, remedy="give a dataset.json").patients
    return pair_models(models, metrics=options.metrics, known_patients=known)


if __name__ == "__main__":
    main()
