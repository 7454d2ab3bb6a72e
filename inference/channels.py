"""Which channel of a folder's images is which of the model's: by name, where names are known."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..channels import are_colours, match_names
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


def dropped_contrasts(plan: ImagePlan, provenance: Mapping[str, str]) -> bool:
    """Whether a task learned from patches that lacked contrasts at random, and so can do without any but the last.

    Args:
        provenance: of its run, which tells its `VarietyOptions`; runs of which nothing is told dropped none.
    """
    share = re.search(r"channel_dropout=([\d.e-]+)", provenance.get("variety", ""))
    is_off = share is None or float(share[1]) == 0
    return not is_off and len(plan.channel_names) > 1 and not are_colours(plan.channel_names)


def order_of(
    plan: ImagePlan, folder: Path, names: Sequence[str] | None = None, *, may_lack: bool = False
) -> ChannelOrder:
    """Match a folder's channels with the model's by their names, else by their order.

    Args:
        names: of the channels by number, as the user gave them; else those of dataset.json in the folder or beside it.
        may_lack: names that the user gave may be some of the model's alone: its training `dropped_contrasts`.

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
    are_known = None not in match_names(given, plan.channel_names)
    if names and are_known and may_lack:
        lacking = []
    elif names and are_known and lacking:
        raise InputError(
            f"--channels names {', '.join(given)}, without {', '.join(lacking)}, which the model needs: no patch of "
            "its training lacked a contrast; give images of all its channels, or train it with --channel-dropout"
        )
    if lacking or set(numbers) == {None}:
        where = "--channels" if names else f"-i {folder}: its {DATASET_JSON}"
        raise InputError(
            f"{where} names {', '.join(given)}, without {', '.join(lacking or plan.channel_names)}, which the model "
            "needs; name the channels of files _0000, _0001 … by --channels as the model does: "
            f"{', '.join(plan.channel_names)}{', or only those that are there' if may_lack else ''}"
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
