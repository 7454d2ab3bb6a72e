"""Memory does not grow with the number of classes: measured in processes of their own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from many_classes import WIDTH, predict_waves


def measure(*arguments: object) -> int:
    """`predict_waves` in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(predict_waves, *arguments).result()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_classes(tmp_path: Path):
    few, more, many = (measure(number, None, tmp_path) for number in (3, WIDTH + 1, 120))
    few_on_disk, many_on_disk = measure(3, 0, tmp_path), measure(120, 0, tmp_path)
    megabytes = [round(size / 1e6) for size in (few, more, many, few_on_disk, many_on_disk)]
    print("MB of 3, 17 and 120 classes in memory, of 3 and 120 on disk:", *megabytes)
    assert many < 1.25 * more
    assert many < 3.5 * few  # 16 features are held where there were 3 logits
    assert many_on_disk < 2.5 * few_on_disk
