"""spadunet_fingerprint: facts of a raw dataset."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from .run import add_data_option, log_to_file, make_parser, run_command, write_manifest
from .stages import FINGERPRINT_JSON, add_dataset_options, fingerprint, load_datasets

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
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Write fingerprint.json for each dataset."""
    from ..files import require_writable
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    datasets = load_datasets(options.dataset, workspace)
    folders = [workspace.preprocessed / dataset.name for dataset in datasets]
    for folder in folders:
        require_writable(folder)
        log_to_file(folder / "spadunet_fingerprint.log")
    for dataset, folder in zip(datasets, folders, strict=True):
        fingerprint(dataset, folder, options.num_processes)
        write_manifest(
            folder / "spadunet_fingerprint.json",
            "spadunet_fingerprint",
            options,
            started=started,
            device="cpu",
            files=[folder / FINGERPRINT_JSON],
        )
    return 0
