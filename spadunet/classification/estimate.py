"""What training of a classification will take: a trial with one study."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..classification_plan import ClassificationPlan
from ..measure import Amount, Needs, measure_apart
from ..network.adapters import count_parameters
from ..network.classify import Pooling
from ..spacing import Shape
from ..training.options import autocast
from .options import ClassificationOptions
from .parts import build_fresh, join_parts
from .prepared import PreparedClassification

NUM_TRIALS = 2
"""The first warms up."""
BACKWARD = 2.0
"""Of the time of a forward pass, that of a backward one."""
MODEL_BYTES, CHECKPOINT_BYTES = 4, 4
"""A parameter, float32."""
LEARNED_BYTES = 2 * 12
"""A parameter that learns: it again for the best epoch and AdamW's two moments, and all of it in the file before."""


@dataclass(frozen=True, kw_only=True)
class StudyCost:
    """One study, forth and back."""

    seconds: float
    device_bytes: int


def estimate_classification(run: PreparedClassification, size: Shape) -> Needs:
    """Time, memory and disk of a run.

    Args:
        size: (D, H, W) of the images as the network sees them.

    Raises:
        OutputError: if the trial dies.
    """
    options, source = run.options, run.source
    pooling = run.parts.task.pooling
    trial = measure_apart(try_study, run.backbone, run.preset, source.plan, pooling, options, size)
    cost = trial.result
    num_held_out = 0 if source.held_out is None else len(source.held_out.names)
    epoch = cost.seconds * (len(source.train.names) + num_held_out / (1 + BACKWARD))
    how = f"a trial here with one study of {'×'.join(map(str, size))} voxels"
    if options.max_steps is None:
        time_amount = Amount(value=60 * (options.max_minutes or 0), basis="as asked for")
    else:
        num_epochs = options.max_steps / run.num_steps
        seconds = num_epochs * epoch
        limit = min(seconds, 60 * (options.max_minutes or float("inf")))
        time_amount = Amount(value=limit, basis=f"{num_epochs:.3g} epochs of {epoch:.2g} s, by {how}")
    kept, learned = (
        count_parameters(run.parts.backbone),
        sum(count_parameters(part) for part in run.parts.learning.values()),
    )
    is_gpu = options.device.type == "cuda"
    room = max(trial.peak_bytes - trial.resting_bytes, 0)
    several = f"{how}, times the {options.batch_size} of a batch, which is taken in parts where memory is short"
    return Needs(
        time=time_amount,
        memory=Amount(value=trial.resting_bytes + room * (1 if is_gpu else options.batch_size), basis=several),
        disk=Amount(
            value=kept * (MODEL_BYTES + 2 * CHECKPOINT_BYTES) + learned * LEARNED_BYTES,
            basis=f"{kept / 1e6:.2g} million parameters: model, checkpoint and its successor",
        ),
        device_memory=Amount(value=cost.device_bytes * options.batch_size, basis=several) if is_gpu else None,
    )


def try_study(
    backbone: str,
    preset: str,
    plan: ClassificationPlan,
    pooling: Pooling,
    options: ClassificationOptions,
    size: Shape,
) -> StudyCost:
    """Forth and back with one study of nothing; the last of some trials."""
    fresh, task = build_fresh(backbone, preset, plan, pooling)
    parts = join_parts(fresh, task, options.adapter, is_frozen=options.freezes_backbone)
    parts.network.to(options.device)
    image = torch.zeros(1, len(plan.channel_names), *size, device=options.device)
    is_gpu = options.device.type == "cuda"
    seconds = 0.0
    for _ in range(NUM_TRIALS):
        start = time.monotonic()
        with autocast(options.device, options.precision):
            logits = parts.network([(image, plan.degree_of_anisotropy)])
        logits.float().sum().backward()
        if is_gpu:
            torch.cuda.synchronize(options.device)
        seconds = time.monotonic() - start
    return StudyCost(seconds=seconds, device_bytes=torch.cuda.max_memory_allocated(options.device) if is_gpu else 0)
