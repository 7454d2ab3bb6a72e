"""Compilation of SPAD networks: one graph for each degree of anisotropy, none left to eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.config
from torch import nn

# Seven degrees of anisotropy, with and without gradients, a few crop sizes and networks. PyTorch stops at 8.
MAX_NUM_GRAPHS = 256


def compile_network(network: nn.Module, *, backend: str = "inductor") -> Callable[..., Any]:
    """The network as a compiled function of (x, da), to be called as the network itself.

    As `compile_in_place` has it, but the network itself stays as it is.
    """
    make_room()
    return torch.compile(network, backend=backend, fullgraph=True, dynamic=False)


def compile_in_place(network: nn.Module, *, backend: str = "inductor") -> None:
    """From now on the network itself runs compiled when it is called as `network(x, da)`; its weights keep their names.

    `da` is a Python integer, so every degree is a graph of its own, built when it is first met; so is every size.
    PyTorch's recompile limit is raised for the whole process to make room for them. A graph break, or one graph too
    many, raises instead of running slowly: nothing falls back to eager mode.
    """
    make_room()
    network.compile(backend=backend, fullgraph=True, dynamic=False)


def make_room() -> None:
    """Raise PyTorch's limits of graphs."""
    limits = torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, MAX_NUM_GRAPHS)
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, MAX_NUM_GRAPHS)
