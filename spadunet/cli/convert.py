"""What the converters of releases share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from .run import add_data_option, make_parser

log = logging.getLogger("spadunet")


def converter_parser(about: str, examples: str) -> argparse.ArgumentParser:
    """Parser of a converter: the release's folder, and where the dataset goes."""
    parser = make_parser(about, examples)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the release")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="dataset folder (default: below raw/)")
    add_data_option(parser)
    return parser


def convert(options: argparse.Namespace, converter: Callable[[Path, Path], int], name: str) -> int:
    """Convert into the folder asked for, else into one of this name below raw/.

    Args:
        converter: release's folder and dataset's folder to the number of labelled cases.
    """
    from ..files import require_writable
    from ..workspace import find_workspace

    folder: Path = options.output or find_workspace(options.data).raw / name
    require_writable(folder.parent)
    number = converter(options.source, folder)
    log.info("%s: %d labelled cases", folder, number)
    return 0
