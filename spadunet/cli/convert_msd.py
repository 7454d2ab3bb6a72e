"""spadunet_convert_msd: a task of the Decathlon to a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .convert import convert, converter_parser
from .run import run_command
from .stages import GOES_ON

EXAMPLES = """\
  spadunet_convert_msd ~/Downloads/Task04_Hippocampus
  spadunet_convert_msd Task09_Spleen -o spadunet_data/raw/Dataset109_Spleen
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = converter_parser(
        "Write a task of the Medical Segmentation Decathlon as a raw dataset, a file a channel.\n"
        "(spadunet_plan_and_preprocess -d Task04_Hippocampus reads such a folder as it is, too.)",
        EXAMPLES,
    )
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Convert the release."""
    from ..preprocessing.converters.msd import convert_msd, find_cases, write_case

    name = options.source.resolve().name.replace("Task", "Dataset0", 1)
    return convert(options, convert_msd, name, find_cases=find_cases, write_case=write_case)
