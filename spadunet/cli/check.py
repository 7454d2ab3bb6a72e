"""spadunet_check: is a raw dataset sound?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .run import make_parser, run_command
from .stages import add_dataset_options, check, load_datasets

EXAMPLES = """\
  spadunet_check -d Hippocampus
  spadunet_check -d /data/Dataset007_BTCV -np 4
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Read every training case of a raw dataset and list all problems at once.", EXAMPLES)
    add_dataset_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Check each dataset."""
    from ..workspace import find_workspace

    check(load_datasets(options.dataset, find_workspace(options.data)), options.num_processes)
    return 0
