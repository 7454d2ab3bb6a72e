"""Bootstrap intervals of AUC and ACC."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.classes import UNKNOWN, ClassSet
from spadunet.evaluation.classification import mean_auc, roc_auc, score_classification
from spadunet.evaluation.classification_intervals import draw_weights, resampled_scores, weighted_auc, with_intervals

SIDES = ClassSet(kind="binary", names=("left", "right"))
FINDINGS = ClassSet(kind="multi-label", names=("effusion", "mass", "rib"))


def test_a_weight_is_how_often_a_study_is_there():
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, UNKNOWN], size=40)
    scores = rng.integers(8, size=40) / 8  # with ties
    weights = rng.integers(0, 4, size=(5, 40))
    expected = [roc_auc(np.repeat(labels, row), np.repeat(scores, row)) for row in weights]
    assert weighted_auc(labels, scores)(weights.astype(float)) == pytest.approx(expected, rel=1e-13)


def test_a_resample_without_a_case_has_no_auc():
    auc = weighted_auc(np.array([1, 0, 0]), np.array([0.3, 0.1, 0.5]))
    assert np.isnan(auc(np.array([[0.0, 2.0, 1.0]])))[0]
    assert np.isnan(weighted_auc(np.full(3, UNKNOWN), np.zeros(3))(np.ones((2, 3)))).all()


def test_studies_of_a_patient_are_drawn_together():
    whose = np.array([0, 1, 0, 2])
    weights = np.concatenate(list(draw_weights(whose, resamples=50, seed=0)))
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    whole = np.concatenate(list(draw_weights(np.arange(7), resamples=20, seed=4)))
    monkeypatch.setattr("spadunet.evaluation.classification_intervals.MAX_BATCH_VALUES", 30)
    assert np.array_equal(np.concatenate(list(draw_weights(np.arange(7), resamples=20, seed=4))), whole)


def test_resamples_are_what_scoring_them_gives():
    rng = np.random.default_rng(2)
    labels, probabilities = rng.choice([0, 1, UNKNOWN], size=(30, 3)), rng.random((30, 3))
    aucs, accuracies = resampled_scores(FINDINGS, labels, probabilities, np.arange(30), resamples=4, seed=9)
    (weights,) = draw_weights(np.arange(30), resamples=4, seed=9)
    for row, auc, right in zip(weights.astype(int), aucs, accuracies, strict=True):
        drawn = np.repeat(labels, row, axis=0), np.repeat(probabilities, row, axis=0)
        assert auc.mean() == pytest.approx(mean_auc(FINDINGS, *drawn))
        assert right.mean() == pytest.approx(score_classification(FINDINGS, *drawn).accuracy)


def test_intervals_hold_the_value_and_are_wider_of_fewer_patients():
    rng = np.random.default_rng(5)
    labels = rng.integers(2, size=(120, 1))
    second = np.clip(0.5 + 0.2 * (labels[:, 0] - 0.5) + 0.2 * rng.standard_normal(120), 0, 1)
    probabilities = np.stack([1 - second, second], axis=1)
    scores = score_classification(SIDES, labels, probabilities)
    single = with_intervals(scores, labels, probabilities, resamples=300)
    of_few = with_intervals(scores, labels, probabilities, [str(it // 12) for it in range(120)], resamples=300)
    for found in (single, of_few):
        for value, interval in ((found.auc, found.auc_interval), (found.accuracy, found.accuracy_interval)):
            assert interval is not None and value is not None
            assert interval[0] < value < interval[1]
        assert found.results[0].auc_interval == found.auc_interval
    assert (single.num_patients, of_few.num_patients) == (120, 10)
    assert single == with_intervals(scores, labels, probabilities, resamples=300)
    assert single.auc_interval != with_intervals(scores, labels, probabilities, resamples=300, seed=1).auc_interval


def test_what_is_not_defined_or_of_too_few_has_no_interval():
    probabilities = np.tile([0.4, 0.6], (9, 1))
    labels = np.ones((9, 1), dtype=int)
    scores = with_intervals(score_classification(SIDES, labels, probabilities), labels, probabilities, resamples=20)
    assert (scores.auc_interval, scores.results[0].auc_interval) == (None, None)
    assert scores.accuracy_interval == (1, 1)
    few = with_intervals(
        score_classification(SIDES, labels[:5], probabilities[:5]), labels[:5], probabilities[:5], resamples=20
    )
    assert few.accuracy_interval is None
