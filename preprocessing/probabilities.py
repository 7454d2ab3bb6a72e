"""Probabilities of logits, as they are kept: float16, whose largest is the class of the label map.

Letters: K classes or regions; V any shape of voxels.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

PROBABILITY = np.float16
"""Of a share p, to p / 2048 or better, in half the room of float32: those of a voxel add up to 1 within 0.0005."""
HALF = np.float16(0.5)


def class_shares(logits: np.ndarray, winners: np.ndarray) -> np.ndarray:
    """Softmax over K of float32 logits (K, *V), float16.

    Where rounding makes another class as large as the winner, the winner gets the next larger number.

    Args:
        winners: (*V), number of the class whose logit is the largest.
    """
    shares = logits - logits.max(axis=0)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0)
    kept = shares.astype(PROBABILITY)
    wrong = np.nonzero(kept.argmax(axis=0) != winners)
    kept[(winners[wrong], *wrong)] = np.nextafter(kept[(slice(None), *wrong)].max(axis=0), PROBABILITY(1))
    return kept


def region_shares(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of logits (K, *V), float16: above 0.5 exactly where the logit is above 0."""
    kept = expit(logits).astype(PROBABILITY)
    kept[(logits > 0) & (kept <= HALF)] = np.nextafter(HALF, PROBABILITY(1))
    return kept
