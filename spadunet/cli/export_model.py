"""spadunet_export_model: a model to one file that is safe to share."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .joint_options import ADDED_FOLDER
from .run import make_parser, run_command

if TYPE_CHECKING:
    from ..evaluation.classification import ClassificationScores
    from ..scores import Scores

EXAMPLES = """\
  spadunet_export_model -m results/Dataset007_Liver/spad_unet_base/fold_0 -o liver.spadunet.zip --licence CC-BY-4.0
  spadunet_export_model -m results/Dataset007_Liver/spad_unet_base/fold_0 -o liver.spadunet.zip --card card.md
"""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Write a model into one file: weights as safetensors, JSON, a model card and a manifest of SHA-256. Nothing\n"
        "in it can run code, and it tells no path, machine, user or case. spadunet_import_model takes it in.",
        EXAMPLES,
    )
    parser.add_argument("-m", "--model", type=Path, required=True, metavar="MODEL", help="model folder")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="new file, such as MODEL.spadunet.zip"
    )
    parser.add_argument(
        "--licence", type=spdx, metavar="SPDX", help="under which others may use the weights, such as CC-BY-4.0"
    )
    parser.add_argument("--intended-use", metavar="TEXT", help="what the model is for, and what it is not for")
    parser.add_argument(
        "--card",
        type=Path,
        metavar="FILE",
        help="a model card of your own, in Markdown, instead of the one that is written from the model, its run's "
        "validation, --licence and --intended-use (default: MODEL_CARD.md in the model folder, if there)",
    )
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options))


def execute(options: argparse.Namespace) -> int:
    """Write the card, then the file."""
    from ..files import sha256_of_file
    from ..sharing.card import write_card
    from ..sharing.exporting import export_model, read_card, read_shared
    from ..sharing.package import CARD_FILE

    shared = read_shared(options.model)
    own = options.card
    if own is None and (options.model / CARD_FILE).is_file():
        own = options.model / CARD_FILE
        log.info("model card: %s", own)
    if own is not None:
        for flag, value in (("--licence", options.licence), ("--intended-use", options.intended_use)):
            if value is not None:
                raise InputError(f"{flag} {value}: the card {own} is taken as it is; say it there")
        card = read_card(own)
    else:
        name = options.output.name.removesuffix(".zip").removesuffix(".spadunet")
        card = write_card(
            name,
            shared.model,
            shared.tasks,
            scores_of(options.model),
            licence=options.licence,
            intended_use=options.intended_use,
        )
        for flag, value in (("--licence", options.licence), ("--intended-use", options.intended_use)):
            if value is None:
                log.warning("%s is not given: the model card says that it is not stated", flag)
    export_model(options.model, options.output, card)
    size = options.output.stat().st_size / 1e6
    log.info("%s: %.1f MB, SHA-256 %s", options.output, size, sha256_of_file(options.output))
    return 0


def scores_of(folder: Path) -> dict[str, Scores | ClassificationScores]:
    """Scores of held-out cases and studies by dataset: of the model's own run, and of those that added tasks to it."""
    from ..training.board import read_class_scores, read_final_scores

    scores: dict[str, Scores | ClassificationScores] = {}
    for run in (folder, *sorted((folder / ADDED_FOLDER).glob("*"))):
        scores |= read_final_scores(run)
        scores |= read_class_scores(run)
    return scores


def spdx(text: str) -> str:
    """Parse a licence's identifier, or several joined by AND, OR and WITH (https://spdx.org/licenses)."""
    if not re.fullmatch(r"[A-Za-z0-9.+() :-]{1,200}", text):
        raise argparse.ArgumentTypeError(f"{text} is no SPDX expression, such as CC-BY-4.0 or Apache-2.0")
    return text
