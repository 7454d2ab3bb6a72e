"""What one dataset owns beside the shared backbone: a map from its channels, and its heads.

Letters as in `spad_conv`; K outputs, classes or regions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .blocks import PointwiseConv
from .unet import INPUT_CHANNELS


class SegmentationTask(nn.Module):
    """A 1×1×1 map from named channels to the backbone's three, and a 1×1×1 head for each supervised level.

    The map starts as the mean over channels, replicated: one grey channel enters the backbone three times. It is
    linear, so a missing channel, which is 0, adds nothing. A case with one channel of three thus enters at a third of
    that channel's strength; nothing is scaled, since the norm of the backbone's stem takes any factor out again.

    Args:
        widths: channels of the backbone's decoded maps, finest first.
    """

    def __init__(self, num_channels: int, num_outputs: int, widths: Sequence[int]):
        super().__init__()
        self.channel_map = PointwiseConv(num_channels, INPUT_CHANNELS)
        nn.init.constant_(self.channel_map.weight, 1 / num_channels)
        nn.init.zeros_(self.channel_map.bias)
        self.heads = nn.ModuleList(PointwiseConv(width, num_outputs) for width in widths)


class SegmentationNetwork(nn.Module):
    """A backbone with one task: the network that one dataset sees."""

    def __init__(self, backbone: nn.Module, task: SegmentationTask):
        super().__init__()
        self.backbone, self.task = backbone, task

    def forward(self, x: Tensor, da: int) -> Tensor:
        """(B, C, D, H, W) in [-1, 1] to logits (B, K, D, H, W)."""
        features = self.backbone(self.task.channel_map(x), da)
        return self.task.heads[0](features[0])

    def deep_logits(self, x: Tensor, da: int) -> list[Tensor]:
        """Logits of the supervised levels, finest first: (B, K, D_n, H_n, W_n)."""
        features = self.backbone(self.task.channel_map(x), da)
        supervised = features[: len(self.task.heads)]
        return [head(feature) for head, feature in zip(self.task.heads, supervised, strict=True)]
