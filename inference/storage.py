"""Where the logits of a volume are added up: on the device, in memory, or in a file on disk.

Letters: K outputs (classes or regions); D, H, W depth, height, width.
"""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Place = Literal["device", "host", "disk"]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """A place and a type for sums of logits."""

    place: Place
    dtype: torch.dtype = torch.float32
    folder: Path | None = None
    """Of the file on disk; None for the system's temporary folder."""

    def __str__(self) -> str:
        """For the log: `float16 on disk`."""
        where = "on disk" if self.place == "disk" else f"in the {self.place}'s memory"
        return f"{str(self.dtype).removeprefix('torch.')} {where}"


HOST = Storage(place="host")


class Sums:
    """Sums of weighted logits (K, D, H, W), which begin with zero.

    On disk they lie in a file without a name, gone with this object; of its content, only what is worked on is in
    memory.
    """

    def __init__(self, shape: Sequence[int], storage: Storage, device: torch.device) -> None:
        self.mapped: mmap.mmap | None = None
        if storage.place == "disk":
            size = math.prod(shape) * storage.dtype.itemsize
            with tempfile.TemporaryFile(dir=storage.folder) as file:
                file.truncate(size)
                self.mapped = mmap.mmap(file.fileno(), size)
            self.logits = torch.frombuffer(self.mapped, dtype=storage.dtype).view(*shape)
        else:
            where = device if storage.place == "device" else torch.device("cpu")
            self.logits = torch.zeros(*shape, dtype=storage.dtype, device=where)

    def add(self, place: Sequence[slice], window: Tensor, weights: Tensor) -> None:
        """Add a window's logits (K, d, h, w) times weights (d, h, w), one output at a time.

        A second copy of a window with all its outputs is never made.
        """
        for own, output in zip(self.logits[(slice(None), *place)], window, strict=True):
            own.add_((output.float() * weights).to(own.device))
        self.release()

    def means(self, place: Sequence[slice], total: Tensor) -> Tensor:
        """Divide a part by its total weights (d, h, w), in place; a view of the part."""
        part = self.logits[(slice(None), *place)]
        total = total.to(part.device)
        for output in part:
            output.div_(total)
        self.release()
        return part

    def move_up(self, axis: int, count: int) -> None:
        """Drop the first planes of an axis (0 to 2): the others come to their place, zeros behind them."""
        for own in self.logits:
            move_up(own, axis, count)
        self.release()

    def release(self) -> None:
        """Let go of the memory that shows the file's content; the content stays."""
        if self.mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


def move_up(array: Tensor, axis: int, count: int) -> None:
    """Drop the first planes of an axis: the others come to their place, zeros behind them."""
    kept = array.shape[axis] - count
    for first in range(0, kept, count):  # as many at once as are dropped: no plane is read that was written over
        size = min(count, kept - first)
        array.narrow(axis, first, size).copy_(array.narrow(axis, first + count, size))
    array.narrow(axis, kept, count).zero_()
