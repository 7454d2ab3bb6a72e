"""Recipes of pre-training: the numbers of a stage, published or ours, that the user's own options override."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a stage is trained with unless the user says otherwise."""

    warm_up_share: float
    lowest_rate: float
    options: Mapping[str, object]
    """Values of options by name, for those that are not given."""


def settle(options: argparse.Namespace, usual: Recipe, paper: Recipe) -> Recipe:
    """Give every option that was not given the recipe's value, and say where a run differs from the paper's.

    With --max-minutes, which the paper has not, our own recipe sets no number of steps.

    Returns:
        The recipe.
    """
    if options.recipe is None:
        if options.max_minutes is not None and options.max_steps is None:
            usual = Recipe(
                warm_up_share=usual.warm_up_share,
                lowest_rate=usual.lowest_rate,
                options={name: value for name, value in usual.options.items() if name != "max_steps"},
            )
        fill(options, usual)
        return usual
    fill(options, paper)
    values = {name: getattr(options, name) for name in paper.options}
    differs = [
        f"{flag(name)} {value}, not {paper.options[name]}"
        for name, value in values.items()
        if value != paper.options[name]
    ]
    if options.max_minutes is not None:
        differs.append(f"{flag('max_minutes')} {options.max_minutes:g}, not endless")
    log.info(
        "recipe: %s's, %s",
        options.recipe,
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items()),
    )
    if differs:
        log.info("not as published: %s", "; ".join(differs))
    return paper


def fill(options: argparse.Namespace, recipe: Recipe) -> None:
    """Set what is None."""
    for name, value in recipe.options.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def flag(name: str) -> str:
    """As users type it."""
    return f"--{name.replace('_', '-')}"
