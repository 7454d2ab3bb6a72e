"""Scores of models, made up for tests of comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spadunet.evaluation.compare.model_scores import ClassValues, ModelScores

VOXELS = 10
"""Of every mask that is not empty."""


def found(**values: float | None) -> ClassValues:
    """A class that both masks have."""
    return ClassValues(values=values, num_prediction_voxels=VOXELS, num_reference_voxels=VOXELS)


def missed(**values: float | None) -> ClassValues:
    """A class that only the reference has."""
    return ClassValues(values=values, num_prediction_voxels=0, num_reference_voxels=VOXELS)


def false_alarm(**values: float | None) -> ClassValues:
    """A class that only the prediction has."""
    return ClassValues(values=values, num_prediction_voxels=VOXELS, num_reference_voxels=0)


def absent(*metrics: str) -> ClassValues:
    """A class that neither has."""
    return ClassValues(values=dict.fromkeys(metrics), num_prediction_voxels=0, num_reference_voxels=0)


def model_of(
    name: str, cases: Mapping[str, Mapping[str, ClassValues]], stated: Mapping[str, str] | None = None
) -> ModelScores:
    """A model with these classes by case."""
    first = next(iter(cases.values()))
    return ModelScores(
        name=name,
        file=Path(name) / "scores.json",
        classes=tuple(first),
        metrics=tuple(next(iter(first.values())).values),
        cases=cases,
        stated=stated or {},
    )


def liver_model(name: str, dices: Sequence[float], metric: str = "dice") -> ModelScores:
    """A model with one class, and a case a value: case00, case01, …"""
    cases = {f"case{number:02}": {"liver": found(**{metric: float(value)})} for number, value in enumerate(dices)}
    return model_of(name, cases)


def some_dices(num_cases: int, seed: int = 0) -> np.ndarray:
    """Values around 0.85, float64 (num_cases,)."""
    return np.random.default_rng(seed).uniform(0.75, 0.95, num_cases)
