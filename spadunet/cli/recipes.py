"""Recipes of pre-training: the numbers of a stage, published or ours, that the user's own options override."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a stage is trained with unless the user says otherwise."""

    warm_up_share: float
    lowest_rate: float
    options: Mapping[str, object]
    """Values of options by name, for those that are not given."""


def default_text(recipe: Recipe, name: str) -> str:
    """What an option's help says of its default."""
    value = recipe.options[name]
    values = value if isinstance(value, list) else [value]
    return f"(default: {' '.join(format(each, 'g') for each in values)})"


def settle(
    options: argparse.Namespace, usual: Recipe, paper: Recipe, differs: Sequence[str] = ()
) -> tuple[Recipe, list[str]]:
    """Give every option that was not given the recipe's value.

    With --max-minutes our own recipe sets no number of steps.

    Args:
        differs: from the paper, beside the recipe's numbers.

    Returns:
        The recipe, and lines on what a run of the paper's has in common with it and what not.
    """
    if options.recipe is None:
        ends_by_clock = options.max_minutes is not None and options.max_steps is None
        fill(options, usual, leave_out="max_steps" if ends_by_clock else "")
        return usual, []
    fill(options, paper)
    given = {name: getattr(options, name) for name in paper.options}
    differences = [
        f"{flag(name)} {value}, not {paper.options[name]}"
        for name, value in given.items()
        if value != paper.options[name]
    ]
    differences += differs
    if options.max_minutes is not None:
        differences.append(f"{flag('max_minutes')} {options.max_minutes:g}, not endless")
    values = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
    lines = [f"recipe: {options.recipe}: {values}"]
    return paper, lines + ([f"not as published: {'; '.join(differences)}"] if differences else [])


def fill(options: argparse.Namespace, recipe: Recipe, leave_out: str = "") -> None:
    """Set what is None."""
    for name, value in recipe.options.items():
        if getattr(options, name) is None and name != leave_out:
            setattr(options, name, value)


def flag(name: str) -> str:
    """As users type it."""
    return f"--{name.replace('_', '-')}"
