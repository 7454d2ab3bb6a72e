"""Options of `spadunet_train --task classification`."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from ..errors import InputError
from .fine_tuning import FINE_TUNING
from .joint_options import check_joint_options
from .options import positive_float, positive_int
from .recipes import Recipe, settle

CLASSIFICATION = "classification"
SEARCH = "search"
"""In the place of a learning rate."""
PAPER_MEDMNIST = "paper-medmnist"
RECIPES = (PAPER_MEDMNIST,)
USUAL = Recipe(options={"epochs": 100, "batch_size": 32, "weight_decay": 0.01})
PAPER = Recipe(options={**USUAL.options, "learning_rate": SEARCH, "backbone": "spad_vit", "preset": "base"})
"""Luo et al. 2024, Table 6."""
PAPER_DIFFERS = (
    "intensities become -1 to 1, as in pre-training",
    "a map from grey to three channels learns, too, which begins as three copies",
    "gradients are clipped to a norm of 1",
    "of epochs with the same AUC the one with the lower loss is kept",
)
OWN = ("epochs", "pooling", "input_size", "spacing")
"""Options of this group."""
SHARED = (
    *("task", "debug", "dataset", "fold", "backbone", "preset", "init", "freeze_backbone", "add_task", "adapter"),
    *("rank", "experts", "max_steps", "max_minutes", "batch_size", "learning_rate", "weight_decay", "seed"),
    *("deterministic", "recipe", "device", "precision", "num_workers", "checkpoint_minutes", "c", "restart"),
    *("output", "data", "dry_run"),
)
"""Options of `spadunet_train` that mean the same here."""
EXAMPLES = """\
  spadunet_train --task classification -d organmnist3d.npz
  spadunet_train --task classification -d FOLDER --init spad_unet_tiny      a folder with images/ and labels.csv
  spadunet_train --task classification -d nodulemnist3d.npz --init MODEL --recipe paper-medmnist
  spadunet_train --task classification -d FOLDER --init MODEL --adapter lora --add-task
"""


def add_classification_options(parser: argparse.ArgumentParser) -> None:
    """`--task` to `--spacing`."""
    group = parser.add_argument_group(
        "whole studies",
        f"-d is a MedMNIST .npz file, or a folder with images/ and labels.csv (docs/classification.md):\n{EXAMPLES}",
    )
    group.add_argument(
        "--task",
        choices=("segmentation", CLASSIFICATION),
        default="segmentation",
        help="what is learned: label maps, or classes or findings of whole studies (default: segmentation)",
    )
    group.add_argument("--epochs", type=positive_int, metavar="N", help=f"(default: {USUAL.options['epochs']})")
    group.add_argument(
        "--pooling",
        choices=("cls", "mean", "attention"),
        help="what a study is told by: the cls token (SPAD-ViT alone), the mean over patches, or those that a learned "
        "attention finds (default: cls, or mean of spad_unet)",
    )
    group.add_argument(
        "--input-size",
        nargs="+",
        type=positive_int,
        metavar="VOXELS",
        help="every image is interpolated to this side, or depth, height and width (default: 160 of MedMNIST files, "
        "none of folders)",
    )
    group.add_argument(
        "--spacing",
        choices=("median", "native"),
        help="of a folder's images where they have no --input-size (default: median)",
    )


def learning_rate(text: str) -> float | str:
    """Parse a rate above zero, or `search`."""
    return SEARCH if text == SEARCH else positive_float(text)


def check_task(options: argparse.Namespace, given: Collection[str]) -> bool:
    """Whether a classification is asked for; options of the other kind are refused.

    Args:
        given: names of the options that have another value than without being given.

    Raises:
        InputError: names the first option.
    """
    is_asked = options.task == CLASSIFICATION
    of_studies = () if options.findings else OWN
    wrong = [name for name in given if (name not in SHARED + OWN if is_asked else name in (*of_studies, "epochs"))]
    if wrong:
        flag = f"--{wrong[0].replace('_', '-')}"
        other = "segmentation" if is_asked else f"--task {CLASSIFICATION}"
        raise InputError(f"{flag}: is for {other}; leave it out")
    if not is_asked and options.learning_rate == SEARCH:
        raise InputError(f"--learning-rate {SEARCH}: is for --task {CLASSIFICATION}; give a number")
    if options.recipe is not None and (options.recipe in RECIPES) != is_asked:
        names = ", ".join(RECIPES if is_asked else FINE_TUNING)
        raise InputError(f"--recipe {options.recipe}: is not for --task {options.task}; give {names}, or leave it out")
    return is_asked


def settle_options(options: argparse.Namespace) -> list[str]:
    """Give options that were not given their values; lines for the log.

    Raises:
        InputError: if options contradict each other.
    """
    if options.adapter is not None:
        if options.init is None:
            raise InputError(f"--adapter {options.adapter}: changes a frozen backbone; give it with --init MODEL")
        options.freeze_backbone = True
    check_joint_options(options)
    if options.learning_rate == SEARCH and options.add_task:
        raise InputError(f"--learning-rate {SEARCH}: search without --add-task, then add the task with the best rate")
    if options.learning_rate == SEARCH and options.fold == "all":
        raise InputError(f"--learning-rate {SEARCH}: -f all holds out no study to compare rates by; leave it out")
    if options.deterministic and options.max_minutes is not None:
        raise InputError(
            f"--deterministic: with --max-minutes {options.max_minutes:g} a run follows the clock, which is never "
            "twice the same; give --epochs instead"
        )
    ends_otherwise = options.epochs is None and (options.max_steps or options.max_minutes)
    differs = PAPER_DIFFERS if options.init else ("no --init: from fresh weights", *PAPER_DIFFERS)
    _, notes = settle(options, USUAL, PAPER, differs)
    if ends_otherwise:
        options.epochs = None
    return notes
