"""spadunet_import_model: one file to a model folder, checked before anything is written."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .run import add_data_option, make_parser, run_command

EXAMPLES = """\
  spadunet_import_model liver.spadunet.zip
  spadunet_import_model liver.spadunet.zip -o models/liver
"""
IMPORTED = "imported"

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Write the model of a file that spadunet_export_model made into a new folder, for spadunet_predict and\n"
        "spadunet_train --init. Whatever is damaged, unknown, too large or could run code is refused before anything\n"
        "is written. That shows no more than that it is what was exported: see from whom you have it.",
        EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what spadunet_export_model wrote")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"new folder for the model (default: results/{IMPORTED}/ and the file's name)",
    )
    add_data_option(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Check the file, write the folder, say how to use it."""
    from ..files import sha256_of_file
    from ..sharing.importing import import_model
    from ..sharing.package import CARD_FILE
    from ..workspace import find_workspace

    folder = options.output
    if folder is None:
        folder = find_workspace(options.data).results / IMPORTED / name_of(options.file)
    package = import_model(options.file, folder)
    model = package.model
    log.info(
        "%s: SHA-256 %s, exported by spadunet %s", options.file, sha256_of_file(options.file), package.manifest.spadunet
    )
    log.info("%s: %s %s, tasks: %s", folder, model.backbone, model.preset, ", ".join(model.all_tasks) or "none")
    log.info("data, scores, licence and intended use: %s", folder / CARD_FILE)
    if model.tasks:
        task = f" -d {model.tasks[0]}" if len(model.tasks) > 1 else ""
        log.info("to use it: spadunet_predict -m %s%s -i IMAGES -o PREDICTIONS", folder, task)
    log.info("to start from it: spadunet_train -d DATASET --init %s", folder)
    return 0


def name_of(file: Path) -> str:
    """The folder's name that a file's name gives.

    Raises:
        InputError: if it gives none.
    """
    from ..sharing.archive import is_plain

    name = file.name.removesuffix(".zip").removesuffix(".spadunet")
    if not is_plain(name):
        raise InputError(f"{file}: its name is none for a folder; give one with -o")
    return name
