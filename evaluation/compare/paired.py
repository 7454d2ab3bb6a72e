"""The values of several models on the same patients, side by side.

M: models, N: shared cases, P: patients, K: classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError, listed
from ...metrics import UNITS, Metric, complete_names
from ...patients import patients_of
from .metrics import comparable, is_surface, without_unit
from .model_scores import ClassValues, ModelScores

MAX_LISTED = 10
"""Of names in a message."""
RULES = {
    "cases": "those that all models have scores of; the others are told beside each model",
    "patients": "cases of one patient are not independent: their mean is one value of that patient",
    "missing": "a class that a model missed, or found where it is not, counts the worst that the image allows, "
    "whatever the policy of the scores: 0 of a metric that is better when higher, the image's diagonal of a "
    "distance, and RAVD of a prediction of the whole image. Scores of format version 1 do not tell the images' "
    "sizes: for them it is the largest value that any of the models has for the class in the shared cases, and no "
    "model that has more of these is called better. A class that is rightly not found counts as the best, where "
    "another model finds it; a case where neither the reference nor any model has the class is left out, as is "
    "one without the class in the reference of metrics that need it",
    "mean over classes": "means of the classes, averaged; for median, test and wins, of each patient the mean of its "
    "own classes",
}
"""What counts, written beside the result."""


@dataclass(frozen=True, kw_only=True)
class PairedValues:
    """One metric of all models. What is NaN for one model is NaN for all, so that they are compared on the same."""

    metric: Metric
    by_patient: np.ndarray
    """float64 (M, P, K), NaN where the class is left out."""
    num_cases: np.ndarray
    """Of each class, int (K,), and in `num_cases_any` of any class."""
    num_cases_any: int
    num_filled: np.ndarray
    """Values that count as the worst, though it is not known, int (M, K)."""
    num_best: np.ndarray
    """Values that count as the best, since only another model finds the class where it is not, int (M, K)."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """All that is compared."""

    models: Sequence[ModelScores]
    classes: tuple[str, ...]
    cases: tuple[str, ...]
    """That all models share, sorted."""
    patients: tuple[str, ...]
    metrics: tuple[PairedValues, ...]
    notes: tuple[str, ...]
    """What is left out of the comparison, in sentences."""


def pair_models(
    models: Sequence[ModelScores],
    *,
    metrics: Sequence[str] | None = None,
    known_patients: Mapping[str, str] | None = None,
) -> Paired:
    """Put models beside each other.

    Args:
        models: at least two.
        metrics: as in `spadunet_evaluate --metrics` (else all that all models have and that tell which is better).
        known_patients: as for `patients_of`; the rest is told from the names.

    Raises:
        InputError: if models were scored by different rules, classes or references, share no case, or lack a metric;
            lists all that differs.
    """
    first = next((model for model in models if model.stated), models[0])  # nnU-Net's states nothing to differ from
    others = [model for model in models if model is not first]
    shared = set.intersection(*(set(model.metrics) for model in models))
    wanted = {name for word in metrics for name in meant_by(word)} if metrics else shared
    problems = [problem for other in others for problem in differences_in_rules(first, other, wanted)]
    cases = tuple(sorted(set.intersection(*(set(model.cases) for model in models))))
    if not cases:
        some = "; ".join(f"{model.file} has {listed(sorted(model.cases), MAX_LISTED)}" for model in models)
        problems.append(f"no case is shared by all models: {some}; give scores of the same cases")
    if not problems:
        problems = [it for other in others for it in differences_in_references(first, other, cases)]
    if problems:
        raise InputError("\n".join(problems))
    chosen, notes = choose_metrics(models, metrics)
    everywhere = sorted(set.union(*(set(model.cases) for model in models)))
    for model in models:
        lacking = [case for case in everywhere if case not in model.cases]
        if lacking:
            notes.append(
                f"cases that others have and {model.name} lacks: {len(lacking)} ({listed(lacking, MAX_LISTED)})"
            )
    patient_of = patients_of(everywhere, known_patients or {})
    patients = tuple(dict.fromkeys(patient_of[case] for case in cases))
    row_of = {patient: row for row, patient in enumerate(patients)}
    rows = np.array([row_of[patient_of[case]] for case in cases])  # (N,)
    return Paired(
        models=models,
        classes=first.classes,
        cases=cases,
        patients=patients,
        metrics=tuple(pair_values(models, cases, first.classes, metric, rows) for metric in chosen),
        notes=tuple(notes),
    )


def differences_in_rules(first: ModelScores, other: ModelScores, metrics: Collection[str]) -> list[str]:
    """What forbids to compare two models' scores by these metrics, a line each."""
    files = f"{first.file} and {other.file}"
    problems = []
    if set(first.classes) != set(other.classes):
        problems.append(
            f"{files}: the classes differ: {', '.join(first.classes)} and {', '.join(other.classes)}; "
            "score both with the same --labels"
        )
    for key in concerning(metrics, first.stated):
        if key in other.stated and first.stated[key] != other.stated[key]:
            problems.append(
                f"{files}: {key} differs: {first.stated[key]!r} and {other.stated[key]!r}; "
                "score both with the same options of the same spadunet_evaluate"
            )
    return problems


