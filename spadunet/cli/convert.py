"""spadunet_convert_btcv, spadunet_convert_msd: a release as downloaded to a raw dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from .run import add_data_option, make_parser, run_command

BTCV_EXAMPLES = """\
  spadunet_convert_btcv ~/Downloads/Abdomen
  spadunet_convert_btcv ~/Downloads/Abdomen/RawData -o spadunet_data/raw/Dataset017_BTCV
"""
MSD_EXAMPLES = """\
  spadunet_convert_msd ~/Downloads/Task04_Hippocampus
  spadunet_convert_msd Task09_Spleen -o spadunet_data/raw/Dataset109_Spleen
"""

log = logging.getLogger("spadunet")


def main_btcv(arguments: Sequence[str] | None = None) -> None:
    """Convert BTCV."""

    def convert(source: Path, folder: Path) -> int:
        from ..preprocessing.converters.btcv import convert_btcv

        return convert_btcv(source, folder)

    start(
        "Write BTCV (abdominal CT, 13 organs), as downloaded from Synapse, as a raw dataset, with the papers' split of\n"
        "21 and 9 scans in splits_21_9.json (copy it over splits_final.json to train on it).",
        BTCV_EXAMPLES,
        convert,
        lambda source: "Dataset007_BTCV",
        arguments,
    )


def main_msd(arguments: Sequence[str] | None = None) -> None:
    """Convert a task of the Decathlon."""

    def convert(source: Path, folder: Path) -> int:
        from ..preprocessing.converters.msd import convert_msd

        return convert_msd(source, folder)

    start(
        "Write a task of the Medical Segmentation Decathlon as a raw dataset, a file a channel.\n"
        "(spadunet_plan_and_preprocess -d Task04_Hippocampus reads such a folder as it is, too.)",
        MSD_EXAMPLES,
        convert,
        lambda source: source.resolve().name.replace("Task", "Dataset0", 1),
        arguments,
    )


def start(
    about: str,
    examples: str,
    convert: Callable[[Path, Path], int],
    name_of: Callable[[Path], str],
    arguments: Sequence[str] | None,
) -> None:
    """Parse, convert, exit.

    Args:
        convert: release's folder and dataset's folder to the number of labelled cases.
        name_of: release's folder to the dataset's name.
    """
    parser = make_parser(about, examples)
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of the release")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="dataset folder (default: below raw/)")
    add_data_option(parser)
    options = parser.parse_args(arguments)

    def work() -> int:
        from ..files import require_writable
        from ..workspace import find_workspace

        folder: Path = options.output or find_workspace(options.data).raw / name_of(options.source)
        require_writable(folder.parent)
        number = convert(options.source, folder)
        log.info("%s: %d labelled cases", folder, number)
        return 0

    run_command(parser, options, work, if_stopped="the same command goes on from here")
