"""Which experts count for an image: a soft router, and where adapted layers find what it said.

Yoo et al. 2026, "Specializing foundation models via mixture of low-rank experts for comprehensive head CT analysis"
(arXiv 2603.00675): softmax of a linear map of the pooled token, learned without any label of its own. Letters: B batch,
C channels, K experts.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Router(nn.Module):
    """Softmax of a linear map of the pooled token.

    The token is normed without parameters, since embeddings of backbones differ much in size. All experts count the
    same at first; their own random factors tell them apart.
    """

    def __init__(self, width: int, num_experts: int):
        super().__init__()
        self.to_experts = nn.Linear(width, num_experts)
        nn.init.zeros_(self.to_experts.weight)
        nn.init.zeros_(self.to_experts.bias)

    def forward(self, token: Tensor) -> Tensor:
        """(B, C) to gates (B, K), which sum to one."""
        return self.to_experts(functional.layer_norm(token, token.shape[-1:])).softmax(-1)


class Routing(threading.local):
    """The gates of the forward pass that goes on, one a thread: threads that share a network do not disturb each other.

    The layer that makes the gates writes them, all layers after it read them. They stay until the next pass. Where
    activations are computed anew for the backward pass (`torch.utils.checkpoint`), perhaps in another thread, the part
    that is run again must begin with the layer that makes them, as a whole network does.
    """

    gates: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Routing:
        """Of a copied network: empty."""
        return Routing()

    def read(self) -> Tensor:
        """Gates (B, K).

        Raises:
            RuntimeError: if none were made in this thread.
        """
        if self.gates is None:
            raise RuntimeError(
                "an adapted layer was run before the router; run the network from its patch embedding or stem on, "
                "also where a checkpoint runs it again"
            )
        return self.gates


def expert_use(gates: Tensor) -> Tensor:
    """What each expert counts on average over images: (B, K) to (K,), which sum to one."""
    return gates.mean(0)


def measures_of(use: Tensor, entropy: Tensor) -> dict[str, float]:
    """Columns of curves: what each expert counts, `expert_1` and so on, and the router's entropy.

    Args:
        use: (K,), as `expert_use` gives it.
        entropy: one number, the mean of `router_entropy`.
    """
    shares = {f"expert_{number}": share for number, share in enumerate(use.tolist(), start=1)}
    return {**shares, "router_entropy": float(entropy)}


def router_entropy(gates: Tensor) -> Tensor:
    """Of each image's gates, in nats: (B, K) to (B,). From 0, one expert alone, to ln K, all the same."""
    return -torch.special.xlogy(gates, gates).sum(1)
