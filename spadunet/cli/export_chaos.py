"""spadunet_export_chaos: label maps to a submission to the CHAOS challenge."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from .run import add_data_option, make_parser, run_command

EXAMPLES = """\
  spadunet_export_chaos -i predictions -o submission
  spadunet_export_chaos -i predictions_mr predictions_ct -o submission
  spadunet_export_chaos -i predictions -o submission -d Dataset018_CHAOS --allow-missing
"""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Write predictions for CHAOS's cases as the challenge's server takes them: Task1 … Task5 with a picture a\n"
        "slice, and submission.zip. MR goes to Task3 (liver) and Task5 (all organs), CT to Task2.",
        EXAMPLES,
    )
    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="label maps that spadunet_predict wrote for imagesTs (and imagesTr, if wanted)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="new folder to write")
    parser.add_argument(
        "-d",
        "--dataset",
        nargs="+",
        metavar="DATASET",
        help="what spadunet_convert_chaos wrote: name, number or path (default: CHAOS and CHAOSCT, as far as there)",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="export the others where some test cases have no prediction"
    )
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Find the converted datasets and export."""
    from ..dataset import find_dataset
    from ..files import require_writable
    from ..preprocessing.converters.chaos import MODALITIES, SLICES_JSON
    from ..preprocessing.converters.chaos_submission import export_chaos
    from ..workspace import find_workspace

    raw = find_workspace(options.data).raw
    usual = [modality.dataset for modality in MODALITIES.values()]
    names = options.dataset or [name for name in usual if (raw / name / SLICES_JSON).is_file()] or usual[:1]
    datasets = [find_dataset(name, raw) for name in names]
    require_writable(options.output.parent)
    number = export_chaos(options.input, datasets, options.output, allow_missing=options.allow_missing)
    log.info("%s: %d label maps, and a zip file of them", options.output, number)
    return 0
