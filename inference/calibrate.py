"""Expected Dice of classes, fitted on answers whose Dice is known, and the volumes that training references have.

Of each class a weighted sum of what is known of an answer, whose weights have the sign that their meaning demands
(more entropy never raises it), and a curve that never falls from that sum to Dice.

Letters: N answers, F features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, nnls

from ..dataset import RawCase
from ..errors import InputError
from ..evaluation.risk import spearman
from ..image import read_label_map
from ..labels import LabelSet
from ..parallel import map_cases
from ..quality import (
    FEATURES,
    Calibration,
    ClassCalibration,
    DiceFit,
    Trials,
    Volumes,
    expected_dice,
    features_of,
)
from ..workers import THIS_PROCESS, Workers
from .judge import volumes_of
from .trials import Trial, means_of

SIGNS = {"soft_dice": 1.0} | dict.fromkeys(FEATURES[1:], -1.0)
MIN_CASES = 5
"""Held out; fewer say too little."""
MIN_POINTS = 60
"""Answers by which a class has a fit of its own; below, one of all classes together."""
MAX_CORNERS, MIN_POINTS_A_CORNER = 20, 8
RIDGE = 0.02
"""Of the number of answers: keeps weights of features that say the same alike."""
MIN_STD_LOG = 0.05
"""Of volumes: 5 %, for datasets of very few cases."""


def measure_volumes(
    cases: Sequence[RawCase], labels: LabelSet, *, workers: Workers = THIS_PROCESS
) -> dict[str, Volumes]:
    """Of each class or region in the references of training cases.

    Raises:
        InputError: if a reference cannot be read; names all.
    """
    with_labels = [case for case in cases if case.label_path is not None]
    measure = VolumesOf(labels)
    outcomes = list(map_cases(measure, with_labels, title="Measuring volumes", workers=workers))
    problems = [it.problem for it in outcomes if it.problem is not None]
    if problems:
        raise InputError("\n".join(sorted(problems)))
    found: dict[str, list[float]] = {it.name: [] for it in labels.structures}
    for outcome in outcomes:
        for name, volume in (outcome.result or {}).items():
            found[name].append(volume)
    return {name: usual_volumes(sorted(volumes)) for name, volumes in found.items() if volumes}


@dataclass(frozen=True)
class VolumesOf:
    """Ml of each structure that a case's reference tells of."""

    labels: LabelSet

    def __call__(self, case: RawCase) -> dict[str, float]:
        """Of one case."""
        assert case.label_path is not None
        volumes = volumes_of(read_label_map(case.label_path), self.labels)
        return {name: ml for name, ml in volumes.items() if not case.annotated or name in case.annotated}


def usual_volumes(volumes_ml: Sequence[float]) -> Volumes:
    """Of one class in at least one reference; 0 where it is not there."""
    logs = [math.log(ml) for ml in volumes_ml if ml > 0]
    return Volumes(
        num_cases=len(volumes_ml),
        share_present=len(logs) / len(volumes_ml),
        mean_log_ml=round(float(np.mean(logs)), 6) if logs else None,
        std_log_ml=round(max(float(np.std(logs)), MIN_STD_LOG), 6) if logs else None,
    )


def calibrate(trials: Sequence[Trial], volumes: Mapping[str, Volumes], *, num_copies: int, seed: int) -> Calibration:
    """Fit on all answers, and tell how fits do on cases that they were not made of.

    Raises:
        InputError: if there are too few cases, or none of their classes was found.
    """
    cases = list(dict.fromkeys(trial.case for trial in trials))
    if len(cases) < MIN_CASES:
        raise InputError(
            f"{len(cases)} held-out cases are too few to learn what Dice to expect: at least {MIN_CASES} are needed; "
            "give more folds with -f"
        )
    classes = fit_classes(trials, volumes)
    expected, pairs = [], []
    for case in cases:
        rest = fit_classes([trial for trial in trials if trial.case != case], volumes)
        for trial in (it for it in trials if it.case == case):
            expected.append((trial, expected_of(trial, rest)))
    for trial, values in expected:
        known = [(value, trial.dice[name]) for name, value in values.items()]
        pairs += [(value, true) for value, true in known if value is not None and true is not None]
    means = np.array(means_of(*zip(*expected, strict=True)))  # (answers, expected and true)
    errors = np.array(pairs)
    return Calibration(
        classes=classes,
        trials=Trials(
            num_cases=len(cases),
            num_copies=num_copies,
            seed=seed,
            kinds=tuple(sorted({trial.what.kind for trial in trials if trial.what})),
            num_points=len(pairs),
            mean_dice=float(errors[:, 1].mean()),
            error=float(np.abs(errors[:, 0] - errors[:, 1]).mean()),
            case_error=float(np.abs(means[:, 0] - means[:, 1]).mean()),
            spearman=spearman(means[:, 0], means[:, 1]),
            unseen_spearman=unseen_kinds(trials, volumes),
        ),
    )


