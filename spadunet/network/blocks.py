"""Building blocks of the SPAD U-Net. Letters as in `spad_conv`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .norm import GroupNorm
from .spad_conv import SpadConv, reset_parameters

NUM_GROUPS = 8
LEAKY_SLOPE = 0.01


class PointwiseConv(nn.Module):
    """1×1×1 convolution as a matrix product, the same at every spacing.

    Not `nn.Conv3d`: oneDNN's bfloat16 weight gradient of a 1×1×1 convolution with few output channels does not
    return on processors with AMX (seen with torch 2.13.0, 16 to 3 channels on 8×128×128 voxels).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        reset_parameters(self.weight, self.bias, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, D, H, W) to (B, O, D, H, W)."""
        return functional.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


class ConvNormAct(nn.Module):
    """k3s1 SPAD convolution, GroupNorm, LeakyReLU. GroupNorm, since it is defined on a single voxel."""

    def __init__(self, in_channels: int, out_channels: int, *, level: int):
        super().__init__()
        self.conv = SpadConv(in_channels, out_channels, kernel=3, stride=1, level=level, bias=False)
        self.norm = GroupNorm(NUM_GROUPS, out_channels)

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, I, D, H, W) to (B, O, D, H, W)."""
        return self.finish(self.conv(x, da))

    def finish(self, y: Tensor) -> Tensor:
        """What follows the convolution, of its output (B, O, D, H, W)."""
        return functional.leaky_relu(self.norm(y), LEAKY_SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """Two k3s1 convolutions with a shortcut (He et al. 2016); a 1×1×1 map on it where the width changes."""

    def __init__(self, in_channels: int, out_channels: int, *, level: int):
        super().__init__()
        self.first = ConvNormAct(in_channels, out_channels, level=level)
        self.conv = SpadConv(out_channels, out_channels, kernel=3, stride=1, level=level, bias=False)
        self.norm = GroupNorm(NUM_GROUPS, out_channels)
        is_same = in_channels == out_channels
        self.shortcut = nn.Identity() if is_same else PointwiseConv(in_channels, out_channels)

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, I, D, H, W) to (B, O, D, H, W)."""
        y = self.norm(self.conv(self.first(x, da), da))
        return functional.leaky_relu(y + self.shortcut(x), LEAKY_SLOPE)
