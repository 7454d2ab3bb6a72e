"""What one dataset owns beside the shared backbone: a map from its channels, and its heads.

Letters as in `spad_conv`; K outputs, classes or regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from .blocks import PointwiseConv
from .unet import INPUT_CHANNELS


def make_channel_map(num_channels: int, *, is_colour: bool = False) -> PointwiseConv:
    """From named channels to the backbone's three: the mean over channels, replicated, so that one grey channel enters
    the backbone three times.

    Args:
        is_colour: the channels are red, green and blue, and enter as they are.
    """
    channel_map = PointwiseConv(num_channels, INPUT_CHANNELS)
    if is_colour:
        assert num_channels == INPUT_CHANNELS
        nn.init.eye_(channel_map.weight)
    else:
        nn.init.constant_(channel_map.weight, 1 / num_channels)
    nn.init.zeros_(channel_map.bias)
    return channel_map


def enter(x: Tensor, channel_map: PointwiseConv) -> Tensor:
    """(B, C, D, H, W) in [-1, 1], 0 where a channel is missing, to what the backbone sees, (B, 3, D, H, W).

    A channel that a case lacks is 0 everywhere, which no channel that is there can be; it adds nothing, and what the
    others add is scaled up, as if the map had been the mean over these alone. (GroupNorm in the U-Net's stem would take
    a factor out again, but for the map's bias; the SPAD-ViT adds positions to its patches and has no such norm.)
    """
    num_channels = x.shape[1]
    if num_channels > 1:
        num_there = x.detach().flatten(2).any(2).sum(1).clamp_min(1)  # (B,)
        x = x * (num_channels / num_there).to(x.dtype).view(-1, 1, 1, 1, 1)
    return channel_map(x)


class SegmentationTask(nn.Module):
    """A 1×1×1 map from named channels to the backbone's three, and a 1×1×1 head for each supervised level.

    Args:
        widths: channels of the backbone's decoded maps, finest first.
        is_colour: as `make_channel_map` takes it.
    """

    def __init__(self, num_channels: int, num_outputs: int, widths: Sequence[int], *, is_colour: bool = False):
        super().__init__()
        self.channel_map = make_channel_map(num_channels, is_colour=is_colour)
        self.heads = nn.ModuleList(PointwiseConv(width, num_outputs) for width in widths)

    def enter(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in [-1, 1], 0 where a channel is missing, to what the backbone sees, (B, 3, D, H, W)."""
        return enter(x, self.channel_map)


class SegmentationNetwork(nn.Module):
    """A backbone with one task: the network that one dataset sees."""

    def __init__(self, backbone: nn.Module, task: SegmentationTask):
        super().__init__()
        self.backbone, self.task = backbone, task

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, C, D, H, W) in [-1, 1] to logits (B, K, D, H, W)."""
        return self.head(self.features(x, da))

    def features(self, x: Tensor, da: int) -> Tensor:
        """(B, C, D, H, W) to the finest decoded map, of which `head` makes the logits."""
        return self.backbone(self.task.enter(x), da)[0]

    @property
    def head(self) -> PointwiseConv:
        """Of the finest level, linear in each voxel."""
        return cast("PointwiseConv", self.task.heads[0])

    def deep_logits(self, x: Tensor, da: int) -> list[Tensor]:
        """Logits of the supervised levels, finest first: (B, K, D_n, H_n, W_n)."""
        features = self.backbone(self.task.enter(x), da)
        supervised = features[: len(self.task.heads)]
        return [head(feature) for head, feature in zip(self.task.heads, supervised, strict=True)]
