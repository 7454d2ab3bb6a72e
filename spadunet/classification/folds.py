"""Which studies train and which are held out, where their table does not say it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_FOLDS = 5
SPLIT_SEED = 12345
"""As for segmentation."""


def fold_of_studies(patients: Sequence[str], labels: np.ndarray, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """The fold that holds out each study, (N,): all of a patient in one, and each label in all alike where possible.

    Patients are dealt out in turn, those with the same labels one after the other, in an order of chance. Fewer
    patients than folds leave folds empty.

    Args:
        patients: whose study each is.
        labels: (N, L).
    """
    names, whose = np.unique(np.array(patients), return_inverse=True)
    kinds = [tuple(sorted(map(tuple, labels[whose == place].tolist()))) for place in range(len(names))]
    chance = np.random.default_rng(SPLIT_SEED).permutation(len(names))
    order = sorted(range(len(names)), key=lambda place: (kinds[place], chance[place]))
    fold_of_patient = np.empty(len(names), int)
    fold_of_patient[order] = np.arange(len(names)) % num_folds
    return fold_of_patient[whose]
