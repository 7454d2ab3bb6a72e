"""The mean of several models' probabilities, without holding any of them for a whole volume.

Means are given as logits again: the logarithm of the mean of softmax probabilities, and for regions the logit of the
mean of sigmoid probabilities. So what follows is the same for one model and for several, and a model beside itself
gives what it gives alone: softmax does not change when all logits of a voxel are shifted.

Letters: B batch; K outputs (classes or regions); D, H, W depth, height, width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..plan import Plan
from .confidence import Agreement
from .sliding import Network, Slab

MAX_PART_BYTES = 1 << 26
"""Of the planes whose mean is taken at once."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble: its network and the plan that it was trained by."""

    network: Network
    plan: Plan


def check_members(plans: Sequence[Plan], names: Sequence[str]) -> None:
    """Refuse models whose answers cannot be averaged: of other labels, channels or target spacing.

    Args:
        plans: as prediction follows them; native spacing makes any two alike.
        names: of the models, for the message.

    Raises:
        InputError: naming the first model and the one that differs, and what can be done.
    """
    first, *others = plans
    for plan, name in zip(others, names[1:], strict=True):
        pair = f"{names[0]} and {name} cannot be averaged"
        if plan.labels.model_copy(update={"mirror_pairs": None}) != first.labels.model_copy(
            update={"mirror_pairs": None}
        ):
            raise InputError(
                f"{pair}: their labels differ ({', '.join(first.labels.output_names)} against "
                f"{', '.join(plan.labels.output_names)}, or their ids); give models of the same labels"
            )
        if plan.channel_names != first.channel_names or plan.optional_channels != first.optional_channels:
            raise InputError(
                f"{pair}: their channels differ ({', '.join(first.channel_names)} against "
                f"{', '.join(plan.channel_names)}); give models of the same channels"
            )
        if plan.target_spacing_mm != first.target_spacing_mm:
            raise InputError(
                f"{pair}: they predict at other spacings ({spacing_text(first)} against {spacing_text(plan)}); "
                "give --spacing native, by which all predict on the image's own grid"
            )


def spacing_text(plan: Plan) -> str:
    """A plan's target spacing in words."""
    spacing = plan.target_spacing_mm
    return spacing if isinstance(spacing, str) else "×".join(f"{side:.4g}" for side in spacing) + " mm"


def as_one(networks: Sequence[Network], *, has_regions: bool, agreement: Agreement | None = None) -> Network:
    """A network whose logits are those of the mean probability of several; the network itself where there is one.

    Only the sum and one model's logits are held at a time.

    Args:
        agreement: gets how far the models say the same.
    """

    def predict(x: Tensor, da: int) -> Tensor:
        share, masks = 1 / len(networks), []

        def parts() -> Iterator[tuple[Tensor, float]]:
            for network in networks:
                logits = network(x, da)
                masks.extend([agreement.masks(logits, 1)] if agreement is not None else [])
                yield logits, share

        mean = mean_logits(parts(), dim=1, has_regions=has_regions)
        if agreement is not None:
            agreement.add(masks, agreement.masks(mean, 1))
        return mean

    return predict if len(networks) > 1 else networks[0]


def mean_logits(parts: Iterable[tuple[Tensor, float]], *, dim: int, has_regions: bool) -> Tensor:
    """Logits of the weighted mean of probabilities, float32.

    Args:
        parts: logits, all of one shape, each with its weight; the weights add up to 1.
        dim: of the outputs.
    """
    yes: Tensor | None = None
    no: Tensor | None = None
    for logits, weight in parts:
        logits, log_weight = logits.float(), math.log(weight)
        if has_regions:
            no = add_log(no, functional.logsigmoid(-logits) + log_weight)
            yes = add_log(yes, functional.logsigmoid(logits) + log_weight)
        else:
            yes = add_log(yes, functional.log_softmax(logits, dim) + log_weight)
    assert yes is not None
    return yes if no is None else yes - no


def add_log(total: Tensor | None, more: Tensor) -> Tensor:
    """The logarithm of a sum, of its parts' logarithms."""
    return more if total is None else torch.logaddexp(total, more)


def in_step(
    streams: Sequence[Iterator[Slab]],
    num_models: Sequence[int],
    axis: int,
    *,
    has_regions: bool,
    agreement: Agreement | None = None,
) -> Iterator[Slab]:
    """Slabs of several sweeps of one volume as one stream of their mean; a single stream as it is.

    Sweeps whose windows have other sizes finish other planes at a time: what all have finished is averaged.

    Args:
        streams: slabs along the same axis, in order.
        num_models: that each stream stands for.
        axis: 0 to 2.
        agreement: gets how far the streams say the same.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    shares = [count / sum(num_models) for count in num_models]
    slabs = [next(stream) for stream in streams]
    begin = 0
    while True:
        num_values = slabs[0].logits.numel() // slabs[0].logits.shape[1 + axis]
        at_most = begin + max(MAX_PART_BYTES // (4 * num_values), 1)
        end = min(at_most, *(slab.planes.stop for slab in slabs))
        parts = [slab.logits.narrow(1 + axis, begin - slab.planes.start, end - begin) for slab in slabs]
        logits = mean_logits(zip(parts, shares, strict=True), dim=0, has_regions=has_regions)
        if agreement is not None:
            agreement.add([agreement.masks(part, 0) for part in parts], agreement.masks(logits, 0))
        yield Slab(planes=slice(begin, end), logits=logits)
        begin = end
        following = [
            next(it, None) if slab.planes.stop == end else slab for it, slab in zip(streams, slabs, strict=True)
        ]
        slabs = [slab for slab in following if slab is not None]
        if len(slabs) < len(streams):  # all end with the volume
            return
