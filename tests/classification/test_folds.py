"""Folds keep patients whole and classes even."""

from __future__ import annotations

import numpy as np

from spadunet.classification.folds import fold_of_studies


def test_patients_stay_whole_and_each_class_is_in_every_fold():
    patients = [f"p{number // 2}" for number in range(40)]
    labels = np.array([[0 if number < 30 else 1] for number in range(40)])
    folds = fold_of_studies(patients, labels)
    assert (folds[::2] == folds[1::2]).all()
    for fold in range(5):
        assert [int(((folds == fold) & (labels[:, 0] == it)).sum()) for it in (0, 1)] == [6, 2]
    assert np.array_equal(folds, fold_of_studies(patients, labels))


def test_few_patients_give_few_folds():
    assert sorted(fold_of_studies(["a", "b", "b"], np.array([[0], [1], [1]])).tolist()) == [0, 1, 1]
