"""Intervals that cover what they should, and p-values worked out by hand or by scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from spadunet.evaluation.compare.statistics import (
    CONFIDENCE,
    expanded_level,
    holm,
    mean_over_classes,
    mean_where_defined,
    percentile_interval,
    resampled_means,
    resampled_medians,
    signed_rank_p,
    smallest_p,
)

NAN = np.nan


def test_holm_of_four_tests_worked_out_by_hand():
    """0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 raised to the one before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_a_single_test_alone_never_exceeds_1_and_takes_none():
    assert holm([0.04]) == [0.04]
    assert holm([0.4, 0.6, 0.5]) == [1, 1, 1]
    assert holm([]) == []


def test_p_is_that_of_scipy():
    differences = np.random.default_rng(1).normal(0.3, 1, 20)
    assert signed_rank_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    many = np.random.default_rng(1).normal(0.3, 1, 80)
    assert signed_rank_p(many) == stats.wilcoxon(many).pvalue


def test_p_of_three_values_by_hand():
    """Ranks 1, 2, 3; the sum of the negative ones is 1, and sums of 0 or 1 are 2 of 8 sign patterns, on each side."""
    assert signed_rank_p(np.array([-1.0, 2.0, 3.0])) == pytest.approx(0.5)


def test_zero_differences_are_left_out_of_the_test():
    with_zeros = np.array([0, 0, 0.5, 1.5, 2.5, -3.5, 4.5, 5.5, 0])
    assert signed_rank_p(with_zeros) == pytest.approx(stats.wilcoxon(with_zeros, zero_method="wilcox").pvalue)
    assert signed_rank_p(np.zeros(7)) == 1.0
    assert signed_rank_p(np.zeros(1)) == 1.0


@pytest.mark.parametrize(
    ("num_equal", "num_differing", "expected"), [(12, 4, 0.125), (15, 5, 0.0625), (30, 6, 0.03125)]
)
def test_p_among_many_equal_patients_is_exact(num_equal: int, num_differing: int, expected: float):
    """Two of the 2^n patterns of signs are as far out; the normal approximation gives the first 0.046."""
    alike = np.array([0.0] * num_equal + [0.02] * num_differing)
    assert signed_rank_p(alike) == pytest.approx(expected)
    assert signed_rank_p(-alike * np.arange(len(alike))) == pytest.approx(expected)


def test_p_of_ties_is_that_of_all_patterns_of_signs():
    differences = np.array([1, 1, -1, 2, 2, 2, -3, 3, 4, 4, -4, 5, 6, 6, 7.0])
    ranks = stats.rankdata(np.abs(differences))
    signs = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    distance = np.abs(signs @ ranks - ranks.sum() / 2)
    expected = (distance >= abs(ranks[differences > 0].sum() - ranks.sum() / 2)).mean()
    assert signed_rank_p(differences) == pytest.approx(expected)
    assert signed_rank_p(np.array([1.0, -1.0])) == 1


@pytest.mark.parametrize("num_patients", range(1, 10))
def test_smallest_p_is_that_of_patients_who_all_agree(num_patients: int):
    agreed = np.arange(1.0, num_patients + 1)
    assert smallest_p(num_patients) == pytest.approx(signed_rank_p(agreed))


def test_five_patients_can_never_be_below_5_percent_and_six_can():
    assert smallest_p(5) > 0.05 > smallest_p(6)


def test_mean_over_classes_weighs_classes_alike():
    values = np.array([[1.0, 10.0], [3.0, NAN], [5.0, NAN]])
    assert mean_over_classes(values) == pytest.approx((3 + 10) / 2)
    assert np.isnan(mean_over_classes(np.full((2, 2), NAN)))


def mean_interval(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float] | None:
    """Of the mean over classes of values (P, K)."""
    means = np.concatenate(list(resampled_means(values[None], resamples=resamples, seed=seed)))[:, 0]
    return percentile_interval(mean_where_defined(means, axis=-1), len(values))


def median_interval(values: np.ndarray, *, resamples: int, seed: int) -> tuple[float, float] | None:
    """Of the median of values (P, 1)."""
    return percentile_interval(resampled_medians(values[:, 0], resamples=resamples, seed=seed), len(values))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_resampled_medians_are_those_of_all_equally_likely_draws(number: int):
    values = np.array([3.0, -1.0, 0.5, 10.0, 4.0])[:number]
    every = np.median(np.array(list(itertools.product(values, repeat=number))), axis=1)
    drawn = resampled_medians(values, resamples=40_000, seed=1)
    assert set(np.round(drawn, 9)) <= set(np.round(every, 9))
    for value in np.unique(every):
        assert np.isclose(drawn, value).mean() == pytest.approx(np.isclose(every, value).mean(), abs=0.01)


