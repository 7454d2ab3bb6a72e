"""spadunet_convert_chaos: CHAOS as downloaded to a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from .convert import convert, converter_parser
from .run import run_command

EXAMPLES = """\
  spadunet_convert_chaos ~/Downloads/CHAOS               the folder with Train_Sets and Test_Sets
  spadunet_convert_chaos ~/Downloads/CHAOS --task ct
  spadunet_convert_chaos CHAOS/Train_Sets -o spadunet_data/raw/Dataset018_CHAOS
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = converter_parser(
        "Write CHAOS (abdominal MR and CT), as downloaded from Zenodo, as a raw dataset. MR: liver, kidneys and\n"
        "spleen in one dataset whose cases have the channels in-phase and out-phase (T1-DUAL) or T2-SPIR. CT: liver.",
        EXAMPLES,
    )
    parser.add_argument("--task", choices=("mr", "ct"), default="mr", help="which half of the release (default: mr)")
    options = parser.parse_args(arguments)
    run_command(
        parser, options, lambda: execute(options), if_stopped="the same command converts all cases from the start"
    )


def execute(options: argparse.Namespace) -> int:
    """Convert one half of the release."""
    from ..preprocessing.converters.chaos import MODALITIES, convert_chaos, find_raw_cases, write_raw_case

    modality = MODALITIES[options.task]
    return convert(
        options,
        partial(convert_chaos, modality=modality),
        modality.dataset,
        find_cases=partial(find_raw_cases, modality=modality),
        write_case=partial(write_raw_case, source=options.source, modality=modality),
    )
