"""Options of spadunet_train."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..pretrained import BACKBONE, find_weights
from ..training.recipes import PRESETS, RECIPES
from .classification_options import RECIPES as CLASSIFICATION_RECIPES
from .classification_options import add_classification_options, learning_rate
from .control_options import add_control_options
from .findings import add_findings_options
from .fine_tuning import add_recipe_option
from .joint_options import add_joint_options
from .options import (
    DEFAULT_SEED,
    add_device_options,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from .run import add_data_option, add_dry_run_option, make_parser
from .variety_options import add_variety_options

EXAMPLES = """\
  spadunet_train -d Hippocampus --max-minutes 20
  spadunet_train -d 4 101 -f all                    both datasets, one backbone
  spadunet_train -d BTCV --backbone spad_vit --preset base
  spadunet_train -d BTCV -f 0 --init results/pretraining/spad_vit_base
  spadunet_train -d Hippocampus --init spad_unet_tiny
  spadunet_train -d Heart --init MODEL --add-task   MODEL learns hearts too; what it knew stays as it is
  spadunet_train -d Heart --init MODEL --add-task --adapter lora     and learns a small change of the backbone for them
  spadunet_train -d BTCV --recipe paper-btcv --init results/pretraining/spad_vit_base
  spadunet_train --task classification -d organmnist3d.npz
  spadunet_train -d BTCV --findings                 label maps, and what BTCV's labels.csv says of whole studies
  spadunet_train -d BTCV -f 0                       again: an interrupted run goes on
  spadunet_train -d BTCV --fraction 0.2 --repeats 3 a fifth of the patients, three seeds
  torchrun --standalone --nproc-per-node 4 $(which spadunet_train) -d BTCV --batch-size 8
"""
DEFAULT_STEPS = 50_000


def make_train_parser() -> argparse.ArgumentParser:
    """All that can be asked for, of segmentation and of classification."""
    parser = make_parser("Train a SPAD U-Net or SPAD-ViT on preprocessed datasets.", EXAMPLES)
    parser.add_argument(
        "-d",
        "--dataset",
        nargs="+",
        metavar="DATASET",
        help="one or more datasets, trained jointly through one backbone (default: the one planned last)",
    )
    parser.add_argument("-f", "--fold", type=fold, help="fold to hold out, or all (default: 0)")
    parser.add_argument(
        "--backbone",
        choices=tuple(RECIPES),
        help="network: convolutional, or a transformer with a convolutional decoder (default: that of --init, or "
        "spad_unet)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="size of the network (default: that of --init, or base on a GPU of 20 GB, small on a smaller one, "
        "tiny without)",
    )
    parser.add_argument(
        "--init",
        type=find_weights,
        metavar="MODEL",
        help=f"weights to start from: a folder of a model or of a pre-trained backbone, {BACKBONE}, which comes with "
        "spadunet, or an EVA-02 file",
    )
    parser.add_argument(
        "--scratch-twin",
        action="store_true",
        help="the same run as with --init, but from fresh weights, for comparison; goes to a folder ..._twin",
    )
    add_joint_options(parser)
    parser.add_argument("--max-steps", type=positive_int, help=f"(default: {DEFAULT_STEPS} unless --max-minutes)")
    parser.add_argument("--max-minutes", type=positive_float, help="end after this time of training")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        help="patches a step, of all processes together (default: 2, up to 4 if small)",
    )
    parser.add_argument(
        "--learning-rate",
        type=learning_rate,
        metavar="RATE",
        help=f"peak (default: {rates_text()}), or search: the paper's nine for --task classification, the best wins",
    )
    parser.add_argument("--weight-decay", type=non_negative_float, help=f"of AdamW (default: {decay_text()})")
    parser.add_argument(
        "--seed", type=non_negative_int, help=f"of weights, batches and augmentation (default: {DEFAULT_SEED})"
    )
    add_variety_options(parser)
    add_control_options(parser)
    add_recipe_option(
        parser,
        "steps, batch, learning rate, network, fold and augmentation, and its overlap in validation",
        more=CLASSIFICATION_RECIPES,
    )
    add_device_options(parser)
    parser.add_argument(
        "--compile", action="store_true", help="run the network through torch.compile: minutes before the first step"
    )
    parser.add_argument("--num-workers", type=non_negative_int, default=None, help="processes that make batches ahead")
    parser.add_argument("--checkpoint-minutes", type=positive_float, default=5.0, help="save this often (default: 5)")
    parser.add_argument(
        "--c", "--continue", dest="c", action="store_true", help="go on with an interrupted run, or fail"
    )
    parser.add_argument("--restart", action="store_true", help="throw away an earlier run of the same name")
    parser.add_argument("-o", "--output", type=Path, metavar="MODEL", help="model folder (default: below results/)")
    add_data_option(parser)
    add_dry_run_option(parser)
    add_findings_options(parser)
    add_classification_options(parser)
    return parser


def rates_text() -> str:
    """Each backbone's learning rate, by preset where they differ, for `--help`."""
    texts = []
    for backbone, recipe in RECIPES.items():
        rates = [f"{recipe.learning_rate(preset):g}" for preset in PRESETS]
        by_preset = ", ".join(f"{rate} {preset}" for rate, preset in zip(rates, PRESETS, strict=True))
        texts.append(f"{backbone} {rates[0] if len(set(rates)) == 1 else by_preset}")
    return "; ".join(texts)


def decay_text() -> str:
    """Each backbone's weight decay, for `--help`."""
    return "; ".join(f"{backbone} {recipe.weight_decay:g}" for backbone, recipe in RECIPES.items())


def fold(text: str) -> str:
    """Parse the number of a fold, or `all`."""
    return text if text == "all" else str(non_negative_int(text))
