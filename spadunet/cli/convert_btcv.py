"""spadunet_convert_btcv: BTCV as downloaded to a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .convert import convert, converter_parser
from .run import run_command
from .stages import GOES_ON

EXAMPLES = """\
  spadunet_convert_btcv ~/Downloads/Abdomen
  spadunet_convert_btcv ~/Downloads/Abdomen/RawData -o spadunet_data/raw/Dataset017_BTCV
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = converter_parser(
        "Write BTCV (abdominal CT, 13 organs), as downloaded from Synapse, as a raw dataset, with the split\n"
        "of 21 and 9 scans that papers use in splits_21_9.json (copy it over splits_final.json to train on it).",
        EXAMPLES,
    )
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Convert the release."""
    from ..preprocessing.converters.btcv import convert_btcv, find_cases, write_case

    return convert(options, convert_btcv, "Dataset007_BTCV", find_cases=find_cases, write_case=write_case)
