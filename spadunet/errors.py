"""The two exceptions whose text is meant for the user: one line that names file or flag, value and remedy."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Wrong use or bad input, told before any work starts (exit code 2)."""


class OutputError(RuntimeError):
    """A result could not be written, as on a full disk (exit code 1)."""


def listed(names: Sequence[str], most: int) -> str:
    """Names for such a line, in their order: the first ones, at most so many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
