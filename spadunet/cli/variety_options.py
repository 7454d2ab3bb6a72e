"""Options of `spadunet_train` for what patches meet: missing contrasts, other spacings, mirrors."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..training.patch_recipes import USUAL
from ..training.recipes import CHANNEL_DROPOUT, NATIVE_SHARE
from .options import add_mirror_option, find_mirror_axes, probability

if TYPE_CHECKING:
    from ..training.variety import VarietyOptions


def add_variety_options(parser: argparse.ArgumentParser) -> None:
    """What patches meet beside rotation, scaling and intensities."""
    parser.add_argument(
        "--channel-dropout",
        type=probability,
        metavar="P",
        help="share of patches of several channels that lack some of them, so that cases may "
        f"(default: {CHANNEL_DROPOUT})",
    )
    parser.add_argument(
        "--slice-merging",
        type=probability,
        metavar="P",
        help="share of batches whose slices are averaged, 2 to 6 into one "
        f"(default: {NATIVE_SHARE} where the plan's spacing is native, else 0)",
    )
    parser.add_argument(
        "--spacing-jitter",
        type=probability,
        metavar="P",
        help="share of batches whose pixels are made up to 1.4 times larger or smaller (default: as --slice-merging)",
    )
    add_mirror_option(parser, "mirror every other patch across these axes of the patient")


def find_variety(options: argparse.Namespace) -> VarietyOptions:
    """What the options of `add_variety_options` say.

    Raises:
        InputError: if --mirror contradicts itself.
    """
    from ..training.variety import VarietyOptions

    return VarietyOptions(
        channel_dropout=CHANNEL_DROPOUT if options.channel_dropout is None else options.channel_dropout,
        slice_merging=options.slice_merging,
        spacing_jitter=options.spacing_jitter,
        mirror=find_mirror_axes(options.mirror or ["none"]),
        patches=options.recipe or USUAL,
    )
