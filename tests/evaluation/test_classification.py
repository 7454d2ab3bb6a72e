"""AUC and ACC of classifications: by hand, and as the package `medmnist` computes them."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spadunet.classes import UNKNOWN, ClassKind, ClassSet
from spadunet.evaluation.classification import (
    ClassificationScores,
    accuracy,
    mean_auc,
    roc_auc,
    score_classification,
)

SIDES = ClassSet(kind="binary", names=("left", "right"))
ORGANS = ClassSet(kind="multi-class", names=("liver", "spleen", "kidney"))
FINDINGS = ClassSet(kind="multi-label", names=("effusion", "mass"))
TASKS = {
    "multi-class": "multi-class",
    "ordinal": "ordinal-regression",
    "binary": "binary-class",
    "multi-label": "multi-label, binary-class",
}
"""As medmnist calls the kinds."""


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The evaluator of the package medmnist; importing it makes a folder in the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("medmnist", "sklearn", "pandas"):
        pytest.importorskip(name)
    return importlib.import_module("medmnist.evaluator")


def column(*labels: int) -> np.ndarray:
    return np.array(labels)[:, None]


def test_auc_by_hand():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert roc_auc(labels, scores) == 0.75  # three of the four pairs are in order
    assert roc_auc(labels, -scores) == 0.25
    assert roc_auc(labels, np.full(4, 0.3)) == 0.5
    assert roc_auc(labels, np.array([0.1, 0.4, 0.4, 0.8])) == 0.875  # a tie counts half
    assert roc_auc(np.array([0, UNKNOWN, 1]), np.array([0.2, 0.9, 0.3])) == 1


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [UNKNOWN, 1]])
def test_without_cases_or_without_others_there_is_no_auc(labels: list[int]):
    assert roc_auc(np.array(labels, dtype=int), np.linspace(0, 1, len(labels))) is None


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("rounded", [False, True], ids=["untied", "tied"])
def test_as_medmnist(official: ModuleType, kind: ClassKind, rounded: bool):
    rng = np.random.default_rng(3)
    size = 2 if kind == "binary" else 5
    classes = ClassSet(kind=kind, names=tuple("abcde"[:size]))
    probabilities = rng.dirichlet(np.ones(size), size=211)
    if kind == "multi-label":
        probabilities = rng.random((211, size))
    if rounded:
        probabilities = np.round(probabilities, 1)
    labels = rng.integers(0, 2 if kind == "multi-label" else size, size=(211, classes.num_labels))
    given = labels, probabilities, TASKS[kind]
    assert mean_auc(classes, labels, probabilities) == pytest.approx(official.getAUC(*given), rel=1e-13, abs=0)
    assert accuracy(classes, labels, probabilities) == pytest.approx(official.getACC(*given), rel=1e-13, abs=0)
    scores = score_classification(classes, labels, probabilities)
    assert scores.auc == mean_auc(classes, labels, probabilities)
    assert scores.accuracy == accuracy(classes, labels, probabilities)
    if kind == "binary":
        one_column = labels, probabilities[:, 1], TASKS[kind]
        assert scores.auc == pytest.approx(official.getAUC(*one_column), rel=1e-13, abs=0)


def test_exclusive_classes_by_hand():
    labels = column(0, 0, 1, 2)
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]])
    scores = score_classification(ORGANS, labels, probabilities)
    assert scores.accuracy == 0.75
    assert scores.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    liver, spleen, kidney = scores.results
    assert (liver.sensitivity, liver.specificity, liver.num_positive, liver.num_negative) == (0.5, 1, 2, 2)
    assert (spleen.sensitivity, spleen.specificity) == (1, 2 / 3)
    assert [it.auc for it in scores.results] == [0.75, 1, 1]
    assert scores.auc == pytest.approx((0.75 + 1 + 1) / 3)
    assert (kidney.accuracy, kidney.num_unknown) == (1, 0)


def test_of_two_classes_the_second_is_the_positive_one():
    scores = score_classification(SIDES, column(0, 1, 1), np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]))
    (right,) = scores.results
    assert (right.name, right.auc, right.sensitivity, right.specificity) == ("right", 1, 0.5, 1)
    assert scores.accuracy == 2 / 3
    assert scores.confusion == ((1, 0), (1, 1))


def test_an_auc_that_is_not_defined_is_in_no_mean_and_is_named():
    labels = column(0, 0, 1, 1)
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3]])
    scores = score_classification(ORGANS, labels, probabilities)
    kidney = scores.results[2]
    assert (kidney.auc, kidney.sensitivity, kidney.specificity) == (None, None, 1)
    assert scores.auc == (0.75 + 0.75) / 2
    assert [(it.name, it.why_no_auc) for it in scores.without_auc] == [("kidney", "no such case")]
    only = score_classification(SIDES, column(1, 1), np.array([[0.9, 0.1], [0.1, 0.9]]))
    assert (only.auc, only.accuracy) == (None, 0.5)
    assert only.without_auc[0].why_no_auc == "every case is one"


def test_unknown_labels_are_left_out_of_their_finding_alone():
    labels = np.array([[1, UNKNOWN], [0, 1], [UNKNOWN, 0], [1, 1]])
    probabilities = np.array([[0.9, 0.5], [0.3, 0.2], [0.99, 0.4], [0.2, 0.8]])
    scores = score_classification(FINDINGS, labels, probabilities)
    effusion, mass = scores.results
    assert (effusion.num_positive, effusion.num_negative, effusion.num_unknown) == (2, 1, 1)
    assert (effusion.auc, mass.auc, scores.auc) == (0.5, 0.5, 0.5)
    assert (effusion.accuracy, mass.accuracy) == (2 / 3, 2 / 3)
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.confusion is None
    known = score_classification(ORGANS, column(UNKNOWN, 1), np.eye(3)[:2])
    assert (known.accuracy, sum(map(sum, known.confusion or ()))) == (1, 1)


def test_order_of_studies_does_not_matter():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(3, size=(50, 1)), rng.dirichlet((1, 1, 1), size=50)
    turned = rng.permutation(50)
    assert score_classification(ORGANS, labels, probabilities) == score_classification(
        ORGANS, labels[turned], probabilities[turned]
    )


def test_scores_come_back_from_json():
    scores = score_classification(ORGANS, column(0, 1, 1), np.eye(3))
    assert ClassificationScores.from_json(scores.to_json()) == scores
