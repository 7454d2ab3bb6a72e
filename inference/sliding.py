"""A network over a volume larger than its patch, from one end to the other: what is finished is given away.

Windows move along one axis last, so that behind them all logits are final. Only as many of them are held as one window
is deep along that axis.

Letters: C channels, K outputs (classes or regions); D, H, W depth, height, width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional

from ..spacing import Shape
from .stages import StageTimes
from .storage import HOST, Storage, Sums, move_up

Network = Callable[[Tensor, int], Tensor]
GAUSSIAN_SIGMA = 0.125
"""Of the patch's sides, as nnU-Net weighs a window's voxels (Isensee et al. 2021)."""
MAX_KEPT_BYTES = 1 << 28
"""Logits of a window in which nothing is to be seen are kept, unless they are larger."""


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Finished logits of some planes of a volume."""

    planes: slice
    """Along the axis that the windows move along."""
    logits: Tensor
    """(K, D, H, W), of these planes only; gone when the next slab is asked for."""


def starts_of(size: int, patch: int, overlap: float) -> list[int]:
    """Where windows begin along an axis at least as long as the patch; the last one ends where the axis does."""
    step = max(int(patch * (1 - overlap)), 1)
    return [min(number * step, size - patch) for number in range(math.ceil((size - patch) / step) + 1)]


def sweep_axis(shape: Shape, *patch_sizes_voxels: Shape) -> int:
    """The axis along which windows move last: where the least is held of all patches; depth where axes are alike."""
    return min(range(3), key=lambda axis: sum(held_voxels(shape, patch, axis) for patch in patch_sizes_voxels))


def held_voxels(shape: Shape, patch_size_voxels: Shape, axis: int) -> int:
    """Of a volume (D, H, W) whose windows move along an axis last, as many as are held at once."""
    sides = [max(size, side) for size, side in zip(shape, patch_size_voxels, strict=True)]
    sides[axis] = patch_size_voxels[axis]
    return math.prod(sides)


