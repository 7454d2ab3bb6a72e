"""Recipes: the numbers of a stage, published or ours, that the user's own options override."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a stage is done with unless the user says otherwise."""

    options: Mapping[str, object]
    """Values of options by name, for those that are not given."""
    warm_up_share: float = 0.0
    """Of a stage that trains, as is the next."""
    lowest_rate: float = 0.0


def default_text(recipe: Recipe, name: str) -> str:
    """What an option's help says of its default."""
    return f"(default: {value_text(recipe.options[name])})"


def value_text(value: object) -> str:
    """A value as it is typed."""
    if isinstance(value, list):
        return " ".join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def settle(
    options: argparse.Namespace, usual: Recipe, paper: Recipe, differs: Sequence[str] = (), *, kind: str = "recipe"
) -> tuple[Recipe, list[str]]:
    """Give every option that was not given the recipe's value.

    With --max-minutes our own recipe sets no number of steps.

    Args:
        differs: from the paper, beside the recipe's numbers.
        kind: option that names the recipe.

    Returns:
        The recipe, and lines on what a run of the paper's has in common with it and what not.
    """
    name = getattr(options, kind)
    if name is None:
        ends_by_clock = getattr(options, "max_minutes", None) is not None and options.max_steps is None
        fill(options, usual, leave_out="max_steps" if ends_by_clock else "")
        return usual, []
    fill(options, paper)
    given = {name: getattr(options, name) for name in paper.options}
    differences = [
        f"{flag(name)} {value_text(value)}, not {value_text(paper.options[name])}"
        for name, value in given.items()
        if value != paper.options[name]
    ]
    differences += differs
    if getattr(options, "max_minutes", None) is not None:
        differences.append(f"{flag('max_minutes')} {options.max_minutes:g}, not endless")
    values = ", ".join(f"{name.replace('_', ' ')} {value_text(value)}" for name, value in given.items())
    lines = [f"{kind}: {name}: {values}"]
    return paper, lines + ([f"not as published: {'; '.join(differences)}"] if differences else [])


def fill(options: argparse.Namespace, recipe: Recipe, leave_out: str = "") -> None:
    """Set what is None."""
    for name, value in recipe.options.items():
        if getattr(options, name) is None and name != leave_out:
            setattr(options, name, value)


def flag(name: str) -> str:
    """As users type it."""
    return f"--{name.replace('_', '-')}"
