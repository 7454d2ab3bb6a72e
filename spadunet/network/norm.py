"""GroupNorm with a gradient that is fast in the channels-last layout on a CPU.

There PyTorch's own backward pass takes longer than the convolution before it (measured: 2.13.0, `make bench`). Letters:
B batch, S voxels, C channels, G groups.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

ROW_VOXELS = 64
"""Voxels joined into one row, so that a product with one factor a channel runs over long rows."""


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` in values and parameters (Wu and He 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape and layout."""
        if x.device.type == "cpu" and torch.is_grad_enabled() and is_channels_last(x):
            return ChannelsLastGroupNorm.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


def is_channels_last(x: Tensor) -> bool:
    """True for (B, C, D, H, W) stored as B, D, H, W, C, and not at the same time as B, C, D, H, W."""
    return x.is_contiguous(memory_format=torch.channels_last_3d) and not x.is_contiguous()


class ChannelsLastGroupNorm(torch.autograd.Function):
    """GroupNorm forward by PyTorch; backward by sums over voxels and one fused product-sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, num_groups: int, eps: float) -> Tensor:
        """(B, C, D, H, W), (C,), (C,) to (B, C, D, H, W)."""
        batch, channels = x.shape[:2]
        x = as_rows(x).unflatten(1, x.shape[2:]).movedim(-1, 1)  # PyTorch wants the usual stride of a single slice too
        num_voxels = x[0, 0].numel()
        y, mean, scale = torch.native_group_norm(x, weight, bias, batch, channels, num_voxels, num_groups, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, weight, mean, scale = ctx.saved_tensors
        (batch, groups), channels = mean.shape, x.shape[1]
        g = as_rows(gradients[0])  # (B, S, C)
        rows = as_rows(x)
        num_voxels = rows.shape[1]
        count = num_voxels * channels // groups
        ones = torch.ones((batch, 1, num_voxels), dtype=g.dtype)
        accurate = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean, scale = (value.to(accurate).view(batch, groups, 1) for value in (mean, scale))
        sum_g = torch.bmm(ones, g).to(accurate).view(batch, groups, -1)  # (B, G, C/G)
        sum_gx = diagonal_of_product(g, rows).to(accurate).view(batch, groups, -1)  # (B, G, C/G)
        sum_g_normed = (sum_gx - mean * sum_g) * scale  # (B, G, C/G)
        gain = weight.to(accurate).view(1, groups, -1)
        first = (gain * sum_g).sum(2, keepdim=True) / count
        second = (gain * sum_g_normed).sum(2, keepdim=True) / count
        factor_x = -second * scale.square()
        offset = -first * scale - factor_x * mean
        shape = (batch, groups, channels // groups)
        gradient = combine(
            g, (gain * scale).expand(shape), rows, factor_x.expand(shape), offset.expand(shape)
        )  # (B, S, C)
        gradient = gradient.unflatten(1, x.shape[2:]).movedim(-1, 1)  # (B, C, D, H, W)
        weight_gradient = sum_g_normed.sum(0).view(channels).to(weight.dtype)
        return gradient, weight_gradient, sum_g.sum(0).view(channels).to(weight.dtype), None, None


def as_rows(x: Tensor) -> Tensor:
    """(B, C, D, H, W) to (B, S, C); a view where the layout is channels-last."""
    return x.movedim(1, -1).flatten(1, 3)


def diagonal_of_product(a: Tensor, b: Tensor) -> Tensor:
    """Sums over voxels of a * b by channel: (B, S, C) twice to (B, C)."""
    return torch.bmm(a.transpose(1, 2), b).diagonal(dim1=1, dim2=2)


def combine(a: Tensor, factor_a: Tensor, b: Tensor, factor_b: Tensor, offset: Tensor) -> Tensor:
    """a * factor_a + b * factor_b + offset: (B, S, C) with factors (B, G, C/G) for each channel."""
    batch, num_voxels, channels = a.shape
    joined = math.gcd(num_voxels, ROW_VOXELS)

    def tile(factor: Tensor) -> Tensor:
        return factor.reshape(batch, 1, channels).to(a.dtype).repeat(1, 1, joined)  # (B, 1, joined*C)

    rows_a, rows_b = (value.reshape(batch, -1, joined * channels) for value in (a, b))
    result = torch.addcmul(tile(offset), rows_a, tile(factor_a)).addcmul_(rows_b, tile(factor_b))
    return result.view(batch, num_voxels, channels)
