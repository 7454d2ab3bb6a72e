"""Which storage the logits of a volume get, so that they fit into memory; told before the work.

Letters: K outputs; D, H, W depth, height, width.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError
from ..memory import available_bytes
from ..spacing import Shape
from .sliding import held_voxels, sweep_axis
from .storage import Storage

HOST_SHARE, DEVICE_SHARE = 0.8, 0.5
"""Of the free memory, unless the user says: the rest is for the network, and for what others do."""
VOXELS_AT_ONCE, MAX_WINDOWS = 1 << 21, 8
IMAGE_BYTES = 8
"""Of a channel's voxel on the image's own grid, while the next case is read: as the file has it, and in float32."""
LABEL_BYTES = 8
"""Of a voxel of the image's own grid: class numbers and label map of a case, and the same of the last one that is being
cleaned and written. With one channel and no read-ahead 11 bytes were measured, image included."""
PROBABILITY_BYTES = 2
"""Of one class's voxel on the image's own grid."""
CASE_BYTES = 8
"""Of a channel's voxel on the network's grid: float32 of the case that is predicted, and of the next."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much memory prediction may take."""

    host_bytes: int | None
    """None where the system does not say."""
    device_bytes: int = 0
    """Of a GPU; 0 without one."""
    folder: Path | None = None
    """For what does not fit into memory; None for the system's temporary folder."""


