"""What a call costs, measured."""

from __future__ import annotations

import os
import sys

import pytest
from costly import fill

from spadunet.errors import OutputError
from spadunet.measure import measure, measure_apart

MEGABYTE = 2**20


def test_a_call_is_measured_in_a_process_of_its_own():
    cost = measure_apart(fill, 200 * MEGABYTE)
    assert cost.result == 200 * MEGABYTE
    assert 0.1 <= cost.seconds < 30
    assert 190 * MEGABYTE < cost.peak_bytes - cost.resting_bytes < 230 * MEGABYTE
    assert cost.start_seconds > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be reset on Linux only")
def test_a_smaller_call_after_a_larger_one_has_a_smaller_peak():
    large, small = measure(fill, 200 * MEGABYTE), measure(fill, 50 * MEGABYTE)
    assert large.peak_bytes - small.peak_bytes > 100 * MEGABYTE


def test_a_call_that_kills_its_process_is_an_error():
    with pytest.raises(OutputError, match="probably for lack of memory"):
        measure_apart(os._exit, 1)
