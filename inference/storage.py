"""Where the logits of a volume are added up: on the device, in memory, or in a file on disk.

Letters: K outputs (classes or regions); D, H, W depth, height, width.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import OutputError
from ..files import disk_error_reason

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
ZEROS = bytes(1 << 20)
MAX_MAPPED_BYTES = 1 << 24
"""Of a file on disk that are given away at once, and so in memory, unless one plane takes more."""


class Sums:
    """Sums of weighted logits (K, D, H, W), which begin with zero.

    On disk they lie in a file without a name, gone with this object; of its content, only what is worked on is in
    memory. That file has all its bytes on disk from the start: a disk that fills up later would kill the process.

    Raises:
        OutputError: if the disk does not hold them; names their size and the folder.
    """

    def __init__(self, shape: Sequence[int], storage: Storage, device: torch.device) -> None:
        self.mapped: mmap.mmap | None = None
        if storage.place == "disk":
            size = math.prod(shape) * storage.dtype.itemsize
            self.mapped = map_zeros(size, storage.folder)
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

    def planes_at_once(self, axis: int) -> int:
        """How many planes of an axis (0 to 2) may be given away together."""
        if self.mapped is None:
            return self.logits.shape[1 + axis]
        plane_bytes = self.logits.nbytes // self.logits.shape[1 + axis]
        return max(MAX_MAPPED_BYTES // plane_bytes, 1)

    def move_up(self, axis: int, count: int) -> None:
        """Drop the first planes of an axis (0 to 2): the others come to their place, zeros behind them."""
        for own in self.logits:
            move_up(own, axis, count)
            self.release()

    def release(self) -> None:
        """Let go of the memory that shows the file's content; the content stays."""
        if self.mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.mapped.madvise(mmap.MADV_DONTNEED)


def map_zeros(size: int, folder: Path | None) -> mmap.mmap:
    """A file of zeros without a name, as memory.

    Raises:
        OutputError: if the disk does not hold it.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            reserve(file.fileno(), size)
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        reason = disk_error_reason(error) or f"{error}; is the disk full?"
        where = folder or tempfile.gettempdir()
        raise OutputError(
            f"{where}: cannot hold the logits of a volume, {size / 1e6:.4g} MB: {reason}, or give a larger --memory-gb"
        ) from error


def reserve(file: int, size: int) -> None:
    """Make an empty file this long, with room on disk for every byte.

    Raises:
        OSError: if there is none.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of a file system that cannot
                raise
    os.lseek(file, 0, os.SEEK_SET)
    left = size
    while left:
        left -= os.write(file, ZEROS[:left])


def move_up(array: Tensor, axis: int, count: int) -> None:
    """Drop the first planes of an axis: the others come to their place, zeros behind them."""
    kept = array.shape[axis] - count
    for first in range(0, kept, count):  # as many at once as are dropped: no plane is read that was written over
        size = min(count, kept - first)
        array.narrow(axis, first, size).copy_(array.narrow(axis, first + count, size))
    array.narrow(axis, kept, count).zero_()
