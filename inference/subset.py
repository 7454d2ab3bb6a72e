"""Only some of a model's outputs: the others become one before they are added up, and cost nothing from there on."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..errors import InputError
from ..labels import LabelSet
from .sliding import Network


def labels_of(labels: LabelSet, chosen: Collection[str]) -> LabelSet:
    """The labels of the chosen structures, all where none is chosen.

    Raises:
        InputError: if a name is none of the model's; lists these.
    """
    try:
        return labels.subset(chosen) if chosen else labels
    except ValueError as error:
        raise InputError(f"--roi-subset: {error}") from error


def outputs_of(labels: LabelSet, chosen: Collection[str]) -> list[int]:
    """Numbers of the outputs of `labels_of(labels, chosen)`: of classes that exclude each other, background first."""
    names = list(enumerate(labels.output_names))
    return [n for n, name in names if not chosen or name in chosen or (n == 0 and not labels.regions)]


def only_outputs(network: Network, labels: LabelSet, chosen: Collection[str]) -> Network:
    """A network of the outputs of `labels_of(labels, chosen)`; the network itself where none is chosen.

    Of classes that exclude each other, the largest logit of background and all that was not chosen becomes
    background's: it wins where one of them would. Regions are each decided alone, so that the others are left out.
    """
    if not chosen:
        return network
    kept = outputs_of(labels, chosen)
    merged = [number for number in range(labels.num_outputs) if number not in kept]

    def predict(x: Tensor, da: int) -> Tensor:
        logits = network(x, da)  # (B, K, D, H, W)
        if labels.regions:
            return logits[:, kept]
        rest = logits[:, 0].clone()
        for number in merged:
            torch.maximum(rest, logits[:, number], out=rest)
        return torch.cat([rest[:, None], logits[:, kept[1:]]], dim=1)

    return predict
