"""Scales of the report's charts."""

from __future__ import annotations

import pytest

from spadunet.evaluation.report_charts import limits
from spadunet.evaluation.report_values import Better, MetricColumn


@pytest.mark.parametrize(
    ("better", "values", "expected"),
    [
        ("higher", [0.72, 0.95], (0.7, 1.0)),
        ("lower", [0.0, 13.0], (0.0, 15.0)),
        ("lower", [0.0], (0.0, 1.0)),
        (None, [-100.0, 30.0], (-100.0, 40.0)),
        (None, [-35.0, -5.0], (-40.0, 0.0)),
        (None, [2.0, 7.0], (0.0, 8.0)),
    ],
)
def test_a_scale_holds_all_values_and_nought_between_round_numbers(
    better: Better, values: list[float], expected: tuple[float, float]
):
    column = MetricColumn(name="any", title="any", places=2, better=better)
    assert limits(values, column) == expected