def find_budget(memory_gb: float | None, device: torch.device, folder: Path | None) -> Budget:
    """What the user allows each process, or this one's part of a share of what is free on its machine."""
    free, num_processes = available_bytes(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's
    host_bytes = round(free * HOST_SHARE / num_processes) if memory_gb is None else round(memory_gb * 1e9)
    device_bytes = round(torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE) if device.type == "cuda" else 0
    return Budget(host_bytes=host_bytes, device_bytes=device_bytes, folder=folder)


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the prediction of a case takes."""

    shape: Shape
    """(D, H, W) of the case as the networks see it."""
    patches: tuple[Shape, ...]
    """Of the sweeps that go on at once: one, unless models of an ensemble have windows of other sizes."""
    num_outputs: int
    """That are added up: of a network with more outputs than features, these."""
    num_logits: int
    """That a network gives: more than that where only some outputs are asked for."""
    num_models: int = 1
    adds_features: bool = False
    """Instead of logits."""
    num_channels: int = 1
    """Of all images together, where models scale intensities differently."""
    stored_shape: Shape | None = None
    """Of the image itself; None for `shape`."""
    num_stored_channels: int = 1
    num_shared: int = 0
    """Channels of a window that several tasks share until the last of them is through."""
    num_probabilities: int = 0
    """Classes or regions whose probabilities are kept on the image's own grid."""

    @property
    def axis(self) -> int:
        """Along which all sweeps move last."""
        return sweep_axis(self.shape, *self.patches)

    def held_bytes(self, dtype: torch.dtype) -> int:
        """Of the sums of logits that are held at once."""
        held = sum(held_voxels(self.shape, patch, self.axis) for patch in self.patches)
        return self.num_outputs * held * dtype.itemsize

    def probability_bytes(self) -> int:
        """Of this case's probabilities."""
        return PROBABILITY_BYTES * self.num_probabilities * math.prod(self.stored_shape or self.shape)

    def image_bytes(self) -> int:
        """Of all but logits: this case, the next one that is read and the last one that is written."""
        stored = math.prod(self.stored_shape or self.shape) * (IMAGE_BYTES * self.num_stored_channels + LABEL_BYTES)
        return stored + 2 * self.probability_bytes() + math.prod(self.shape) * CASE_BYTES * self.num_channels

    def least_bytes(self) -> int:
        """In the host's memory, however little is held there."""
        return self.image_bytes() + self.window_bytes()

    def window_bytes(self) -> int:
        """Of a window's logits, beside those of the models before, where there are several, and of what tasks share."""
        num_held = 1 if self.num_models == 1 else 3
        num_channels = num_held * self.num_logits + self.num_shared
        return num_channels * max(math.prod(patch) for patch in self.patches) * 4


def choose_storages(demand: Demand, budget: Budget) -> tuple[Storage, ...]:
    """What fits, the fastest first, then what takes less, to fall back on; the last one always is disk."""
    windows = demand.window_bytes()
    host_bytes = math.inf if budget.host_bytes is None else budget.host_bytes - demand.image_bytes()
    found = []
    if demand.held_bytes(torch.float32) + windows <= budget.device_bytes:
        found.append(Storage(place="device"))
    for dtype in (torch.float32, torch.float16):
        # Twice, since what is finished is restored while more is added up.
        if 2 * demand.held_bytes(dtype) + windows <= host_bytes:
            found.append(Storage(place="host", dtype=dtype))
    return (*found, Storage(place="disk", dtype=torch.float16, folder=budget.folder))


def windows_at_once(patch: Shape, device: torch.device) -> int:
    """How many windows the network gets together: on a GPU so many that small ones keep it busy; one on a processor."""
    return 1 if device.type == "cpu" else max(1, min(MAX_WINDOWS, VOXELS_AT_ONCE // math.prod(patch)))


def tell_choice(name: str, demand: Demand, budget: Budget, device: torch.device) -> str:
    """In words, for the log, what is chosen for a case."""
    (storage, *_) = choose_storages(demand, budget)
    shape, patch = demand.shape, demand.patches[0]
    axis = demand.axis
    along, count = ("slices", "rows", "columns")[axis], min(max(it[axis] for it in demand.patches), shape[axis])
    limit = "unknown" if budget.host_bytes is None else f"{budget.host_bytes / 1e9:.3g} GB"
    of_models = "" if demand.num_models == 1 else f", the mean of {demand.num_models} models,"
    summed = "features of {} channels" if demand.adds_features else "logits of {} outputs"
    shares = (
        f"; its probabilities take {demand.probability_bytes() / 1e9:.2g} GB, and those of the last case are written "
        "meanwhile"
        if demand.num_probabilities
        else ""
    )
    return (
        f"memory that may be taken: {limit}; {name}, the largest, becomes {'×'.join(map(str, shape))} voxels; "
        f"{summed.format(demand.num_outputs)}{of_models} are added up as {storage}, {count} {along} at a time "
        f"({demand.held_bytes(storage.dtype) / 1e9:.2g} GB); windows at once: {windows_at_once(patch, device)}{shares}"
    )


def require_room(name: str, demand: Demand, budget: Budget) -> None:
    """Refuse a case whose probabilities alone take more memory than may be taken: the system would end the process.

    Raises:
        InputError: naming the case, how much that is, and what can be done.
    """
    if budget.host_bytes is not None and demand.probability_bytes() > budget.host_bytes:
        size = "×".join(map(str, demand.stored_shape or demand.shape))
        raise InputError(
            f"{name}: probabilities of {demand.num_probabilities} classes or regions of {size} voxels take "
            f"{demand.probability_bytes() / 1e9:.3g} GB of memory, more than the {budget.host_bytes / 1e9:.3g} GB that "
            "may be taken; leave --save-probabilities out, ask for fewer with --roi-subset, or give a larger "
            "--memory-gb"
        )


def tell_shortage(name: str, demand: Demand, budget: Budget) -> str:
    """For the log, where a case takes more than may be taken, whatever is chosen for it; else empty."""
    least = demand.least_bytes()
    if budget.host_bytes is None or least <= budget.host_bytes:
        return ""
    shares = 2 * demand.probability_bytes()
    of_these = f" ({shares / 1e9:.3g} GB of it for --save-probabilities)" if shares else ""
    return (
        f"{name} takes at least {least / 1e9:.3g} GB of memory beside the networks, with all logits on disk{of_these}: "
        f"more than the {budget.host_bytes / 1e9:.3g} GB that may be taken (--memory-gb, or 80 % of what is free); it "
        "is tried all the same"
    )
