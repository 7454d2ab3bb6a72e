"""spadunet_plan_and_preprocess: from a raw dataset to stored cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_datasets import show_datasets
from .options import (
    add_dataset_options,
    add_plan_options,
    add_resampling_option,
    find_resampling_device,
    find_workers,
)
from .run import make_parser, run_command
from .stages import (
    CASES_FOLDER,
    CHECK_JSON,
    FINGERPRINT_JSON,
    GOES_ON,
    PLAN_JSON,
    check,
    check_plan_options,
    fingerprint,
    plan,
    preprocess,
    work_on_datasets,
)

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..plans.extract import ObservedCase

EXAMPLES = """\
  spadunet_plan_and_preprocess -d Hippocampus
  spadunet_plan_and_preprocess -d 4 101 --memory-gb 24
  spadunet_plan_and_preprocess -d /data/Dataset007_BTCV --window -175 250
  spadunet_plan_and_preprocess -d BTCV --dask tcp://node7:8786
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Check, fingerprint, plan and preprocess one or more raw datasets.", EXAMPLES)
    add_dataset_options(parser)
    add_resampling_option(parser)
    add_plan_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=GOES_ON)


def execute(options: argparse.Namespace) -> int:
    """Run all four stages; every dataset is checked before the first is worked on."""
    device = find_resampling_device(options.device)
    workers = find_workers(options)
    observed: dict[str, list[ObservedCase]] = {}

    def work(dataset: Dataset, folder: Path) -> bool:
        found = fingerprint(dataset, folder, workers, observed.get(dataset.name))
        return preprocess(dataset, plan(dataset, found, folder, options), folder, workers, device)

    def first(datasets: list[Dataset], folders: list[Path]) -> None:
        check_plan_options(options, datasets)
        if not options.dry_run:
            observed.update(check(datasets, folders, workers, again=False))

    files = [CHECK_JSON, FINGERPRINT_JSON, PLAN_JSON, CASES_FOLDER]
    return work_on_datasets(
        options, "spadunet_plan_and_preprocess", work, workers=workers, files=files, dry_run=show_datasets, first=first
    )
