"""spadunet_plan: fingerprint to plan."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from .run import add_data_option, log_to_file, make_parser, run_command, write_manifest
from .stages import (
    PLAN_JSON,
    add_dataset_options,
    add_plan_options,
    check_plan_options,
    fingerprint,
    load_datasets,
    plan,
)

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
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Write plan.json for each dataset, after its fingerprint."""
    from ..files import require_writable
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    datasets = load_datasets(options.dataset, workspace)
    check_plan_options(options, datasets)
    folders = [workspace.preprocessed / dataset.name for dataset in datasets]
    for folder in folders:
        require_writable(folder)
        log_to_file(folder / "spadunet_plan.log")
    for dataset, folder in zip(datasets, folders, strict=True):
        found = fingerprint(dataset, folder, options.num_processes)
        plan(dataset, found, folder, options)
        write_manifest(
            folder / "spadunet_plan.json",
            "spadunet_plan",
            options,
            started=started,
            device="cpu",
            files=[folder / PLAN_JSON],
        )
    return 0
