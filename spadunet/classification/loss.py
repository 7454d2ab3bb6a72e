"""What is learned from a label: cross-entropy of a class, binary cross-entropy of each finding.

Letters: B studies, K outputs, L labels of a study.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ..classes import UNKNOWN, ClassSet


def summed_loss(logits: Tensor, labels: Tensor, classes: ClassSet) -> Tensor:
    """Sum over all labels that are known, in nats; the mean is this over `num_known`.

    Classes that are rarer count no more than others (Luo et al. 2024, Table 6).

    Args:
        logits: (B, K).
        labels: (B, L) int64; `UNKNOWN` adds nothing.
    """
    logits = logits.float()
    if classes.is_exclusive:
        return functional.cross_entropy(logits, labels[:, 0], ignore_index=UNKNOWN, reduction="sum")
    is_known = labels != UNKNOWN
    losses = functional.binary_cross_entropy_with_logits(logits, labels.clamp_min(0).float(), reduction="none")
    return (losses * is_known).sum()


def num_known(labels: Tensor) -> int:
    """How many labels of (B, L) somebody gave."""
    return int((labels != UNKNOWN).sum())
