"""What training will take: a trial of one real step of each dataset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..inference.estimate import WindowCost, num_windows, try_window
from ..measure import Amount, Needs, measure, measure_apart
from ..network.heads import SegmentationNetwork, SegmentationTask
from ..preprocessing.mirror import mirror_axes
from ..preprocessing.store import open_case
from ..spacing import Shape
from .loop import RunOptions, train_step
from .optimiser import make_optimiser
from .patches import Batch, BatchStream, TrainingTask
from .prepare import PreparedRun, TrainingDataset, build_joint
from .state import Progress

MAX_TRIAL_VOXELS = 2 * 64**3
"""Of a batch on a processor, so that a trial takes seconds; the cost of larger ones grows with their voxels."""
WARM_SECONDS = 5.0
BYTES_PER_PARAMETER = 16
"""float32: the weight, its gradient and AdamW's two moments."""
STORED_BYTES_PER_PARAMETER = 4 + 2 * 12
"""The model, and the checkpoint (weight and two moments) beside the one that it replaces."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One step of one dataset."""

    batch_seconds: float
    """To draw and augment a batch, in one process."""
    step_seconds: float
    peak_bytes: int
    device_bytes: int
    scale: float
    """Voxels of a batch over those of the trial."""
    window: WindowCost
    """Of prediction, for validation."""


def estimate_training(run: PreparedRun, done: Progress | None) -> Needs:
    """Time, memory and disk of a run.

    Args:
        done: how far an earlier run has come that this one goes on with.

    Raises:
        OutputError: if the trial run dies.
    """
    options = run.options
    trial = measure_apart(try_steps, run.datasets, run.tasks, run.backbone, run.preset, options)
    costs, resting = trial.result, trial.resting_bytes
    num_parameters = sum(parameter.numel() for parameter in run.network.parameters())
    fixed = num_parameters * BYTES_PER_PARAMETER
    shares = [task.weight / sum(other.weight for other in run.tasks) for task in run.tasks]
    seconds = sum(share * step_seconds(cost, options) for share, cost in zip(shares, costs, strict=True))
    limits, reasons = [], []
    if options.max_steps is not None:
        left = max(options.max_steps - (done.step if done else 0), 0)
        limits.append(left * seconds)
        reasons.append(f"{left} steps of {seconds:.2g} s")
    if options.max_minutes is not None:
        limits.append(max(options.max_minutes * 60 - (done.seconds if done else 0), 0))
        reasons.append(f"{options.max_minutes:g} minutes asked for, about {min(limits) / seconds:.0f} steps")
    validation = sum(
        validation_seconds(member, names, cost.window, options)
        for member, names, cost in zip(run.datasets, run.held_out, costs, strict=True)
    )
    is_gpu = options.device.type == "cuda"
    activations = [max(cost.peak_bytes - resting - fixed, 0) * cost.scale for cost in costs]
    memory = resting * (1 + options.num_workers) + (max(activations) if is_gpu else fixed + max(activations))
    how = f"a trial here of a step of each dataset{'' if max(c.scale for c in costs) == 1 else ', of smaller patches'}"
    return Needs(
        time=Amount(
            value=min(limits) + trial.start_seconds + validation,
            basis=f"{' or '.join(reasons)}, by {how}; {validation:.2g} s of them to validate",
        ),
        memory=Amount(value=memory, basis=f"{how}; {options.num_workers} processes that make batches"),
        disk=Amount(
            value=num_parameters * STORED_BYTES_PER_PARAMETER,
            basis=f"{num_parameters / 1e6:.2g} million parameters: model, checkpoint and its successor",
        ),
        device_memory=Amount(value=max(cost.device_bytes for cost in costs), basis=how) if is_gpu else None,
    )


def step_seconds(cost: StepCost, options: RunOptions) -> float:
    """Of one step with its batch: made meanwhile by other processes, if there are any."""
    step = cost.step_seconds * cost.scale
    if options.num_workers:
        return max(step, cost.batch_seconds / options.num_workers)
    return step + cost.batch_seconds


