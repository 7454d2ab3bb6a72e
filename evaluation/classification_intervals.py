"""How sure AUC and ACC are: bootstrap over patients, all studies of one together.

Letters: N studies, P patients, K classes or findings, L numbers that a label has, R resamples, r of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..class_predictions import decide
from ..classes import UNKNOWN, ClassSet
from .classification import ClassificationScores, Interval, target_labels, target_probabilities
from .compare.statistics import CONFIDENCE, MAX_BATCH_VALUES, MIN_PATIENTS, mean_where_defined, percentile_interval

RESAMPLES = 2000
INTERVAL = (
    f"{100 * CONFIDENCE:.0f} % bootstrap over patients (over studies where patients are not told), {{}} resamples, "
    f"seed {{}}: percentiles, expanded for few patients (Hesterberg 2015); none of fewer than {MIN_PATIENTS}"
)


def with_intervals(
    scores: ClassificationScores,
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassificationScores:
    """The same scores with intervals of AUC, of each class and their mean, and of ACC.

    Args:
        labels: int (N, L) that were scored.
        probabilities: (N, K).
        patients: whose study each is; None where each is another's.
    """
    classes = scores.classes
    whose = np.arange(len(labels)) if patients is None else np.unique(patients, return_inverse=True)[1]
    aucs, accuracies = resampled_scores(classes, labels, probabilities, whose, resamples=resamples, seed=seed)

    def interval(values: np.ndarray) -> Interval | None:
        return percentile_interval(values, int(whose.max()) + 1)

    return scores.model_copy(
        update={
            "num_patients": int(whose.max()) + 1,
            "results": tuple(
                result.model_copy(update={"auc_interval": None if result.auc is None else interval(values)})
                for result, values in zip(scores.results, aucs.T, strict=True)
            ),
            "auc_interval": interval(mean_where_defined(aucs, axis=1)),
            "accuracy_interval": interval(mean_where_defined(accuracies, axis=1)),
            "interval": INTERVAL.format(resamples, seed),
        }
    )


def resampled_scores(
    classes: ClassSet,
    labels: np.ndarray,
    probabilities: np.ndarray,
    whose: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """AUC of each target (R, T) and ACC of each label (R, L), NaN where a resample has none.

    Args:
        whose: number of the patient of each study, (N,), 0 to P - 1.
    """
    columns = zip(target_labels(classes, labels).T, target_probabilities(classes, probabilities).T, strict=True)
    auc_of = [weighted_auc(label, scores) for label, scores in columns]
    is_known = (labels != UNKNOWN).astype(np.float64)  # (N, L)
    is_right = (decide(classes, probabilities) == labels).astype(np.float64)
    aucs, accuracies = [], []
    for weights in draw_weights(whose, resamples=resamples, seed=seed):
        aucs.append(np.stack([auc(weights) for auc in auc_of], axis=1))  # (r, T)
        with np.errstate(invalid="ignore"):
            accuracies.append((weights @ is_right) / (weights @ is_known))  # (r, L)
    return np.concatenate(aucs), np.concatenate(accuracies)


def draw_weights(whose: np.ndarray, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each study is drawn with its patient, with replacement: batches of (r, N), R rows in all."""
    num_patients = int(whose.max()) + 1
    rng = np.random.default_rng(seed)
    batch = max(1, MAX_BATCH_VALUES // len(whose))
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        drawn = rng.integers(num_patients, size=(size, num_patients)) + num_patients * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_patients).reshape(size, num_patients)
        yield counts[:, whose].astype(np.float64)


def weighted_auc(labels: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`roc_auc` of a target (N,) as a function of weights (r, N) of the studies, (r,), NaN where it is not defined.

    The scores are sorted once for all resamples.
    """
    order = np.flatnonzero(labels != UNKNOWN)
    order = order[np.argsort(scores[order], kind="stable")]
    is_positive = labels[order] == 1
    ordered = scores[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])  # of each run of equal scores

    def auc(weights: np.ndarray) -> np.ndarray:
        if not len(order):
            return np.full(len(weights), np.nan)
        drawn = weights[:, order]
        positive = np.add.reduceat(drawn * is_positive, first, axis=1)
        negative = np.add.reduceat(drawn * ~is_positive, first, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2  # equal ones count half
        with np.errstate(invalid="ignore"):
            return np.asarray((positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1)))

    return auc
