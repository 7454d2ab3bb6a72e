"""spadunet_plan_and_preprocess: from a raw dataset to stored cases."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from .run import add_data_option, log_to_file, make_parser, run_command, write_manifest
from .stages import (
    CASES_FOLDER,
    PLAN_JSON,
    add_dataset_options,
    add_plan_options,
    check,
    check_plan_options,
    fingerprint,
    load_datasets,
    plan,
    preprocess,
)

EXAMPLES = """\
  spadunet_plan_and_preprocess -d Hippocampus
  spadunet_plan_and_preprocess -d 4 101 --memory-gb 24
  spadunet_plan_and_preprocess -d /data/Dataset007_BTCV --window -175 250
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Check, fingerprint, plan and preprocess one or more raw datasets.", EXAMPLES)
    add_dataset_options(parser)
    add_plan_options(parser)
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Run all four stages; every dataset is checked before the first is worked on."""
    from ..files import require_writable
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    datasets = load_datasets(options.dataset, workspace)
    check_plan_options(options, datasets)
    folders = [workspace.preprocessed / dataset.name for dataset in datasets]
    for folder in folders:
        require_writable(folder)
        log_to_file(folder / "spadunet_plan_and_preprocess.log")
    for dataset in datasets:
        check(dataset, options.num_processes)
    is_whole = True
    for dataset, folder in zip(datasets, folders, strict=True):
        found = fingerprint(dataset, folder, options.num_processes)
        made = plan(dataset, found, folder, options)
        is_whole &= preprocess(dataset, made, folder, options.num_processes)
        write_manifest(
            folder / "spadunet_plan_and_preprocess.json",
            "spadunet_plan_and_preprocess",
            options,
            started=started,
            device="cpu",
            files=[folder / PLAN_JSON, folder / CASES_FOLDER],
        )
    return 0 if is_whole else 1
