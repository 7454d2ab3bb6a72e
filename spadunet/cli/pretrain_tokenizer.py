"""spadunet_pretrain_tokenizer: stage one of pre-training, the visual tokenizer."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .options import find_device, non_negative_float, positive_float
from .pretraining import add_pretraining_options, open_run, stop_advice
from .recipes import Recipe, default_text
from .run import make_parser, run_command

if TYPE_CHECKING:
    from ..pretraining.perceptual import Lpips
    from ..pretraining.tokenizer import TokenizerStage
    from ..training.ranks import Ranks
    from .pretraining import PretrainingRun

log = logging.getLogger("spadunet")

EXAMPLES = """\
  spadunet_pretrain_tokenizer
  spadunet_pretrain_tokenizer -c mine --preset small --max-minutes 120
  spadunet_pretrain_tokenizer -c mine --perceptual-weights vgg16.pth lpips_vgg.pth
  spadunet_pretrain_tokenizer -c paper --recipe paper --perceptual-weights lpips.pth
"""
COMMAND = "spadunet_pretrain_tokenizer"
PRESETS = ("tiny", "small", "base")  # as network.build has them; a test compares


USUAL = Recipe(
    warm_up_share=0.03,
    lowest_rate=1e-6,
    options={
        "max_steps": 20_000,
        "batch_size": 16,
        "crop_tokens": [4, 2],
        "learning_rate": 2e-3,
        "discriminator_learning_rate": 1e-3,
        "gan_weight": 3e-3,
        "prior_weights": [0.3, 0.05],
    },
)
"""For `tiny` and short runs: with the paper's weights of the prior, tokens are told apart before they mean anything."""

# Luo et al. 2024, section 5.1; what it leaves out as SPAD-Nets' released settings have it. The
# weights of the prior are their defaults; their training command has 0.03 and 1, at which each position falls on one
# token here, far from the 2.79 nats of divergence from uniform that the paper reports.
PAPER = Recipe(
    warm_up_share=25_000 / 600_000,
    lowest_rate=1e-6,
    options={
        "preset": "base",
        "max_steps": 600_000,
        "batch_size": 48,
        "crop_tokens": [8, 4],
        "learning_rate": 1e-4,
        "discriminator_learning_rate": 1e-3,
        "gan_weight": 3e-3,
        "prior_weights": [1.0, 0.2],
    },
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser(
        "Train the visual tokenizer (SPAD-VT) on a corpus: images as grids of 1,024 soft tokens, and back.\n"
        "It is what spadunet_pretrain_mim learns from. Pictures show held-out images and the use of the codebook.",
        EXAMPLES,
    )
    add_pretraining_options(parser, USUAL, presets=PRESETS)
    add_stage_options(parser)
    options = parser.parse_args(arguments)
    run_command(parser, options, lambda: execute(options), if_stopped=stop_advice(options))


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    """What only the tokenizer has."""
    parser.add_argument(
        "--perceptual-weights",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="VGG-16 and LPIPS (version 0.1) in one file or two, as torchvision, lpips or MONAI name them "
        "(default: structural similarity instead, which needs none)",
    )
    parser.add_argument(
        "--discriminator-learning-rate",
        type=positive_float,
        help=f"peak {default_text(USUAL, 'discriminator_learning_rate')}",
    )
    parser.add_argument(
        "--gan-weight",
        type=non_negative_float,
        help="of the adversarial term, while its gate is open; 0 leaves the discriminator out, which on a processor "
        f"takes more time than the tokenizer {default_text(USUAL, 'gan_weight')}",
    )
    parser.add_argument(
        "--prior-weights",
        nargs=2,
        type=non_negative_float,
        metavar=("EVEN", "SURE"),
        help="of the prior regularisation: for an even use of the codebook, and for positions sure of their token "
        f"{default_text(USUAL, 'prior_weights')}",
    )


def execute(options: argparse.Namespace) -> int:
    """Join the other processes, and train."""
    from ..training.ranks import open_ranks

    with open_ranks(find_device(options.device)) as ranks:
        return pretrain_tokenizer(ranks, options)


def pretrain_tokenizer(ranks: Ranks, options: argparse.Namespace) -> int:
    """Check everything, train, write the tokenizer."""
    from ..files import sha256_of_file
    from ..model import TOKENIZER_JSON
    from ..pretraining.perceptual import load_lpips

    paths = options.perceptual_weights or []
    perceptual = load_lpips(paths) if paths else None
    kind = "structural similarity" if perceptual is None else "LPIPS " + " ".join(map(sha256_of_file, paths))
    opened = open_run(
        options,
        ranks,
        command=COMMAND,
        kind="tokenizer",
        result=TOKENIZER_JSON,
        usual=USUAL,
        paper=PAPER,
        request={"perceptual": kind},
        differs=[] if paths else ["no --perceptual-weights, not LPIPS"],
    )
    with opened as run:
        return train_tokenizer(run, perceptual, options)


def train_tokenizer(run: PretrainingRun, perceptual: Lpips | None, options: argparse.Namespace) -> int:
    """The run, when everything was found sound."""
    from ..pretraining.loop import pretrain
    from ..pretraining.tokenizer import TokenizerRecipe, TokenizerStage

    def make_stage() -> TokenizerStage:
        evenness, certainty = options.prior_weights
        return TokenizerStage(
            run.corpus,
            run.preset,
            rule=run.rule,
            recipe=TokenizerRecipe(
                learning_rate=options.learning_rate,
                discriminator_learning_rate=options.discriminator_learning_rate,
                gan=options.gan_weight,
                evenness=evenness,
                certainty=certainty,
            ),
            seed=options.seed,
            ranks=run.ranks,
            precision=run.options.precision,
            perceptual=perceptual,
            provenance=provenance_of(run),
        )

    if options.dry_run:
        from .dry_pretrain import show_pretraining

        return show_pretraining(run, make_stage, reads=[str(path) for path in options.perceptual_weights or []])
    stage = make_stage()
    run.begin()
    if perceptual is None:
        log.info("perceptual term: structural similarity, since no --perceptual-weights are given")
    pretrain(
        stage,
        run.batches,
        run.folder,
        run.options,
        run.ranks,
        run=run.request,
        keep=lambda step: stage.save(run.folder, step),
        is_locked=run.is_locked,
    )
    run.finish()
    return 0


def provenance_of(run: PretrainingRun) -> dict[str, str]:
    """What made a tokenizer, kept in its file."""
    from .. import __version__

    return run.request | {"spadunet": __version__}


if __name__ == "__main__":
    main()
