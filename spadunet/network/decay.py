"""Which parameters weight decay pulls towards zero."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser, trainable parameters only: with and without weight decay.

    Decay is for the matrices and kernels, of linear maps and convolutions: parameters called `weight` with at least
    two axes. Biases, norms, embeddings and single tokens and positions, which are called otherwise, have no scale that
    a later layer takes up, and go without.
    """
    embeddings = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_kernel = name.rpartition(".")[2] == "weight" and parameter.ndim >= 2 and id(parameter) not in embeddings
        (decayed if is_kernel else kept).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
