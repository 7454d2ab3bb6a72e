"""The learning rate over a run."""

from __future__ import annotations

import pytest

from spadunet.training.schedule import WARM_UP, learning_rate


def test_rises_to_its_peak_at_the_end_of_the_warm_up_and_falls_to_zero_at_the_end():
    assert learning_rate(0, 1) == pytest.approx(1e-3 / (WARM_UP + 1e-3))
    assert learning_rate(WARM_UP, 1) == 1
    assert learning_rate(1, 1) == 0


def test_is_half_its_peak_half_way_down():
    assert learning_rate((1 + WARM_UP) / 2, 3e-3) == pytest.approx(1.5e-3)


def test_stays_zero_beyond_the_end():
    assert learning_rate(1.2, 1) == 0


def test_never_is_zero_or_negative_before_the_end():
    rates = [learning_rate(progress / 1000, 1) for progress in range(1000)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_a_stage_names_its_own_warm_up_and_lowest_rate():
    """Half way down the cosine, the rate lies in the middle between peak and lowest."""
    assert learning_rate(0.6, 1e-4, warm_up=0.2, lowest=2e-6) == pytest.approx(5.1e-5)
    assert learning_rate(1.0, 1e-4, warm_up=0.2, lowest=2e-6) == pytest.approx(2e-6)
    assert learning_rate(0.1, 1e-4, warm_up=0.2, lowest=2e-6) == pytest.approx(5e-5, rel=0.01)
    assert learning_rate(0.5, 1e-7, warm_up=0.0, lowest=1e-6) == 1e-7
