"""What prediction will take: a trial of one window, times the windows that the headers call for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..dataset import RawCase
from ..measure import Cost, measure
from ..model import load_model
from ..plan import Plan
from ..preprocessing.preprocess import preprocess
from ..preprocessing.restore import restore_logits
from ..spacing import Shape
from .channels import ChannelOrder
from .pipeline import read_ordered
from .predict import build_network
from .sliding import starts_of, sweep_logits

WARM_SECONDS = 5.0
"""A first window that takes less is run again: the first one also prepares the operators."""


@dataclass(frozen=True, kw_only=True)
class WindowCost:
    """One window through the network."""

    seconds: float
    peak_bytes: int
    """Of the process."""
    device_bytes: int
    """Of a GPU; 0 without."""


def num_windows(shape: Shape, patch: Shape, overlap: float) -> int:
    """How many windows `sweep_logits` runs over an image (D, H, W) in which none is of one value."""
    sides = zip(shape, patch, strict=True)
    return math.prod(len(starts_of(max(size, side), side, overlap)) for size, side in sides)


def try_window(
    network: nn.Module, num_channels: int, patch: Shape, da: int, *, device: torch.device, precision: torch.dtype
) -> WindowCost:
    """Run an image of one patch, of random voxels."""
    image = torch.rand(num_channels, *patch, device=device) * 2 - 1

    def run() -> None:
        for _ in sweep_logits(network, image, da, patch, precision=precision):
            pass
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    first: Cost[None] = measure(run)
    cost = measure(run) if first.seconds < WARM_SECONDS else first
    return WindowCost(
        seconds=cost.seconds,
        peak_bytes=max(first.peak_bytes, cost.peak_bytes),
        device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0,
    )


def try_model(
    folder: Path, task: str, degrees: Sequence[int], device: torch.device, precision: torch.dtype
) -> dict[int, WindowCost]:
    """One window of a model's task for each degree of anisotropy."""
    model = load_model(folder)
    plan = model.tasks[task].plan
    network = build_network(model, task).to(device)
    return {
        da: try_window(
            network, len(plan.channel_names), plan.patch_sizes_voxels[da], da, device=device, precision=precision
        )
        for da in degrees
    }


def prepare_and_restore(case: RawCase, *, plan: Plan, order: ChannelOrder | None = None) -> None:
    """All that `predict_case` does but the network and the writing."""
    made = preprocess(case.name, read_ordered(case, plan, order), None, plan)
    logits = np.ones((plan.labels.num_outputs, *made.geometry.shape), np.float32)
    restore_logits(logits, made.geometry, plan.labels)
