"""spadunet_preprocess: store the cases of a planned dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_datasets import show_datasets
from .options import add_dataset_options, add_resampling_option, find_resampling_device, find_workers
from .run import make_parser, run_command
from .stages import CASES_FOLDER, GOES_ON, preprocess, read_plan, work_on_datasets

if TYPE_CHECKING:
    from ..dataset import Dataset

EXAMPLES = """\
  spadunet_preprocess -d Hippocampus
  spadunet_preprocess -d 4 -np 4 --ram-gb 16
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Orient, crop, resample and normalise every training case by the stored plan.\n"
        "The same command goes on after an interruption.",
        EXAMPLES,
    )
    add_dataset_options(parser)
    add_resampling_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Store the cases of each dataset."""
    device = find_resampling_device(options.device)
    workers = find_workers(options)

    def work(dataset: Dataset, folder: Path) -> bool:
        return preprocess(dataset, read_plan(folder, dataset), folder, workers, device)

    def first(datasets: list[Dataset], folders: list[Path]) -> None:
        for dataset, folder in zip(datasets, folders, strict=True):
            read_plan(folder, dataset)

    return work_on_datasets(
        options, "spadunet_preprocess", work, workers=workers, files=[CASES_FOLDER], dry_run=show_datasets, first=first
    )