def concerning(metrics: Collection[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Of what scores state, all that says what these metrics mean: other metrics' definitions may differ."""
    about_all = {"missing", "definition"} if any(map(is_surface, metrics)) else {"missing"}
    return {key: text for key, text in stated.items() if key in about_all or key in metrics}


def differences_in_references(first: ModelScores, other: ModelScores, cases: Sequence[str]) -> list[str]:
    """A line if the references of two models' scores hold different numbers of voxels."""
    found = [
        f"{name} of {case} ({one.num_reference_voxels} and {two.num_reference_voxels} voxels)"
        for case in cases
        for name in first.classes
        for one, two in [(first.cases[case][name], other.cases[case][name])]
        if one.num_reference_voxels != two.num_reference_voxels
    ]
    if not found:
        return []
    return [
        f"{first.file} and {other.file}: scored against different references: {listed(found, MAX_LISTED)}; "
        "score both against the same folder"
    ]


def choose_metrics(models: Sequence[ModelScores], metrics: Sequence[str] | None) -> tuple[list[Metric], list[str]]:
    """The metrics to compare, and what is said of the others.

    Raises:
        InputError: if one that was asked for cannot be compared, there is none, or units differ.
    """
    shared = [name for name in models[0].metrics if all(name in model.metrics for model in models)]
    possible = {name: metric for name in shared if (metric := comparable(name))}
    scored = "; ".join(f"{model.file} has {', '.join(model.metrics)}" for model in models)
    if metrics:
        names = {word: next((name for name in meant_by(word) if name in possible), None) for word in metrics}
        wrong = [word for word, name in names.items() if name is None]
        if wrong:
            can = ", ".join(possible) or "none"
            raise InputError(f"--metrics {' '.join(wrong)}: metrics that can be compared are {can}: {scored}")
        return [possible[name] for name in dict.fromkeys(names.values()) if name], []
    alone = {model.name: [name for name in model.metrics if name not in shared] for model in models}
    if any(
        without_unit(name) == without_unit(other)
        for one, two in itertools.combinations(alone.values(), 2)
        for name in one
        for other in two
        if name != other
    ):
        raise InputError(f"units differ: {scored}; score all in the same unit, or choose with --metrics")
    if not possible:
        raise InputError(f"no metric is shared by all models: {scored}; score all with the same metrics")
    return list(possible.values()), [
        f"not compared, since not all models have them: {', '.join(names)} of {name}"
        for name, names in alone.items()
        if names
    ]


def meant_by(word: str) -> list[str]:
    """The full names that a word may stand for, in mm first; the word itself if it is no metric."""
    try:
        return [name for unit in UNITS for name in complete_names([word], unit)]
    except InputError:
        return [word]


def pair_values(
    models: Sequence[ModelScores], cases: Sequence[str], classes: Sequence[str], metric: Metric, rows: np.ndarray
) -> PairedValues:
    """One metric of all models, by patient.

    Args:
        rows: number of each case's patient, int (N,).
    """
    found = [[[model.cases[case][name] for name in classes] for case in cases] for model in models]
    values = np.array([[[value_of(it, metric.name) for it in row] for row in table] for table in found], np.float64)
    absent = np.array([[[it.is_absent for it in row] for row in table] for table in found])  # (M, N, K)
    has_reference = [[[tells_of(it, metric) for it in row] for row in table] for table in found]  # (M, N, K)
    is_shown = np.logical_and(np.all(has_reference, axis=0), ~absent.all(axis=0))  # (N, K)
    filled, is_filled, is_best = fill(values, absent, is_shown, metric)
    is_there = ~np.isnan(filled[0])  # (N, K), the same of all models
    num_patients = int(rows.max()) + 1
    sums = np.zeros((num_patients, len(models), len(classes)))
    counts = np.zeros((num_patients, len(classes)))
    np.add.at(sums, rows, np.nan_to_num(filled).swapaxes(0, 1))
    np.add.at(counts, rows, is_there)
    means = np.where(counts > 0, sums.swapaxes(0, 1) / np.maximum(counts, 1), np.nan)  # (M, P, K)
    return PairedValues(
        metric=metric,
        by_patient=means,
        num_cases=is_there.sum(axis=0),
        num_cases_any=int(is_there.any(axis=1).sum()),
        num_filled=is_filled.sum(axis=1),
        num_best=is_best.sum(axis=1),
    )


def tells_of(found: ClassValues, metric: Metric) -> bool:
    """The class was annotated, and is there if the metric needs it."""
    return bool(found.num_reference_voxels) if metric.needs_reference else found.num_reference_voxels is not None


def value_of(found: ClassValues, metric: str) -> float:
    """A value; NaN where it is not defined."""
    value = found.values.get(metric)
    return np.nan if value is None else value


def fill(
    values: np.ndarray, absent: np.ndarray, is_shown: np.ndarray, metric: Metric
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give values that are not defined those of RULES.

    Args:
        values: (M, N, K), NaN where not defined.
        absent: bool (M, N, K): neither prediction nor reference has the class.
        is_shown: bool (N, K): cases that count for a class; all others become NaN.

    Returns:
        The values, and bool (M, N, K) where the worst was put, and where the best. A class of which nothing is defined
        stays NaN, since no worst value is known.
    """
    shown = np.where(is_shown, values, np.nan)
    if metric.is_higher_better:
        worst = np.zeros(values.shape[-1])
    else:
        worst = np.max(np.where(np.isnan(shown), -np.inf, shown), axis=(0, 1))  # (K,)
    is_known = is_shown & np.isfinite(worst)
    is_filled = np.isnan(values) & ~absent & is_known
    is_best = np.isnan(values) & absent & is_known
    filled = np.where(is_best, metric.best, values)
    filled = np.where(is_filled, worst, filled)
    return np.where(is_known, filled, np.nan), is_filled, is_best