def test_interval_of_a_mean_is_that_of_scipy_at_the_expanded_level():
    values = np.random.default_rng(2).exponential(1, 10)
    for statistic, interval in ((np.mean, mean_interval), (np.median, median_interval)):
        expected = stats.bootstrap(
            (values,),
            statistic,
            n_resamples=20_000,
            random_state=np.random.default_rng(3),
            method="percentile",
            confidence_level=expanded_level(10),
        ).confidence_interval
        assert interval(values[:, None], resamples=20_000, seed=3) == pytest.approx(tuple(expected), abs=0.03)


def test_level_is_expanded_for_few_patients():
    """Of 10 patients Student's t is 2.262, times the root of 10/9 is 2.384; the normal tails beyond hold 0.0171."""
    assert expanded_level(10) == pytest.approx(1 - 0.0171, abs=1e-4)
    assert expanded_level(2) == pytest.approx(1)
    assert expanded_level(100_000) == pytest.approx(CONFIDENCE, abs=1e-4)


def test_same_seed_same_interval():
    values = np.random.default_rng(4).normal(0, 1, (12, 3))
    first, again, other = (mean_interval(values, resamples=300, seed=seed) for seed in (5, 5, 6))
    assert first == again != other


def test_interval_of_large_tables_is_made_in_batches(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(4).normal(0, 1, (12, 3))
    whole = mean_interval(values, resamples=300, seed=5)
    monkeypatch.setattr("spadunet.evaluation.compare.statistics.MAX_BATCH_VALUES", 1000)
    assert mean_interval(values, resamples=300, seed=5) == pytest.approx(whole)


def test_no_interval_of_fewer_than_six_patients_and_a_point_of_equal_ones():
    for num_patients in range(1, 6):
        values = np.random.default_rng(0).normal(0, 1, (num_patients, 2))
        assert mean_interval(values, resamples=50, seed=0) is None
    assert mean_interval(np.full((6, 1), 0.25), resamples=50, seed=0) == (0.25, 0.25)


def test_interval_where_a_class_is_in_one_patient_only():
    values = np.array([[0.1, NAN], [0.1, NAN], [0.2, NAN], [0.2, NAN], [0.3, NAN], [0.4, 0.9]])
    low_high = mean_interval(values, resamples=500, seed=0)
    assert low_high is not None
    assert 0.1 <= low_high[0] < mean_over_classes(values) <= low_high[1] <= 0.9


def coverage(draw, interval, truth: float, *, num_trials: int, num_patients: int) -> float:
    """In which share of trials the interval holds the truth."""
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(num_trials):
        low_high = interval(draw(rng, num_patients), resamples=999, seed=trial)
        assert low_high is not None
        hits += low_high[0] <= truth <= low_high[1]
    return hits / num_trials


@pytest.mark.slow
@pytest.mark.parametrize("num_patients", [6, 10, 30])
@pytest.mark.parametrize(
    ("draw", "interval", "truth", "lowest"),
    [
        (lambda rng, n: rng.normal(1, 2, (n, 1)), mean_interval, 1, 0.92),
        (lambda rng, n: rng.exponential(1, (n, 1)), mean_interval, 1, 0.87),  # so does Student's t
        (lambda rng, n: rng.standard_t(3, (n, 1)), mean_interval, 0, 0.92),
        (lambda rng, n: rng.normal(0, 1, (n, 1)) + rng.normal(1, 1, (n, 3)), mean_interval, 1, 0.92),
        (lambda rng, n: rng.normal(1, 2, (n, 1)), median_interval, 1, 0.92),
    ],
    ids=["normal", "skewed", "heavy tails", "classes that go together", "median"],
)
def test_intervals_cover_the_truth(draw, interval, truth: float, lowest: float, num_patients: int):
    """In 0.95 of trials, of which 500 have a standard error of 0.01; of few patients medians are covered more often."""
    share = coverage(draw, interval, truth, num_trials=500, num_patients=num_patients)
    assert lowest - (0.02 if num_patients == 6 else 0) < share < 0.985