def validation_seconds(member: TrainingDataset, names: Sequence[str], window: WindowCost, options: RunOptions) -> float:
    """To predict the held-out cases and their mirror images, by their windows."""
    total = 0.0
    for name in names:
        try:
            geometry = open_case(member.folder / "cases", name).header.geometry
        except InputError:  # the raw image is what will be predicted
            continue
        patch, labels = member.plan.patch_sizes_voxels[geometry.da], member.plan.labels
        num_views = 2 ** len(mirror_axes(geometry, labels, options.mirror))
        total += num_windows(geometry.shape, patch, options.overlap) * num_views * window.seconds
    return total


def try_steps(
    datasets: Sequence[TrainingDataset],
    tasks: Sequence[TrainingTask],
    backbone: str,
    preset: str,
    options: RunOptions,
) -> list[StepCost]:
    """One step of each dataset with real patches, made smaller where a processor would take long."""
    network = build_joint(datasets, backbone, preset, options.adapter).to(options.device).train()
    if options.freezes_backbone:
        network.backbone.requires_grad_(False)
    optimiser = make_optimiser(network, options.learning_rate, options.weight_decay, spares_vectors=False)
    is_gpu = options.device.type == "cuda"
    costs = []
    for number, task in enumerate(tasks):
        stream = BatchStream([task], options.seed)
        stream[0]  # loads libraries
        drawn = measure(stream.__getitem__, 1)
        batch = drawn.result if is_gpu else shrink(drawn.result)

        def step(number: int = number, batch: Batch = batch, task: TrainingTask = task) -> None:
            train_step(network, number, batch, task, optimiser, options)
            if is_gpu:
                torch.cuda.synchronize(options.device)

        if is_gpu:
            torch.cuda.reset_peak_memory_stats(options.device)
        first = measure(step)
        again = measure(step) if first.seconds < WARM_SECONDS else first
        device_bytes = torch.cuda.max_memory_allocated(options.device) if is_gpu else 0
        member = network.tasks[number]
        assert isinstance(member, SegmentationTask)
        _, depth, height, width = batch.image.shape[1:]
        patch: Shape = (depth, height, width)
        window = try_window(
            SegmentationNetwork(network.backbone_of(number), member).eval(),
            batch.image.shape[1],
            patch,
            batch.da,
            device=options.device,
            precision=options.precision,
        )
        network.train()
        patch_scale = math.prod(drawn.result.image.shape[2:]) / math.prod(patch)
        costs.append(
            StepCost(
                batch_seconds=drawn.seconds,
                step_seconds=again.seconds,
                peak_bytes=max(first.peak_bytes, again.peak_bytes),
                device_bytes=device_bytes,
                scale=drawn.result.image.numel() / batch.image.numel(),
                window=WindowCost(
                    seconds=window.seconds * patch_scale,
                    peak_bytes=window.peak_bytes,
                    device_bytes=window.device_bytes,
                ),
            )
        )
    return costs


def shrink(batch: Batch) -> Batch:
    """A batch of at most MAX_TRIAL_VOXELS: fewer patches, then the middle of them."""
    num_patches = max(min(len(batch.image), MAX_TRIAL_VOXELS // math.prod(batch.image.shape[2:])), 1)
    image, classes = batch.image[:num_patches], batch.classes[:num_patches]
    factor = min((MAX_TRIAL_VOXELS / image[:, 0].numel()) ** (1 / 3), 1.0)
    depth, height, width = (max(round(size * factor), 1) for size in image.shape[2:])
    return Batch(
        task=batch.task,
        da=batch.da,
        cases=batch.cases[:num_patches],
        image=image[:, :, :depth, :height, :width].contiguous(),
        classes=classes[:, : batch.num_merged * depth, :height, :width].contiguous(),
        known=None if batch.known is None else batch.known[:num_patches],
    )
