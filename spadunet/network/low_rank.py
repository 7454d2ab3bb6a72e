"""Low-rank changes of frozen layers, one or a mixture of several (LoRA; experts).

Hu et al. 2022, "LoRA: Low-rank adaptation of large language models": a layer's weight is W + B A, with A and B of a few
ranks, and B zero at first. Of a SPAD convolution the change is a sum over ranks of output × input × tap factors:
sum_r B[o, r] A[r, i] T[r, t] (a CP decomposition, by which Lebedev et al. 2015 speed convolutions up). Like the weight,
it is pooled over depth taps where halvings are pending; pooling is linear, so the layer becomes that of W + change.

Letters as in `spad_conv`; K experts, R ranks of all experts, those of the first expert first.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .routing import Routing
from .spad_conv import SpadConv, SpadConvTranspose

Layer = nn.Linear | SpadConv | SpadConvTranspose


class LowRank(nn.Module):
    """The change of one layer: zero when fresh, whatever the input.

    Its factors are not called `weight`, and so go without weight decay (`decay.parameter_groups`). There is no factor
    alpha, which does no more than the learning rate (Hu et al. 2022, section 4.1).

    Args:
        layer: gives the shapes; not kept and not changed.
        rank: of each expert.
    """

    def __init__(self, layer: Layer, rank: int, num_experts: int = 1):
        super().__init__()
        self.rank, num_ranks = rank, rank * num_experts
        is_transposed, shape = isinstance(layer, SpadConvTranspose), layer.weight.shape
        num_in, num_out = (shape[0], shape[1]) if is_transposed else (shape[1], shape[0])
        num_taps = math.prod(shape[2:])
        num_seen = num_taps // layer.stride**3 if isinstance(layer, SpadConvTranspose) else num_taps
        bound = 1 / math.sqrt(num_in * num_seen)  # with taps of variance one as a fresh layer's weight
        self.down = nn.Parameter(torch.empty(num_ranks, num_in).uniform_(-bound, bound))
        self.taps = nn.Parameter(torch.randn(num_ranks, *shape[2:])) if shape[2:] else None
        self.up = nn.Parameter(torch.zeros(num_out, num_ranks))

    def reduce_linear(self, x: Tensor) -> Tensor:
        """(B, …, I) to (B, …, R)."""
        return functional.linear(x, self.down)

    def reduce(self, x: Tensor, da: int, layer: SpadConv | SpadConvTranspose) -> Tensor:
        """What a convolution sees, (B, I, D, H, W), to (B, D', H', W', R) on the grid of its output."""
        return layer.convolve(x, da, self.kernel(layer), None).movedim(1, -1)

    def expand(self, reduced: Tensor, gates: Tensor | None) -> Tensor:
        """(B, …, R) to (B, …, O); gates (B, K) say what each expert counts for each image, none are one."""
        if gates is not None:
            factors = gates.to(reduced.dtype).repeat_interleave(self.rank, dim=1)  # (B, R)
            reduced = reduced * factors.view(len(factors), *[1] * (reduced.ndim - 2), -1)
        return functional.linear(reduced, self.up)

    def kernel(self, layer: SpadConv | SpadConvTranspose) -> Tensor:
        """Kernel to R channels, in the order of axes of the layer's own: (R, I, k, k, k), or (I, R, k, k, k)."""
        assert self.taps is not None
        kernel = self.down[:, :, None, None, None] * self.taps[:, None]
        return kernel.transpose(0, 1) if isinstance(layer, SpadConvTranspose) else kernel

    def change_of(self, layer: Layer) -> Tensor:
        """What the change adds to the layer's weight, of its shape: that of a single expert."""
        if self.taps is None:
            return self.up @ self.down
        order = "iodhw" if isinstance(layer, SpadConvTranspose) else "oidhw"
        return torch.einsum(f"or,ri,rdhw->{order}", self.up, self.down, self.taps)


class AdaptedLinear(nn.Module):
    """A linear map with a low-rank change."""

    def __init__(self, layer: nn.Linear, low_rank: LowRank, routing: Routing | None):
        super().__init__()
        self.layer, self.low_rank, self.routing = layer, low_rank, routing

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, I) to (B, …, O)."""
        gates = None if self.routing is None else self.routing.read()
        return self.layer(x) + self.low_rank.expand(self.low_rank.reduce_linear(x), gates)


class AdaptedConv(nn.Module):
    """A SPAD convolution, transposed or not, with a low-rank change.

    The change is a narrow convolution beside the layer's own, not added to its kernel: so no gradient of a whole kernel
    is needed, and each image can have gates of its own.
    """

    def __init__(self, layer: SpadConv | SpadConvTranspose, low_rank: LowRank, routing: Routing | None):
        super().__init__()
        self.layer, self.low_rank, self.routing = layer, low_rank, routing

    def forward(self, x: Tensor, da: int) -> Tensor:
        """As the layer."""
        gates = None if self.routing is None else self.routing.read()
        return self.layer(x, da) + change(self.low_rank, x, da, self.layer, gates)


def change(low_rank: LowRank, x: Tensor, da: int, layer: SpadConv | SpadConvTranspose, gates: Tensor | None) -> Tensor:
    """What the change adds to a convolution's output (B, O, D', H', W')."""
    return low_rank.expand(low_rank.reduce(x, da, layer), gates).movedim(-1, 1)
