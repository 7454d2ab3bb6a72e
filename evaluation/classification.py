"""How well whole studies are classified: AUC and ACC as MedMNIST defines them, and what each class contributes.

The definitions are those of the package `medmnist` (Yang et al. 2023, doi:10.1038/s41597-022-01721-8; `getAUC` and
`getACC` of its evaluator.py), which the tests compare with. What they leave open is said here: labels that are not
known count for nothing, and a class has no AUC where no study, or every one, is of it; then it is in no mean.

Letters: N studies, K classes or findings, L numbers that a label has, T targets: findings, classes one against the
rest, or of two classes the second alone.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from ..class_predictions import decide
from ..classes import UNKNOWN, ClassSet
from ..record import FormatVersion, Record

DEFINITIONS = {
    "multi-label": {
        "AUC": "mean over findings of the area under the ROC curve of a finding's probability",
        "ACC": "mean over findings of the share of studies in which a probability above 0.5 agrees with the label",
    },
    "binary": {
        "AUC": "area under the ROC curve of the second class's probability",
        "ACC": "share of studies in which a probability of the second class above 0.5 agrees with the label",
    },
    "multi-class": {
        "AUC": "mean over classes of the area under the ROC curve of a class's probability, one against the rest",
        "ACC": "share of studies whose likeliest class is the right one",
    },
}
"""MedMNIST's, by kind."""
DEFINITIONS["ordinal"] = DEFINITIONS["multi-class"]

Interval = tuple[float, float]


class ClassResult(Record):
    """Of one class against the rest, or of one finding."""

    name: str
    num_positive: int
    """Studies that are of the class or have the finding."""
    num_negative: int
    num_unknown: int
    auc: float | None
    """None where there is no positive study, or no negative one."""
    auc_interval: Interval | None = None
    sensitivity: float | None
    """Of the positive studies, those that are told; None where there is none."""
    specificity: float | None
    """Of the negative studies, those that are not."""
    accuracy: float | None
    """Of all studies whose label is known, those that are right about this class."""

    @property
    def why_no_auc(self) -> str:
        """In words; empty where there is one."""
        if self.auc is not None:
            return ""
        return "no such case" if not self.num_positive else "every case is one"


class ClassificationScores(Record):
    """scores.json of a classification."""

    format_version: FormatVersion = 1
    classes: ClassSet
    num_studies: int
    num_patients: int
    auc: float | None
    """Mean over the targets that have one; None where none has."""
    auc_interval: Interval | None = None
    accuracy: float | None
    accuracy_interval: Interval | None = None
    results: tuple[ClassResult, ...]
    """A target each, in the order of the classes."""
    confusion: tuple[tuple[int, ...], ...] | None
    """Numbers of studies of exclusive classes: a row a class of the references, a column a predicted one."""
    definitions: dict[str, str]
    interval: str = ""
    """How the intervals were made."""

    @property
    def without_auc(self) -> list[ClassResult]:
        """Targets that have none, so that no mean counts them."""
        return [result for result in self.results if result.auc is None]


def target_names(classes: ClassSet) -> tuple[str, ...]:
    """What is told from the rest: every class or finding, of two classes the second alone."""
    return classes.names[1:] if classes.kind == "binary" else classes.names


def target_labels(classes: ClassSet, labels: np.ndarray) -> np.ndarray:
    """Labels (N, L) as 1, 0 or `UNKNOWN` of each target, (N, T)."""
    if not classes.is_exclusive:
        return labels
    numbers = np.arange(classes.num_outputs)[-len(target_names(classes)) :]
    return np.where(labels == UNKNOWN, UNKNOWN, (labels == numbers).astype(np.int64))


def target_probabilities(classes: ClassSet, probabilities: np.ndarray) -> np.ndarray:
    """Of (N, K) the columns of the targets, (N, T)."""
    return probabilities[:, -len(target_names(classes)) :]


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Probability that a positive study has a higher score than a negative one, where equal ones count half.

    That is the area under the ROC curve (Hanley and McNeil 1982), by ranks.

    Args:
        labels: (N,) of 1, 0 or `UNKNOWN`, which is left out.
        scores: (N,), finite.

    Returns:
        None where there is no positive or no negative study.
    """
    is_known = labels != UNKNOWN
    labels, scores = labels[is_known], scores[is_known]
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        return None
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def mean_auc(classes: ClassSet, labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """MedMNIST's AUC: the mean over the targets that have one; None where none has.

    Args:
        labels: int (N, L), `UNKNOWN` where nobody knows.
        probabilities: (N, K).
    """
    return mean_of(
        [
            roc_auc(column, scores)
            for column, scores in zip(
                target_labels(classes, labels).T, target_probabilities(classes, probabilities).T, strict=True
            )
        ]
    )


def accuracy(classes: ClassSet, labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """MedMNIST's ACC, a mean over findings of a multi-label set; None where no label is known.

    Args:
        labels: int (N, L), `UNKNOWN` where nobody knows.
        probabilities: (N, K).
    """
    is_right = decide(classes, probabilities) == labels
    return mean_of([share(right[label != UNKNOWN]) for right, label in zip(is_right.T, labels.T, strict=True)])


def score_classification(
    classes: ClassSet, labels: np.ndarray, probabilities: np.ndarray, *, num_patients: int | None = None
) -> ClassificationScores:
    """All scores, without intervals (`with_intervals`).

    Args:
        labels: int (N, L), `UNKNOWN` where nobody knows.
        probabilities: (N, K).
        num_patients: that the studies are of, if fewer than N.
    """
    decided = decide(classes, probabilities)
    columns = (target_labels(classes, it) for it in (labels, decided))
    results = [
        score_target(name, label, told, scores)
        for name, label, told, scores in zip(
            target_names(classes),
            *(column.T for column in columns),
            target_probabilities(classes, probabilities).T,
            strict=True,
        )
    ]
    return ClassificationScores(
        classes=classes,
        num_studies=len(labels),
        num_patients=len(labels) if num_patients is None else num_patients,
        auc=mean_of([result.auc for result in results]),
        accuracy=accuracy(classes, labels, probabilities),
        results=tuple(results),
        confusion=confusion_of(classes, labels[:, 0], decided[:, 0]) if classes.is_exclusive else None,
        definitions=DEFINITIONS[classes.kind],
    )


def score_target(name: str, labels: np.ndarray, told: np.ndarray, scores: np.ndarray) -> ClassResult:
    """One target of labels and predictions (N,) of 1 and 0, and scores (N,)."""
    return ClassResult(
        name=name,
        num_positive=int((labels == 1).sum()),
        num_negative=int((labels == 0).sum()),
        num_unknown=int((labels == UNKNOWN).sum()),
        auc=roc_auc(labels, scores),
        sensitivity=share(told[labels == 1] == 1),
        specificity=share(told[labels == 0] == 0),
        accuracy=share((told == labels)[labels != UNKNOWN]),
    )


def confusion_of(classes: ClassSet, labels: np.ndarray, decided: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Numbers of studies by class (N,) of the reference and predicted one; without those of unknown class."""
    size = classes.num_outputs
    is_known = labels != UNKNOWN
    counts = np.bincount(labels[is_known] * size + decided[is_known], minlength=size * size)
    return tuple(tuple(row) for row in counts.reshape(size, size).tolist())


def share(is_true: np.ndarray) -> float | None:
    """Of (N,), None of nothing."""
    return float(is_true.mean()) if len(is_true) else None


def mean_of(values: list[float | None]) -> float | None:
    """Over what is defined; None where nothing is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
