"""Recipes of fine-tuning: what the paper's two segmentation tasks were planned, trained and predicted with.

Luo et al. 2024, sections 5.3 and F.1; what it leaves out as SPAD-Nets' released settings have it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .recipes import Recipe, settle, value_text

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..plan import Plan

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A recipe, by command."""

    plan: Recipe
    train: Recipe
    predict: Recipe
    plan_differs: tuple[str, ...]
    """From the paper's preprocessing, whatever the options."""
    train_differs: tuple[str, ...]
    """From its training."""
    split: str | None
    """File in the raw folder with the paper's split."""


OVERLAP, USUAL_OVERLAP = 0.75, 0.5
PREDICT = Recipe(options={"overlap": OVERLAP, "mirror": ["all"]})
"""Eight mirror images: the paper does not speak of them, the released settings have them."""
STEPS, WARM_UP_STEPS = 50_000, 5_000
TRAIN_DIFFERS = (
    "cases are drawn with replacement",
    "the Dice loss is of the whole batch and leaves the background out",
    "left and right change places in mirror images",
    "the mean over mirror images is of logits, not of probabilities",
)


def train_recipe(*, batch_size: int, fold: str) -> Recipe:
    """What both tasks share. They know no contrast dropout and no other spacings."""
    return Recipe(
        warm_up_share=WARM_UP_STEPS / STEPS,
        lowest_rate=1e-6,
        options={
            "max_steps": STEPS,
            "batch_size": batch_size,
            "learning_rate": 1e-4,
            "weight_decay": 0.05,
            "backbone": "spad_vit",
            "preset": "base",
            "fold": fold,
            "mirror": ["all"],
            "channel_dropout": 0.0,
            "slice_merging": 0.0,
            "spacing_jitter": 0.0,
        },
    )


FINE_TUNING: Mapping[str, FineTuning] = {
    "paper-btcv": FineTuning(
        plan=Recipe(
            options={"spacing": ["3", "0.75", "0.75"], "window": [-175.0, 250.0], "patch_size": [48, 192, 192]}
        ),
        train=train_recipe(batch_size=4, fold="0"),
        predict=PREDICT,
        plan_differs=(),
        train_differs=TRAIN_DIFFERS,
        split="splits_21_9.json",
    ),
    "paper-chaos": FineTuning(
        plan=Recipe(options={"spacing": ["9", "1.62109", "1.62109"], "patch_size": [32, 192, 192]}),
        train=train_recipe(batch_size=8, fold="all"),
        predict=PREDICT,
        plan_differs=("intensities by percentiles, not by mean and standard deviation",),
        train_differs=(*TRAIN_DIFFERS, "T2-SPIR is a channel of its own, not given twice"),
        split=None,
    ),
}
"""Spacings are the medians of the paper's training data."""


def add_recipe_option(parser: argparse.ArgumentParser, what: str, more: Sequence[str] = ()) -> None:
    """`--recipe`; `what` it sets, and `more` recipes of the command's own."""
    where = "BTCV or CHAOS (docs/training.md)" + (", or MedMNIST (docs/classification.md)" if more else "")
    parser.add_argument(
        "--recipe",
        choices=(*FINE_TUNING, *more),
        help=f"take the paper's {what} where you give none: its fine-tuning on {where}",
    )


def settle_plan(options: argparse.Namespace, usual: Recipe) -> None:
    """Give the planner's options that were not given the recipe's values, and tell what differs."""
    recipe = FINE_TUNING.get(options.recipe)
    tell(settle(options, usual, recipe.plan if recipe else usual, recipe.plan_differs if recipe else ())[1])


def settle_training(options: argparse.Namespace, usual: Recipe) -> tuple[Recipe, list[str]]:
    """As `settle_plan`, for training; the recipe, and lines for its log."""
    recipe = FINE_TUNING.get(options.recipe)
    if recipe is None:
        return settle(options, usual, usual)
    differs = recipe.train_differs if options.init else ("no --init: from fresh weights", *recipe.train_differs)
    return settle(options, usual, recipe.train, differs)


def settle_prediction(options: argparse.Namespace, usual: Recipe, provenance: Mapping[str, str]) -> list[str]:
    """As `settle_plan`, for prediction, where a model's own recipe is taken if none is named; lines for its log.

    With its own recipe a model is predicted with the mirror images that it was validated with.
    """
    if options.recipe is None and provenance.get("recipe") in FINE_TUNING:
        options.recipe = provenance["recipe"]
        if options.mirror is None and "validation_mirror" in provenance:
            options.mirror = provenance["validation_mirror"].split()
    recipe = FINE_TUNING.get(options.recipe)
    return settle(options, usual, recipe.predict if recipe else usual)[1]


def tell(lines: Sequence[str]) -> None:
    """Log them."""
    for line in lines:
        log.info(line)


def place_split(name: str | None, dataset: Dataset, folder: Path) -> None:
    """Put the recipe's split beside the plan, unless there is one; nothing where the raw folder has none.

    Args:
        folder: of the dataset below preprocessed/.
    """
    from ..files import write_text
    from ..training.splits import SPLITS_JSON

    recipe = FINE_TUNING.get(name or "")
    if recipe is None or recipe.split is None:
        return
    source, target = dataset.folder / recipe.split, folder / SPLITS_JSON
    if not source.is_file():
        log.warning("%s: not found, so folds are not the paper's", source)
    elif not target.is_file():
        write_text(target, source.read_text(encoding="utf-8"))
        log.info("%s: fold 0 is the paper's split", target)
    elif target.read_bytes() != source.read_bytes():
        log.warning("%s: kept, though it is not the paper's; delete it and plan again for that", target)


def differences_of_plan(name: str | None, plan: Plan) -> str | None:
    """A line where a plan is not as its recipe has it; None where it is, or there is no recipe."""
    recipe = FINE_TUNING.get(name or "")
    if recipe is None:
        return None
    asked = recipe.plan.options
    windows = {(rule.low, rule.high) for rule in plan.intensity if rule.kind == "window"}
    spacing = plan.target_spacing_mm
    found = {
        "spacing": [spacing] if isinstance(spacing, str) else [f"{value:g}" for value in spacing],
        "patch_size": list(plan.patch_size_voxels),
        "window": list(next(iter(windows))) if len(windows) == 1 else None,
    }
    differs = [
        f"{key.replace('_', ' ')} {value_text(found[key])}, not {value_text(value)}"
        for key, value in asked.items()
        if found[key] != value
    ]
    if not differs:
        return None
    return (
        f"{plan.dataset_name}: its plan is not that of {name}: {'; '.join(differs)}; for that run "
        f"spadunet_plan_and_preprocess -d {plan.dataset_name} --recipe {name}"
    )
