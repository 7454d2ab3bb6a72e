"""SPAD U-Net: residual encoder and decoder from SPAD blocks, one structure for every spacing.

Letters as in `spad_conv`. Level n has been halved n times in plane; `widths[n]` are its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import ConvNormAct, ResidualBlock
from .spad_conv import SpadConv, SpadConvTranspose

INPUT_CHANNELS = 3  # a task's channel map brings any image to these


class Stage(nn.Module):
    """Residual blocks at one level."""

    def __init__(self, in_channels: int, out_channels: int, *, num_blocks: int, level: int):
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, level=level) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, I, D, H, W) to (B, O, D, H, W)."""
        for block in self.blocks:
            x = block(x, da)
        return x


class Encoder(nn.Module):
    """Stem and one stage a level; each halving is a k2s2 SPAD convolution."""

    def __init__(self, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        levels = range(len(widths))
        self.stem = ConvNormAct(INPUT_CHANNELS, widths[0], level=0)
        self.stages = nn.ModuleList(Stage(widths[n], widths[n], num_blocks=num_blocks[n], level=n) for n in levels)
        self.downs = nn.ModuleList(SpadConv(widths[n], widths[n + 1], kernel=2, stride=2, level=n) for n in levels[:-1])

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        """(B, 3, D, H, W) to one map a level, finest first: (B, widths[n], D_n, H_n, W_n)."""
        x = self.stages[0](self.stem(x, da), da)
        features = [x]
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            x = stage(down(x, da), da)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Doubles by k2s2 transposed SPAD convolutions, joins the encoder's map, one residual block a level.

    A level where the encoder has no block (the finest of `tiny`, where it would cost most) has a single convolution.
    """

    def __init__(self, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        levels = range(len(widths) - 1)
        self.ups = nn.ModuleList(
            SpadConvTranspose(widths[n + 1], widths[n], kernel=2, stride=2, level=n) for n in levels
        )
        self.blocks = nn.ModuleList(
            (ResidualBlock if num_blocks[n] else ConvNormAct)(2 * widths[n], widths[n], level=n) for n in levels
        )

    def forward(self, features: list[Tensor], da: int) -> list[Tensor]:
        """One map a level, finest first, to decoded maps of the same shapes without the deepest."""
        x = features[-1]
        decoded: list[Tensor] = []
        for level in reversed(range(len(self.ups))):
            skip = features[level]
            depth, height, width = skip.shape[2:]
            x = self.ups[level](x, da)[:, :, :depth, :height, :width]
            x = self.blocks[level](torch.cat([x, skip], dim=1), da)
            decoded.append(x)
        return decoded[::-1]


class SpadUNet(nn.Module):
    """The backbone shared by all datasets: `forward(x, da)` gives decoded maps, finest first.

    Args:
        widths: channels by level; len(widths) - 1 in-plane halvings.
        num_blocks: residual blocks by level of the encoder.
    """

    def __init__(self, widths: Sequence[int], num_blocks: Sequence[int]):
        super().__init__()
        self.widths = tuple(widths)
        self.encoder = Encoder(widths, num_blocks)
        self.decoder = Decoder(widths, num_blocks)

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        """(B, 3, D, H, W), any size ≥ 1, to [(B, widths[n], D_n, H_n, W_n)] with n = 0 the input's grid."""
        return self.decoder(self.encoder(x, da), da)

    def maps_and_tokens(self, x: Tensor, da: int) -> tuple[list[Tensor], Tensor]:
        """Decoded maps, and the encoder's deepest one as tokens (B, d·h·w, C), in one pass: for a segmentation and a
        classification of the same image."""
        features = self.encoder(x, da)
        return self.decoder(features, da), features[-1].flatten(2).transpose(1, 2)
