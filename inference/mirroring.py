"""Test-time mirroring: the mean over an image's mirror images, in which left is right."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor

from ..preprocessing.mirror import MirrorAxis
from .confidence import Agreement
from .sliding import Network


def with_mirroring(network: Network, axes: Sequence[MirrorAxis], agreement: Agreement | None = None) -> Network:
    """The mean of a network's logits over all combinations of mirrored axes; the network itself where there is none.

    Each view's logits are turned back, and outputs that change places in the mirror change back.

    Args:
        agreement: gets how far the views say the same.
    """
    views = [chosen for size in range(1, len(axes) + 1) for chosen in itertools.combinations(axes, size)]

    def predict(x: Tensor, da: int) -> Tensor:
        total = network(x, da)  # (B, K, D, H, W)
        masks = [agreement.masks(total, 1)] if agreement is not None else []
        for view in views:
            dims = [axis.array_axis - 3 for axis in view]
            logits = network(x.flip(dims), da).flip(dims)
            for axis in view:
                logits = logits[:, list(axis.labels.outputs)]
            masks += [agreement.masks(logits, 1)] if agreement is not None else []
            total = total + logits
        mean = total / (len(views) + 1)
        if agreement is not None:
            agreement.add(masks, agreement.masks(mean, 1))
        return mean

    return predict if views else network
