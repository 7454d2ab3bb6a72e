"""Backbones that guess the visual tokens of masked patches (masked image modelling, Luo et al. 2024, section 5.2).

Letters as in `spad_conv`; L patches of an image, row-major over their grid (d, h, w); M masked ones; K tokens.
A patch is PATCH_SIZE pixels wide, and `patch_depth(da)` deep: the grids of the tokenizer, the ViT and the U-Net's
level 4 are the same at any size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..spacing import Shape
from .blocks import PointwiseConv
from .pyramid import block_numbers
from .unet import INPUT_CHANNELS, SpadUNet
from .vit import PATCH_SIZE, SpadViT

TOKEN_LEVEL = 4
"""Of a U-Net's encoder: it has halved four times, a voxel of it to a patch."""
MASK_TOKEN_STD = 0.02


def patch_depth(da: int) -> int:
    """Slices that a patch reaches over: as deep as wide in mm, and never less than one."""
    return max(PATCH_SIZE >> da, 1)


def token_grid(size: Shape, da: int) -> Shape:
    """Patches (d, h, w) of an image of `size` (D, H, W) voxels; those at the far end may hang over it."""
    depth, height, width = size
    return -(-depth // patch_depth(da)), -(-height // PATCH_SIZE), -(-width // PATCH_SIZE)


def make_head(width: int, num_tokens: int) -> nn.Sequential:
    """Features (…, C) to logits (…, K)."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_tokens))


def make_mask_token(width: int) -> nn.Parameter:
    """What stands for a masked patch, (C,)."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=MASK_TOKEN_STD))


class MaskedViT(nn.Module):
    """A ViT that sees a learned token in the place of masked patches; absolute positions are added after."""

    def __init__(self, vit: SpadViT, num_tokens: int):
        super().__init__()
        self.vit = vit
        self.mask_token = make_mask_token(vit.width)
        self.head = make_head(vit.width, num_tokens)

    def forward(self, x: Tensor, da: int, masked: Tensor) -> tuple[Tensor, None]:
        """(B, 3, D, H, W) and bool (B, L) to logits (M, K) of the masked patches, samples in order, row-major."""
        tokens = self.vit(x, da, masked, self.mask_token)  # (B, 1+L, C)
        return self.head(tokens[:, 1:][masked]), None

    def features(self, x: Tensor, da: int) -> list[Tensor]:
        """(B, 3, D, H, W), nothing masked, to the four maps that segmentation takes: (B, C, d, h, w)."""
        return self.vit.features(x, da, block_numbers(len(self.vit.blocks)))


class MaskedUNet(nn.Module):
    """A U-Net that sees a learned colour in the place of masked patches.

    Its encoder guesses the tokens, and its decoder the voxels themselves (He et al. 2022, "Masked autoencoders are
    scalable vision learners"; Tian et al. 2023 for convolutions): tokens alone ask nothing of the finer levels.

    Raises:
        ValueError: if the U-Net has too few levels.
    """

    def __init__(self, unet: SpadUNet, num_tokens: int):
        super().__init__()
        if len(unet.widths) <= TOKEN_LEVEL:
            raise ValueError(f"the U-Net has {len(unet.widths)} levels; a voxel is a patch at level {TOKEN_LEVEL}")
        self.encoder, self.decoder = unet.encoder, unet.decoder
        self.mask_token = make_mask_token(INPUT_CHANNELS)
        self.head = make_head(unet.widths[TOKEN_LEVEL], num_tokens)
        self.to_voxels = PointwiseConv(unet.widths[0], INPUT_CHANNELS)

    def forward(self, x: Tensor, da: int, masked: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, D, H, W) and bool (B, L) to logits (M, K) as of `MaskedViT`, and the whole image (B, 3, D, H, W)."""
        encoded = self.encode(cover(x, da, masked, self.mask_token), da)
        tokens = encoded[TOKEN_LEVEL].flatten(2).transpose(1, 2)  # (B, L, C)
        return self.head(tokens[masked]), self.to_voxels(self.decoder(encoded, da)[0])

    def encode(self, x: Tensor, da: int) -> list[Tensor]:
        """Maps of the encoder.

        Channels last, as a task's channel map leaves them: on a processor in bfloat16 a step takes a third of the time.
        """
        return self.encoder(x.contiguous(memory_format=torch.channels_last_3d), da)

    def features(self, x: Tensor, da: int) -> list[Tensor]:
        """(B, 3, D, H, W), nothing masked, to the decoded maps, finest first: (B, C_n, D_n, H_n, W_n)."""
        return self.decoder(self.encode(x, da), da)


def cover(x: Tensor, da: int, masked: Tensor, colour: Tensor) -> Tensor:
    """The image (B, C, D, H, W) with `colour` (C,) in the place of masked patches (B, L)."""
    return torch.where(voxels_of(masked, x, da), colour.to(x.dtype).view(-1, 1, 1, 1), x)


def voxels_of(masked: Tensor, x: Tensor, da: int) -> Tensor:
    """Masked patches, bool (B, L), as voxels of an image (B, C, D, H, W): bool (B, 1, D, H, W).

    Raises:
        ValueError: if the mask is of another grid than the image's.
    """
    depth, height, width = x.shape[2:]
    grid = token_grid((depth, height, width), da)
    if masked.shape != (len(x), math.prod(grid)):
        raise ValueError(f"masked must be {(len(x), math.prod(grid))} for a grid of {grid}, not {tuple(masked.shape)}")
    voxels = masked.unflatten(1, grid)
    for axis, stride in enumerate((patch_depth(da), PATCH_SIZE, PATCH_SIZE), start=1):
        voxels = voxels.repeat_interleave(stride, axis)
    return voxels[:, None, :depth, :height, :width]