@torch.inference_mode()
def sweep_logits(
    network: Network,
    image: Tensor,
    da: int,
    patch_size_voxels: Shape,
    *,
    overlap: float = 0.5,
    batch_size: int = 1,
    precision: torch.dtype = torch.float32,
    missing_channels: Sequence[int] = (),
    storage: Storage = HOST,
    times: StageTimes | None = None,
    axis: int | None = None,
    num_tasks: int = 1,
) -> Iterator[Slab]:
    """Gaussian-weighted means of the windows' logits for an image (C, D, H, W) in [-1, 1], plane by plane.

    An image smaller than the patch is padded to it with -1, its darkest value, on both sides, as patches are in
    training: GroupNorm's statistics would differ otherwise (measured on Hippocampus after 200 steps: 0.15 of Dice).

    Where windows are of one value throughout, as beside a body in CT, the network runs once for all of them: it would
    give the same again.

    Args:
        network: `network(x, da)`, (B, C, d, h, w) to (B, K, d, h, w).
        overlap: share of a window that its neighbour sees again.
        batch_size: windows at once.
        precision: bfloat16 runs the network under autocast.
        missing_channels: numbers of channels that are 0 in the padding too.
        storage: where logits are added up, and in which type.
        times: gets the seconds of network and blending.
        axis: along which windows move last, 0 to 2; None for `sweep_axis`.
        num_tasks: whose logits the network gives together.
    """
    depth, height, width = image.shape[1:]
    shape = depth, height, width
    axis = sweep_axis(shape, patch_size_voxels) if axis is None else axis
    before = [max(patch - size, 0) // 2 for size, patch in zip(shape, patch_size_voxels, strict=True)]
    padded = pad(image, before, patch_size_voxels, missing_channels)
    starts = [starts_of(size, patch, overlap) for size, patch in zip(padded.shape[1:], patch_size_voxels, strict=True)]
    others = [starts[other] for other in range(3) if other != axis]
    weights = compute_importance_map(
        patch_size_voxels, mode="gaussian", sigma_scale=GAUSSIAN_SIGMA, device=image.device
    )
    times = times or StageTimes()
    run = Runner(network, padded, da, patch_size_voxels, precision, times, max_kept_bytes=MAX_KEPT_BYTES * num_tasks)
    held: list[int] = list(padded.shape[1:])
    held[axis] = patch_size_voxels[axis]
    total = torch.zeros(held, device=image.device)
    sums: Sums | None = None
    for number, start in enumerate(starts[axis]):
        corners = [(*corner[:axis], start, *corner[axis:]) for corner in itertools.product(*others)]
        for corner, window in run.windows(corners, batch_size):
            sums = sums or Sums((len(window), *held), storage, image.device)
            place = [slice(first, first + size) for first, size in zip(corner, patch_size_voxels, strict=True)]
            place[axis] = slice(None)
            with times.time("blending"):
                sums.add(place, window, weights)
                total[tuple(place)] += weights
        assert sums is not None
        is_last = number + 1 == len(starts[axis])
        num_done = patch_size_voxels[axis] if is_last else starts[axis][number + 1] - start
        first, last = max(start, before[axis]), min(start + num_done, before[axis] + shape[axis])
        place = [slice(own, own + size) for own, size in zip(before, shape, strict=True)]
        place[axis] = slice(first - start, last - start)
        with times.time("blending"):
            logits = sums.means(place, total[tuple(place)])
        begin = first - before[axis]
        for part in logits.split(sums.planes_at_once(axis), 1 + axis):
            end = begin + part.shape[1 + axis]
            yield Slab(planes=slice(begin, end), logits=part)
            sums.release()
            begin = end
        if not is_last:
            with times.time("blending"):
                sums.move_up(axis, num_done)
                move_up(total, axis, num_done)


class Runner:
    """Runs a network on windows of a padded image; on dark ones once."""

    def __init__(
        self,
        network: Network,
        image: Tensor,
        da: int,
        patch: Shape,
        precision: torch.dtype,
        times: StageTimes,
        *,
        max_kept_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self.max_kept_bytes = max_kept_bytes
        self.network, self.image, self.da, self.patch, self.precision = network, image, da, patch, precision
        self.times = times
        self.dark: tuple[Tensor, Tensor] | None = None

    def windows(self, corners: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Each corner with the logits (K, d, h, w) of the window that begins there."""
        for first in range(0, len(corners), batch_size):
            chosen = corners[first : first + batch_size]
            crops = [self.crop(corner) for corner in chosen]
            known = [self.known(crop) for crop in crops]
            unknown = [crop for crop, logits in zip(crops, known, strict=True) if logits is None]
            fresh = iter(self.run(unknown)) if unknown else iter(())
            for corner, crop, logits in zip(chosen, crops, known, strict=True):
                if logits is None:
                    logits = next(fresh)
                    self.keep(crop, logits)
                yield corner, logits

    def crop(self, corner: tuple[int, ...]) -> Tensor:
        """A window of the image, (C, d, h, w)."""
        place = [slice(first, first + size) for first, size in zip(corner, self.patch, strict=True)]
        return self.image[(slice(None), *place)]

    def run(self, crops: Sequence[Tensor]) -> Tensor:
        """(B, K, d, h, w) of windows."""
        device = self.image.device
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.precision == torch.bfloat16)
        with self.times.time("network"), autocast:
            logits = self.network(torch.stack(list(crops)), self.da)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return logits

    def known(self, crop: Tensor) -> Tensor | None:
        """What the network gave for the same window, if that was kept."""
        return self.dark[1] if self.dark is not None and is_plain(crop) and crop.equal(self.dark[0]) else None

    def keep(self, crop: Tensor, logits: Tensor) -> None:
        """Remember the answer to a window in which nothing is to be seen."""
        if self.dark is None and logits.nbytes <= self.max_kept_bytes and is_plain(crop):
            self.dark = crop.clone(), logits.clone()


def is_plain(crop: Tensor) -> bool:
    """True where each channel (C, d, h, w) has one value throughout; a glance at two corners tells most."""
    corner = crop[:, :1, :1, :1]
    return torch.equal(corner, crop[:, -1:, -1:, -1:]) and bool((crop == corner).all())


def pad(image: Tensor, before: Sequence[int], patch: Shape, missing_channels: Sequence[int]) -> Tensor:
    """An image (C, D, H, W) at least as large as the patch, with -1 around it; 0 in missing channels."""
    sides: list[int] = []
    for size, own, wanted in zip(image.shape[1:], before, patch, strict=True):
        sides = [own, max(wanted - size, 0) - own, *sides]
    padded = functional.pad(image, sides, value=-1.0) if any(sides) else image
    if any(sides) and missing_channels:
        padded[list(missing_channels)] = 0
    return padded
