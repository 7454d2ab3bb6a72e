"""A batch in parts, where memory does not suffice for all of it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from ..errors import OutputError
from ..parallel import is_out_of_memory
from .patches import Batch
from .ranks import Ranks

Result = TypeVar("Result")

log = logging.getLogger("spadunet")


def within_memory(
    step: Callable[[int], Result], numbers: dict[str, float], batch: Batch, ranks: Ranks, *, clear: Callable[[], None]
) -> Result:
    """Do something with a batch in so many parts that the memory of every process suffices.

    Args:
        step: called with the number of parts until no process runs out of memory; in it none waits for another.
        numbers: holds `num_parts`, which is doubled where memory does not suffice and stays so.
        clear: lets go of what a step that failed has left behind.

    Raises:
        OutputError: if a single patch is too much.
    """
    while True:
        result, is_short = None, False
        try:
            result = step(int(numbers["num_parts"]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            is_short = True
        (is_any_short,) = ranks.largest([is_short])  # after the error is gone, which holds what filled the memory
        if result is not None and not is_any_short:
            return result
        clear()
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
        numbers["num_parts"] = halve(int(numbers["num_parts"]), batch, ranks)


def in_company(step: Callable[[], Result]) -> Result:
    """A step in which other processes wait for this one, so that it cannot be tried again.

    Raises:
        OutputError: if this process runs out of memory.
    """
    try:
        return step()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutputError(
            "out of memory in the midst of a step, though a trial before it fitted: does another program use this "
            "device? The last checkpoint is kept: the same command goes on from there; if it happens again, take a "
            "smaller --batch-size with --restart"
        ) from error


def halve(num_parts: int, batch: Batch, ranks: Ranks) -> int:
    """Number of parts of half the size, which is told.

    Raises:
        OutputError: if they have one patch each.
    """
    num_patches = len(batch.image)
    num_parts = min(num_parts, num_patches)
    if num_parts == num_patches:
        size = "×".join(map(str, batch.image.shape[2:] if batch.augmentation is None else batch.augmentation.size))
        # The network sees one patch at a time, but the loss all of them.
        rest = f" beside the logits and the loss of all {num_patches}" if num_patches > 1 else ""
        advice = "take a smaller --batch-size, or " if num_patches > 1 else ""
        raise OutputError(
            f"out of memory with a single patch of {size} voxels of {batch.task}{rest}; the last checkpoint is kept: "
            f"{advice}plan smaller patches with a smaller spadunet_plan --memory-gb and give --restart, or take a "
            "smaller --preset"
        )
    log.warning(
        "out of memory with %d patches at once: from now on at most %d, whose gradients are added up; the batch stays "
        "%d, and a step takes about a third longer",
        -(-num_patches // num_parts),
        -(-num_patches // (2 * num_parts)),
        num_patches * ranks.world_size,
    )
    return 2 * num_parts