def unseen_kinds(trials: Sequence[Trial], volumes: Mapping[str, Volumes]) -> dict[str, float | None]:
    """Rank correlation of expected and true mean Dice of copies of each kind, by a fit that knows only the others."""
    found: dict[str, float | None] = {}
    for kind in sorted({trial.what.kind for trial in trials if trial.what}):
        copies = [trial for trial in trials if trial.what and trial.what.kind == kind]
        others = fit_classes([trial for trial in trials if not trial.what or trial.what.kind != kind], volumes)
        means = np.array(means_of(copies, [expected_of(it, others) for it in copies])).reshape(-1, 2)
        found[kind] = spearman(means[:, 0], means[:, 1])
    return found


def expected_of(trial: Trial, classes: Mapping[str, ClassCalibration]) -> dict[str, float | None]:
    """By class, of those that are calibrated."""
    return {name: expected_dice(it, classes[name]) for name, it in trial.qualities.items() if name in classes}


def fit_classes(trials: Iterable[Trial], volumes: Mapping[str, Volumes]) -> dict[str, ClassCalibration]:
    """A fit for each class of which a training reference tells.

    Raises:
        InputError: if no class was found in any answer.
    """
    points: dict[str, list[tuple[list[float], float]]] = {name: [] for name in volumes}
    for trial in trials:
        for name, quality in trial.qualities.items():
            dice = trial.dice[name]
            if name in volumes and dice is not None and not quality.is_empty:
                points[name].append((features_of(quality, volumes[name]), dice))
    everything = [point for found in points.values() for point in found]
    if not everything:
        raise InputError("nothing was found in any held-out case: there is nothing to learn Dice from; train longer")
    shared = fit_dice(everything)
    return {
        name: ClassCalibration(
            volumes=volumes[name],
            fit=fit_dice(found) if len(found) >= MIN_POINTS else shared,
            num_points=len(found),
            is_own=len(found) >= MIN_POINTS,
        )
        for name, found in points.items()
    }


def fit_dice(points: Sequence[tuple[list[float], float]]) -> DiceFit:
    """Of features (F,) and Dice of each answer."""
    features, dice = np.array([x for x, _ in points]), np.array([y for _, y in points])  # (N, F), (N,)
    means, spread = features.mean(0).round(6), features.std(0)
    scales = np.where(spread > 1e-4, spread, 1.0).round(6)
    signs = np.array([SIGNS[name] for name in FEATURES])
    standard = (features - means) / scales * signs
    ridge = math.sqrt(RIDGE * len(points)) * np.eye(len(FEATURES))
    weights, _ = nnls(np.concatenate([standard, ridge]), np.concatenate([dice - dice.mean(), np.zeros(len(ridge))]))
    weights = (weights * signs).round(6)
    scores = (features - means) / scales @ weights
    corners, values = rising_curve(scores, dice)
    return DiceFit(
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights.tolist()),
        scores=corners,
        dice=values,
    )


def rising_curve(scores: np.ndarray, dice: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Corners of a curve that never falls, by means of groups of answers (N,) whose scores are alike."""
    order = np.argsort(scores, kind="stable")
    groups = np.array_split(order, min(max(len(order) // MIN_POINTS_A_CORNER, 1), MAX_CORNERS))
    corners: dict[float, list[int]] = {}
    for group in groups:
        corners.setdefault(round(float(scores[group].mean()), 5), []).extend(group.tolist())
    means, counts = [dice[group].mean() for group in corners.values()], [len(group) for group in corners.values()]
    values = isotonic_regression(means, weights=counts, increasing=True).x
    return tuple(corners), tuple(np.clip(values, 0, 1).round(5).tolist())
