"""Many classes from few features: where a head is linear, windows' features are added up instead of their logits.

The last layer is a 1×1×1 map: a weighted mean of logits is the same map of the weighted mean of features. So what is
added up grows with the features' channels, and logits are made of it once, some planes at a time.

Letters: C channels of features; K outputs; D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..network.blocks import PointwiseConv
from ..network.heads import SegmentationNetwork

MAX_PART_BYTES = 1 << 24
"""Of the logits that are made at once, unless one plane takes more."""


def with_features(network: nn.Module) -> SegmentationNetwork | None:
    """The network itself, if its features have fewer channels than its outputs are."""
    if isinstance(network, SegmentationNetwork) and network.head.in_channels < network.head.out_channels:
        return network
    return None


@torch.inference_mode()
def logits_in_parts(features: Tensor, head: PointwiseConv, axis: int) -> Iterator[Tensor]:
    """Logits (K, D, H, W) of features (C, D, H, W), some planes of an axis (0 to 2) at a time; where the head is."""
    num_values = head.out_channels * features[0].numel() // features.shape[1 + axis]
    for part in features.split(max(MAX_PART_BYTES // (4 * num_values), 1), 1 + axis):
        columns = part.to(head.weight.device).flatten(1).float()  # (C, D*H*W)
        logits = torch.addmm(head.bias[:, None], head.weight, columns)
        yield logits.view(-1, *part.shape[1:])
