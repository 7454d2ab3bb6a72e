"""Memory hardly grows with the number of classes: measured in processes of their own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from many_classes import SIDE, predict_waves


def measure(*arguments: object) -> int:
    """`predict_waves` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(predict_waves, *arguments).result()


@pytest.mark.slow
def test_memory_hardly_grows_with_the_number_of_classes(tmp_path: Path):
    whole = 120 * SIDE**3 * 4
    few, many, on_disk = measure(3, None, tmp_path), measure(120, None, tmp_path), measure(120, 0, tmp_path)
    megabytes = [round(size / 1e6) for size in (few, many, on_disk, whole)]
    print("MB of 3 classes, 120 in memory, 120 on disk, all logits of 120:", *megabytes)
    assert many - few < 0.5 * whole
    assert on_disk - few < 0.15 * whole  # three times one window's logits, in the network itself
