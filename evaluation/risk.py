"""What is gained where answers that are expected to be bad are set aside: risk against coverage.

Letters: N answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

KEPT_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Mean error 1 - Dice of the answers that are kept, from one to all of them."""

    coverage: np.ndarray
    """Shares kept, (N,), 1/N to 1."""
    risk: np.ndarray
    """Where those of the highest expected Dice are kept first, (N,)."""
    oracle: np.ndarray
    """Where those of the highest true Dice are, (N,): no order does better."""
    chance: float
    """Where the order is random: the mean of all."""

    @property
    def area(self) -> float:
        """Mean risk over all coverages; the lower the better."""
        return float(self.risk.mean())

    @property
    def oracle_area(self) -> float:
        """The lowest that any order reaches."""
        return float(self.oracle.mean())


def risk_coverage(expected: np.ndarray, dice: np.ndarray) -> RiskCoverage:
    """Of expected and true Dice (N,), N at least 1; among equal expectations the mean of these counts."""
    counts = np.arange(1, len(dice) + 1)
    order = np.argsort(-expected, kind="stable")
    errors = 1 - dice[order]
    _, first, sizes = np.unique(-expected[order], return_index=True, return_counts=True)
    errors = np.concatenate(
        [np.full(size, errors[start : start + size].mean()) for start, size in zip(first, sizes, strict=True)]
    )
    return RiskCoverage(
        coverage=counts / len(dice),
        risk=np.cumsum(errors) / counts,
        oracle=np.cumsum(np.sort(1 - dice)) / counts,
        chance=float((1 - dice).mean()),
    )


def kept_mean(expected: np.ndarray, dice: np.ndarray, share: float = KEPT_SHARE) -> float:
    """Mean Dice of a share of the answers (N,), at least one, whose expected Dice is highest."""
    num_kept = max(round(share * len(dice)), 1)
    return 1 - float(risk_coverage(expected, dice).risk[num_kept - 1])


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """Rank correlation of two rows of numbers (N,), ties at their mean rank; None where one of them is constant."""
    ranks = rankdata(one), rankdata(other)
    if len(one) < 2 or any(np.ptp(it) == 0 for it in ranks):
        return None
    return float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))
