"""spadunet_fingerprint: facts of a raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_datasets import show_datasets
from .options import add_dataset_options, find_workers
from .run import make_parser, run_command
from .stages import FINGERPRINT_JSON, fingerprint, work_on_datasets

if TYPE_CHECKING:
    from ..dataset import Dataset

EXAMPLES = """\
  spadunet_fingerprint -d Hippocampus
  spadunet_fingerprint -d 4 101 --data /scratch/spadunet_data
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Read every training case of a raw dataset and note spacings, shapes and intensities.", EXAMPLES
    )
    add_dataset_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Write fingerprint.json for each dataset."""
    workers = find_workers(options)

    def work(dataset: Dataset, folder: Path) -> bool:
        fingerprint(dataset, folder, workers)
        return True

    return work_on_datasets(
        options, "spadunet_fingerprint", work, workers=workers, files=[FINGERPRINT_JSON], dry_run=show_datasets
    )
