"""Several tasks of one model that classify: studies are read once, and where they see the same, encoded once.

Each task pools the same tokens by its own weights, so its probabilities are those of the task alone, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..network.classify import ClassificationNetwork, final_tokens
from .class_sources import ClassSource
from .shared import have_one_map


class SharedTokens:
    """The final tokens of each view of a batch, computed once for all tasks whose channel maps make the same of it."""

    def __init__(self) -> None:
        self.known: list[tuple[nn.Module, Tensor, int, Tensor]] = []

    def __call__(self, backbone: nn.Module, x: Tensor, da: int) -> Tensor:
        """As `final_tokens`."""
        for other, seen, seen_da, tokens in self.known:
            is_alike = other is backbone and seen_da == da and seen.dtype == x.dtype
            if is_alike and torch.equal(seen, x):
                return tokens
        tokens = final_tokens(backbone, x, da)
        self.known.append((backbone, x, da, tokens))
        return tokens

    def forget(self) -> None:
        """Free the memory of a batch."""
        self.known.clear()


def with_tokens(source: ClassSource, shared: SharedTokens) -> ClassSource:
    """The same task, whose network asks for its tokens here."""
    network = source.network
    if not isinstance(network, ClassificationNetwork):
        return source
    return replace(source, network=ClassificationNetwork(network.backbone, network.task, encode=shared))


def prepare_alike(sources: Sequence[ClassSource], others: Sequence[ClassSource]) -> bool:
    """Whether images come to the models of two tasks in the same way, but for brightness."""
    return [preparation_of(it) for it in sources] == [preparation_of(it) for it in others]


def preparation_of(source: ClassSource) -> tuple[str, int, tuple[str, ...]]:
    """What decides it: channels, intensities, spacing or size; degree of anisotropy; channels that may be missing."""
    plan = source.plan
    return plan.preprocessing_digest(), plan.degree_of_anisotropy, plan.optional_channels


def share_tokens(source: ClassSource, other: ClassSource) -> bool:
    """Whether the encoder makes the same tokens for two tasks of one model whose images are prepared alike."""
    one, two = source.network, other.network
    return (
        one.backbone is two.backbone  # an adapter makes a backbone of its own
        and source.plan.brightness == other.plan.brightness
        and have_one_map(one.task.channel_map, two.task.channel_map)
    )
