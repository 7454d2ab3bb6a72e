"""Rankings, and how stable they are."""

from __future__ import annotations

import numpy as np
import pytest
from made_scores import absent, found, liver_model, model_of, some_dices

from spadunet.evaluation.compare.paired import pair_models
from spadunet.evaluation.compare.ranking import Ranking, rank_models
from spadunet.evaluation.compare.statistics import mean_over_classes, mean_where_defined, resampled_means


def ranked(*models, resamples: int = 500) -> Ranking:
    """Of the first metric."""
    ranking = rank_models(pair_models(models).metrics[0], [model.name for model in models], resamples=resamples, seed=0)
    assert ranking is not None
    return ranking


def test_models_far_apart_never_change_places():
    dices = some_dices(12)
    ranking = ranked(*(liver_model(name, dices + shift) for name, shift in (("A", -0.3), ("B", 0), ("C", -0.5))))
    assert (ranking.models, ranking.ranks) == (("B", "A", "C"), (1, 2, 3))
    assert ranking.means == pytest.approx((dices.mean(), dices.mean() - 0.3, dices.mean() - 0.5))
    assert ranking.shares == ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    assert (ranking.mean_tau, ranking.same_share) == (1, 1)


def test_smaller_distances_come_first():
    ranking = ranked(liver_model("A", [5, 6, 7], "hd_mm"), liver_model("B", [1, 2, 3], "hd_mm"))
    assert ranking.models == ("B", "A")


def test_shares_by_hand():
    """Of two patients one is for A and the other, less, for B: B is first only where its own is drawn twice, 1 in 4."""
    ranking = ranked(liver_model("A", [0.9, 0.5]), liver_model("B", [0.5, 0.6]), resamples=20_000)
    assert ranking.models == ("A", "B")
    assert ranking.shares[0] == pytest.approx((0.75, 0.25), abs=0.01)
    assert ranking.same_share == ranking.shares[0][0]
    assert ranking.mean_tau == pytest.approx(0.75 - 0.25, abs=0.02)


def test_equal_models_share_the_first_rank_whatever_is_drawn():
    dices = some_dices(9)
    ranking = ranked(liver_model("A", dices), liver_model("B", dices), liver_model("C", dices - 0.1))
    assert ranking.ranks == (1, 1, 3)
    assert ranking.shares == ((1, 0, 0), (1, 0, 0), (0, 0, 1))
    assert ranked(liver_model("A", dices), liver_model("B", dices)).mean_tau is None


def test_resamples_without_any_difference_do_not_make_a_ranking_look_stable():
    """One patient of four decides: it is not drawn in 0.75^4 of the resamples, and both models are equal."""
    ranking = ranked(liver_model("A", [0.9, 0.9, 0.9, 0.9]), liver_model("B", [0.9, 0.9, 0.9, 0.5]), resamples=20_000)
    assert ranking.same_share == pytest.approx(1 - 0.75**4, abs=0.01)
    assert ranking.mean_tau == pytest.approx(ranking.same_share)


def test_one_patient_always_gives_the_same_ranking():
    ranking = ranked(liver_model("A", [0.4]), liver_model("B", [0.5]))
    assert (ranking.models, ranking.same_share) == (("B", "A"), 1)


def test_nothing_to_rank():
    models = [model_of(name, {"a": {"liver": absent("dice")}}) for name in "AB"]
    assert rank_models(pair_models(models).metrics[0], ["A", "B"], resamples=10, seed=0) is None


def test_resampled_means_are_those_of_the_drawn_patients(monkeypatch: pytest.MonkeyPatch):
    """In batches too, and where a class is in some patients only."""
    cases = [
        {
            f"c{number}": {
                "liver": found(dice=some_dices(5, seed)[number]),
                "spleen": found(dice=0.1 * number) if number else absent("dice"),
            }
            for number in range(5)
        }
        for seed in (1, 2)
    ]
    models = [model_of(name, table) for name, table in zip("AB", cases, strict=True)]
    by_patient = pair_models(models).metrics[0].by_patient
    rng = np.random.default_rng(4)
    drawn = rng.multinomial(5, np.full(5, 0.2), size=30)
    expected = [mean_over_classes(np.repeat(by_patient, counts, axis=1)) for counts in drawn]
    (whole,) = resampled_means(by_patient, resamples=30, seed=4)
    assert mean_where_defined(whole, axis=-1) == pytest.approx(np.array(expected))
    monkeypatch.setattr("spadunet.evaluation.compare.statistics.MAX_BATCH_VALUES", 20)
    batches = list(resampled_means(by_patient, resamples=30, seed=4))
    assert len(batches) > 1
    assert np.concatenate(batches) == pytest.approx(whole)
