"""Segmentation from SPAD-ViT: a pyramid of maps from its tokens, fine maps from convolutions, the U-Net's decoder.

Letters as in `spad_conv`. Level n has been halved n times in plane; tokens lie on level 4. Every map is cropped to the
size that halving with rounding up gives, as in the U-Net, so that any size of at least one voxel is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor, nn
from torch.nn import functional

from ..spacing import Shape
from .blocks import LEAKY_SLOPE, NUM_GROUPS, PointwiseConv
from .norm import GroupNorm
from .spad_conv import SpadConvTranspose, num_pending
from .unet import Decoder, Encoder
from .vit import SpadViT

TOKEN_LEVEL = 4
NUM_LEVELS = 6
BLOCK_SHARES = (Fraction(1, 3), Fraction(1, 2), Fraction(2, 3), Fraction(1))
"""Of the depth: after blocks 4, 6, 8 and 12 of 12, or 8, 12, 16 and 24 of 24, as SPAD-Nets' segmentation takes them."""


def block_numbers(depth: int) -> tuple[int, ...]:
    """Numbers, from 0, of the blocks whose tokens become levels 2, 3, 4 and 5."""
    return tuple(max(round(depth * share), 1) - 1 for share in BLOCK_SHARES)


def level_sizes(size: Shape, da: int, num_levels: int) -> list[Shape]:
    """Sizes (D, H, W) by level: halved and rounded up, in depth only where no halving is pending."""
    sizes = [size]
    for level in range(num_levels - 1):
        depth, height, width = sizes[-1]
        sizes.append((depth if num_pending(da, level) else -(-depth // 2), -(-height // 2), -(-width // 2)))
    return sizes


def crop(x: Tensor, size: Shape) -> Tensor:
    """The first voxels of (B, C, D, H, W) along each axis."""
    return x[:, :, : size[0], : size[1], : size[2]]


def halve(x: Tensor, da: int) -> Tensor:
    """Maximum of 2×2×2 voxels of level 4, of 1×2×2 where depth is pending; sizes are rounded up."""
    depth = 1 if num_pending(da, TOKEN_LEVEL) else 2
    return functional.max_pool3d(x, (depth, 2, 2), ceil_mode=True)


class Lateral(nn.Module):
    """1×1×1 convolution to the decoder's width, GroupNorm, LeakyReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = PointwiseConv(in_channels, out_channels)
        self.norm = GroupNorm(NUM_GROUPS, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, D, H, W) to (B, O, D, H, W)."""
        return functional.leaky_relu(self.norm(self.conv(x)), LEAKY_SLOPE)


class Pyramid(nn.Module):
    """Tokens of four blocks to maps of levels 2, 3, 4 and 5: doubled twice, doubled, as they are, and halved.

    GroupNorm first, since blocks differ much in scale, and since it is defined on a single token.

    Args:
        width: channels of the tokens.
        widths: channels of the four maps.
    """

    def __init__(self, width: int, widths: Sequence[int]):
        super().__init__()
        self.norms = nn.ModuleList(GroupNorm(NUM_GROUPS, width) for _ in widths)
        self.double_first, self.double_again, self.double_second = (
            SpadConvTranspose(width, width, kernel=2, stride=2, level=level) for level in (3, 2, 3)
        )
        self.norm_between = GroupNorm(NUM_GROUPS, width)
        self.laterals = nn.ModuleList(Lateral(width, out) for out in widths)

    def forward(self, tokens: Sequence[Tensor], da: int, sizes: Sequence[Shape]) -> list[Tensor]:
        """Four maps (B, C, d, h, w), of the earliest block first, to (B, widths[i], *sizes[i]), finest first."""
        first, second, third, fourth = (norm(x) for norm, x in zip(self.norms, tokens, strict=True))
        first = functional.gelu(self.norm_between(crop(self.double_first(first, da), sizes[1])))
        maps = (
            crop(self.double_again(first, da), sizes[0]),
            crop(self.double_second(second, da), sizes[1]),
            third,
            halve(fourth, da),
        )
        return [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]


class SpadViTUNet(nn.Module):
    """A backbone for segmentation, as `SpadUNet`: `forward(x, da)` gives decoded maps, finest first.

    A pre-trained SPAD-ViT is its submodule `vit`; its patch embedding stays adaptive, so that one set of weights
    serves every spacing.

    Args:
        widths: channels by level, six of them.
        num_blocks: residual blocks of the convolution path on levels 0 and 1; a level without one has a single
            convolution, in the decoder too.
    """

    def __init__(self, vit: SpadViT, widths: Sequence[int], num_blocks: Sequence[int] = (1, 1)):
        super().__init__()
        assert len(widths) == NUM_LEVELS
        self.widths = tuple(widths)
        self.vit = vit
        self.vit.norm.requires_grad_(False)  # of the final tokens, which no level takes: kept for its weights alone
        self.blocks = block_numbers(len(vit.blocks))
        self.full_resolution = Encoder(widths[:2], num_blocks)
        self.pyramid = Pyramid(vit.width, widths[2:])
        self.decoder = Decoder(widths, (*num_blocks, *(1 for _ in widths[2:])))

    def forward(self, x: Tensor, da: int) -> list[Tensor]:
        """(B, 3, D, H, W), any size ≥ 1, to [(B, widths[n], D_n, H_n, W_n)] with n = 0 the input's grid."""
        return self.decode(x, self.vit.features(x, da, self.blocks), da)

    def maps_and_tokens(self, x: Tensor, da: int) -> tuple[list[Tensor], Tensor]:
        """Decoded maps, and the ViT's final normed tokens (B, 1 + d·h·w, C), in one pass: for a segmentation and a
        classification of the same image."""
        features, tokens = self.vit.features_and_tokens(x, da, self.blocks)
        return self.decode(x, features, da), tokens

    def decode(self, x: Tensor, features: Sequence[Tensor], da: int) -> list[Tensor]:
        """An image (B, 3, D, H, W) and its ViT's `features` to decoded maps, finest first."""
        depth, height, width = x.shape[2:]
        sizes = level_sizes((depth, height, width), da, NUM_LEVELS)
        return self.decoder([*self.full_resolution(x, da), *self.pyramid(features, da, sizes[2:])], da)
