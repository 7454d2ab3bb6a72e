"""spadunet_plan: fingerprint to plan."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_datasets import show_datasets
from .options import add_dataset_options, add_plan_options, find_workers
from .run import make_parser, run_command
from .stages import FINGERPRINT_JSON, PLAN_JSON, check_plan_options, fingerprint, plan, work_on_datasets

if TYPE_CHECKING:
    from ..dataset import Dataset

EXAMPLES = """\
  spadunet_plan -d Hippocampus
  spadunet_plan -d BTCV --window -175 250 --memory-gb 24
  spadunet_plan -d Heart --spacing native
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Decide spacing, intensities and patch size of a dataset. A plan holds no network: it is the same for all.",
        EXAMPLES,
    )
    add_dataset_options(parser)
    add_plan_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Write plan.json for each dataset, after its fingerprint."""
    workers = find_workers(options)

    def work(dataset: Dataset, folder: Path) -> bool:
        plan(dataset, fingerprint(dataset, folder, workers), folder, options)
        return True

    def first(datasets: list[Dataset], folders: list[Path]) -> None:
        check_plan_options(options, datasets)

    return work_on_datasets(
        options,
        "spadunet_plan",
        work,
        workers=workers,
        files=[FINGERPRINT_JSON, PLAN_JSON],
        dry_run=show_datasets,
        first=first,
    )
