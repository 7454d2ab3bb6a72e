"""spadunet_check: is a raw dataset sound?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_datasets import show_datasets
from .options import add_dataset_options, find_workers
from .run import make_parser, run_command
from .stages import CHECK_JSON, check, work_on_datasets

if TYPE_CHECKING:
    from ..dataset import Dataset

EXAMPLES = """\
  spadunet_check -d Hippocampus
  spadunet_check -d /data/Dataset007_BTCV -np 4
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Read every training and test case of a raw dataset, and list all errors, warnings and repairs at once:\n"
        "on screen, and as check.json and check.csv in the dataset's folder below preprocessed/.",
        EXAMPLES,
    )
    add_dataset_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Check all datasets."""
    workers = find_workers(options)

    def first(datasets: list[Dataset], folders: list[Path]) -> None:
        if not options.dry_run:
            check(datasets, folders, workers)

    def work(dataset: Dataset, folder: Path) -> bool:
        return True

    return work_on_datasets(
        options, "spadunet_check", work, workers=workers, files=[CHECK_JSON], dry_run=show_datasets, first=first
    )
