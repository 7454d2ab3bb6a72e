"""Predictions on the workers of a cluster."""

from __future__ import annotations

from distributed import Client

from spadunet.inference.job import memory_gb_here


def test_a_worker_of_dask_plans_with_its_own_limit_of_memory():
    assert memory_gb_here() is None  # no worker
    options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    for limit, expected in (("2 GB", 1.6), (0, None)):
        with Client(**options, memory_limit=limit) as client:
            assert client.submit(memory_gb_here).result(timeout=60) == expected
