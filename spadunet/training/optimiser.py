"""The optimiser of a training run."""

from __future__ import annotations

import torch
from torch import nn

from ..network.decay import parameter_groups


def make_optimiser(
    network: nn.Module, learning_rate: float, weight_decay: float, *, spares_vectors: bool
) -> torch.optim.AdamW:
    """AdamW over all parameters.

    Args:
        spares_vectors: weight decay leaves out norms, biases, tokens and positions.
    """
    groups = parameter_groups(network, weight_decay) if spares_vectors else network.parameters()
    return torch.optim.AdamW(groups, lr=learning_rate, weight_decay=weight_decay, fused=True)
