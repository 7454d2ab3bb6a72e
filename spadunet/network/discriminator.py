"""A SPAD patch discriminator: which parts of an image look real. Letters as in `spad_conv`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from .blocks import LEAKY_SLOPE
from .norm import GroupNorm
from .spad_conv import SpadConv
from .unet import INPUT_CHANNELS

NUM_GROUPS = 16


class SpadDiscriminator(nn.Module):
    """Three halvings (k3s2), a k3s1 stage, and a k3s1 convolution to one logit for each 8×8 pixels (Isola et al. 2017).

    Its depth reach follows the spacing as everywhere else, so that a thick slice is judged by itself.

    Args:
        widths: channels after each halving; multiples of 16.
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        inputs = [INPUT_CHANNELS, *widths]
        outputs = [*widths, widths[-1]]
        strides = [2] * len(widths) + [1]
        self.convs = nn.ModuleList(
            SpadConv(i, o, kernel=3, stride=stride, level=level)
            for level, (i, o, stride) in enumerate(zip(inputs, outputs, strides, strict=True))
        )
        self.norms = nn.ModuleList(GroupNorm(NUM_GROUPS, width) for width in outputs)
        self.to_logit = SpadConv(widths[-1], 1, kernel=3, stride=1, level=len(widths))

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, 3, D, H, W), any size ≥ 1, to logits (B, 1, d, h, w): above zero where it looks real."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.leaky_relu(norm(conv(x, da)), LEAKY_SLOPE, inplace=True)
        return self.to_logit(x, da)
