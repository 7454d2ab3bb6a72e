"""Probabilities in float16: by hand, and never against the label map."""

from __future__ import annotations

import numpy as np

from spadunet.preprocessing.probabilities import HALF, class_shares, region_shares


def test_shares_of_a_voxel_by_hand():
    logits = np.log(np.array([[0.5], [0.3], [0.2]], np.float32))
    found = class_shares(logits, np.array([0]))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found[:, 0], [0.5, 0.3, 0.2], rtol=1 / 2048)
    np.testing.assert_allclose(region_shares(np.array([0.0, np.log(3), -1000], np.float32)), [0.5, 0.75, 0], rtol=1e-3)


def test_the_winner_stays_the_largest_where_rounding_would_make_others_as_large():
    logits = np.array([[0, 0, -100], [1e-6, 0, 1e-5], [-50, -50, 2e-5]], np.float32)
    winners = np.array([1, 0, 2])  # of equal ones, the first
    assert (class_shares(logits, winners).argmax(axis=0) == winners).all()
    just = np.array([1e-6, 0, -1e-6], np.float32)
    assert ((region_shares(just) > HALF) == (just > 0)).all()
