"""Which model is first, and how much of that is the choice of patients.

M: models, P: patients, K: classes, R: resamples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ...record import Record
from .paired import PairedValues
from .statistics import mean_over_classes, mean_where_defined, resampled_means


class Ranking(Record):
    """Models by one metric's mean over classes, the best first.

    After Wiesenfarth et al. 2021 (Methods and visual tools for assessing the stability of challenge rankings,
    doi:10.1038/s41598-021-82017-6), with the patients as test set.
    """

    metric: str
    models: tuple[str, ...]
    means: tuple[float, ...]
    ranks: tuple[int, ...]
    """From 1; equal means share the better rank."""
    shares: tuple[tuple[float, ...], ...]
    """Of each model: in which share of the resamples it has rank 1, 2, …"""
    mean_tau: float | None
    """Kendall's tau-b between the rankings of resamples and that of all, averaged; None if all models are equal.

    A resample in which they are all equal says nothing of their order, and counts 0.
    """
    same_share: float
    """Of the resamples, those with the very ranking of all."""


def rank_models(values: PairedValues, names: Sequence[str], *, resamples: int, seed: int) -> Ranking | None:
    """Rank models, and again on patients drawn with replacement; None where nothing can be compared."""
    by_patient = values.by_patient[:, ~np.isnan(values.by_patient[0]).all(axis=-1)]  # (M, P, K)
    if not by_patient.shape[1]:
        return None
    sign = -1 if values.metric.is_higher_better else 1
    means = mean_over_classes(by_patient)  # (M,)
    ranks = ranks_of(sign * means)
    batches = resampled_means(by_patient, resamples=resamples, seed=seed)
    drawn = np.concatenate([ranks_of(sign * mean_where_defined(batch, axis=-1)) for batch in batches])  # (R, M)
    found, counts = np.unique(drawn, axis=0, return_counts=True)  # (different rankings, M)
    taus = [float(stats.kendalltau(ranks, other).statistic) for other in found]
    places = range(1, len(names) + 1)
    order = np.argsort(ranks, kind="stable")
    return Ranking(
        metric=values.metric.name,
        models=tuple(names[index] for index in order),
        means=tuple(float(means[index]) for index in order),
        ranks=tuple(int(ranks[index]) for index in order),
        shares=tuple(tuple(float((drawn[:, index] == place).mean()) for place in places) for index in order),
        mean_tau=float(np.average(np.nan_to_num(taus), weights=counts)) if np.ptp(ranks) else None,
        same_share=float((drawn == ranks).all(axis=1).mean()),
    )


def ranks_of(losses: np.ndarray) -> np.ndarray:
    """Ranks from 1 along the last axis, the lowest first; equal ones share the lower number.

    Equal to 12 digits is equal, for a sum in another order differs in the last ones.
    """
    return np.asarray(stats.rankdata(np.round(losses, 12), method="min", axis=-1)).astype(int)
