"""Risk against coverage, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spadunet.evaluation.risk import kept_mean, risk_coverage, spearman
from spadunet.evaluation.risk_report import QualityCheck, check_quality, draw_risk_coverage, summary_of

DICE = np.array([0.9, 0.5, 0.8, 0.2])


def test_keeping_the_best_first_and_the_worst_first():
    curve = risk_coverage(DICE, DICE)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk == pytest.approx([0.1, 0.15, 0.8 / 3, 0.4])
    assert curve.risk == pytest.approx(curve.oracle)
    assert curve.chance == pytest.approx(0.4)
    assert risk_coverage(-DICE, DICE).risk == pytest.approx([0.8, 0.65, 1.5 / 3, 0.4])


def test_among_equal_expectations_no_order_is_better():
    curve = risk_coverage(np.array([0.7, 0.7, 0.7, 0.1]), DICE)
    assert curve.risk == pytest.approx([0.8 / 3] * 3 + [0.4])


def test_the_kept_share_and_its_edges():
    assert kept_mean(DICE, DICE) == pytest.approx(2.2 / 3)
    assert kept_mean(DICE[:1], DICE[:1]) == pytest.approx(0.9)


def test_rank_correlation():
    assert spearman(DICE, DICE**3) == pytest.approx(1)
    assert spearman(DICE, -DICE) == pytest.approx(-1)
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(np.ones(4), DICE) is None
    assert spearman(DICE[:1], DICE[:1]) is None


@pytest.mark.parametrize("num_cases", [1, 4])
def test_numbers_and_picture(tmp_path: Path, num_cases: int):
    pairs = {f"case_{number}": (dice - 0.1, dice) for number, dice in enumerate(DICE.tolist()[:num_cases])}
    check = check_quality(pairs, ("lost",))
    assert QualityCheck.from_json(check.to_json()) == check
    assert check.error == pytest.approx(0.1)
    assert check.spearman == (None if num_cases == 1 else pytest.approx(1))
    assert "without expected or true Dice: lost" in summary_of(check)
    path = draw_risk_coverage(tmp_path / "a.png", check)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [it.name for it in tmp_path.iterdir()] == ["a.png"]
