"""What the converters of releases share."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .run import add_data_option, add_dry_run_option, make_parser

if TYPE_CHECKING:
    from ..dataset import RawCase

log = logging.getLogger("spadunet")


def converter_parser(about: str, examples: str) -> argparse.ArgumentParser:
    """Parser of a converter: the release's folder, and where the dataset goes."""
    parser = make_parser(about, examples)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the release")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="dataset folder (default: below raw/)")
    add_data_option(parser)
    add_dry_run_option(parser)
    return parser


def convert(
    options: argparse.Namespace,
    converter: Callable[[Path, Path], int],
    name: str,
    *,
    find_cases: Callable[[Path], Sequence[RawCase]],
    write_case: Callable[[RawCase, Path], object],
) -> int:
    """Convert into the folder asked for, else into one of this name below raw/.

    Args:
        converter: release's folder and dataset's folder to the number of labelled cases.
        find_cases: release's folder to all cases that the converter would write, those without a label map for testing;
            for a dry run, under the names that they will have.
        write_case: writes one of them into a dataset's folder; for the trial of a dry run.
    """
    from ..files import require_writable
    from ..workspace import find_workspace

    folder: Path = options.output or find_workspace(options.data).raw / name
    require_writable(folder.parent, dry_run=options.dry_run)
    if options.dry_run:
        from .dry_convert import show_conversion

        return show_conversion(find_cases(options.source), write_case, options.source, folder)
    number = converter(options.source, folder)
    log.info("%s: %d labelled cases", folder, number)
    return 0
