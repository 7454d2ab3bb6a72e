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
def resize(network: nn.Module, sizes: Mapping[str, float]) -> None:
    """Scale those of `normed_weights` that have a size here; what the network computes is the same but for rounding.

    A weight that is all zero stays so.
    """
    for name, weight in normed_weights(network):
        if name in sizes:
            weight.mul_(sizes[name] / weight.norm().clamp(min=torch.finfo(weight.dtype).tiny))
