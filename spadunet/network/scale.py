"""The size of weights in front of a norm: it changes nothing that a network computes, but how fast it learns.

A norm takes out the size of what comes in, so the convolution before it may be scaled at will (van Laarhoven 2017, "L2
regularization versus batch and weight normalization"). AdamW's steps are as long for large weights as for small ones,
and weights grow while they learn: trained ones, being several times larger, turn several times slower than fresh ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from .blocks import ConvNormAct, ResidualBlock


def normed_weights(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and weight of every convolution whose output goes to a norm and nowhere else."""
    for name, module in network.named_modules():
        if isinstance(module, ConvNormAct | ResidualBlock):
            yield f"{name}.conv.weight", module.conv.weight


def sizes_of(network: nn.Module) -> dict[str, float]:
    """Euclidean norm of each of `normed_weights`."""
    return {name: float(weight.detach().norm()) for name, weight in normed_weights(network)}


@torch.no_grad()
def shrink(network: nn.Module, sizes: Mapping[str, float]) -> float:
    """Scale those of `normed_weights` down that are larger than their size here.

    What the network computes stays the same but for rounding and the norms' epsilon; smaller weights, beside which that
    epsilon would count, are left as they are.

    Returns:
        How many times too large the largest was; 1 if none was.
    """
    most = 1.0
    for name, weight in normed_weights(network):
        excess = float(weight.norm()) / sizes[name] if sizes.get(name) else 1.0
        if excess > 1:
            weight.div_(excess)
            most = max(most, excess)
    return most
