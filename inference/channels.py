"""Which channel of a folder's images is which of the model's: by name, where names are known."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..channels import match_names
from ..dataset import numbers_of
from ..description import DATASET_JSON, read_description
from ..errors import InputError
from ..plan import ImagePlan

log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class ChannelOrder:
    """The channels of a folder's images, and where the model's are among them."""

    names: tuple[str, ...]
    """By the number in the files' names."""
    numbers: tuple[int | None, ...]
    """Of each of the model's channels; None where the images do not have it."""
    optional: tuple[int, ...]
    """Numbers that a case may lack: what the model can do without, or does not know."""


def order_of(plan: ImagePlan, folder: Path, names: Sequence[str] | None = None) -> ChannelOrder:
    """Match a folder's channels with the model's by their names, else by their order.

    Args:
        names: of the channels by number, as the user gave them; else those of dataset.json in the folder or beside it.

    Raises:
        InputError: if a channel that the model needs is not among the names.
    """
    by_number = ChannelOrder(
        names=plan.channel_names,
        numbers=tuple(range(len(plan.channel_names))),
        optional=numbers_of(plan.optional_channels, plan.channel_names),
    )
    given = tuple(names) if names else names_beside(folder)
    if given is None:
        return by_number
    numbers = match_names(plan.channel_names, given)
    if names is None and set(numbers) == {None} and len(given) == len(numbers):
        log.info("channels %s are taken for %s, by their order", ", ".join(given), ", ".join(plan.channel_names))
        return by_number
    pairs = zip(plan.channel_names, numbers, strict=True)
    needed = [(name, number) for name, number in pairs if name not in plan.optional_channels]
    lacking = [name for name, number in needed if number is None]
    if lacking or set(numbers) == {None}:
        where = "--channels" if names else f"-i {folder}: its {DATASET_JSON}"
        raise InputError(
            f"{where} names {', '.join(given)}, without {', '.join(lacking or plan.channel_names)}, which the model "
            "needs; name the channels of files _0000, _0001 … by --channels as the model does: "
            f"{', '.join(plan.channel_names)}"
        )
    required = {number for _, number in needed}
    return ChannelOrder(
        names=given,
        numbers=numbers,
        optional=tuple(number for number in range(len(given)) if number not in required),
    )


def names_beside(folder: Path) -> tuple[str, ...] | None:
    """Channel names of the dataset.json in a folder or beside it; None if there is none that can be read."""
    for place in (folder, folder.resolve().parent):
        if (place / DATASET_JSON).is_file():
            try:
                channels = read_description(place).channel_names
            except InputError as error:
                log.warning("passed over: %s", error)
                return None
            return tuple(channels[str(number)] for number in range(len(channels)))
    return None
