"""spadunet_preprocess: store the cases of a planned dataset."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from .run import add_data_option, log_to_file, make_parser, run_command, write_manifest
from .stages import CASES_FOLDER, add_dataset_options, load_datasets, preprocess, read_plan

EXAMPLES = """\
  spadunet_preprocess -d Hippocampus
  spadunet_preprocess -d 4 -np 4
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Orient, crop, resample and normalise every training case by the stored plan.\n"
        "The same command goes on after an interruption.",
        EXAMPLES,
    )
    add_dataset_options(parser)
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Store the cases of each dataset."""
    from ..files import require_writable
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    datasets = load_datasets(options.dataset, workspace)
    folders = [workspace.preprocessed / dataset.name for dataset in datasets]
    for folder in folders:
        require_writable(folder)
        log_to_file(folder / "spadunet_preprocess.log")
    is_whole = True
    for dataset, folder in zip(datasets, folders, strict=True):
        is_whole &= preprocess(dataset, read_plan(folder, dataset), folder, options.num_processes)
        write_manifest(
            folder / "spadunet_preprocess.json",
            "spadunet_preprocess",
            options,
            started=started,
            device="cpu",
            files=[folder / CASES_FOLDER],
        )
    return 0 if is_whole else 1
