"""Logits fit into memory: what is chosen, what is fallen back on, and what it takes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bright_network import Threshold, engine_of, image_with_box, plan_of

from spadunet.errors import InputError, OutputError
from spadunet.inference.budget import (
    Budget,
    Demand,
    choose_storages,
    find_budget,
    require_room,
    tell_choice,
    tell_shortage,
    windows_at_once,
)
from spadunet.inference.predict import Engine, predict_image
from spadunet.inference.storage import Sums

SHAPE, PATCH, CPU = (300, 200, 200), (100, 100, 100), torch.device("cpu")
HELD = 10 * 100 * 200 * 200 * 4


def demand(shape=SHAPE, *patches, **more) -> Demand:
    """Of ten outputs."""
    return Demand(shape=shape, patches=patches or (PATCH,), **{"num_outputs": 10, "num_logits": 10} | more)


def places(budget: Budget) -> list[str]:
    """What `choose_storages` offers for ten outputs, in words."""
    return [str(storage) for storage in choose_storages(demand(), budget)]


def test_only_one_windows_depth_is_held():
    assert demand().held_bytes(torch.float32) == HELD
    assert demand((200, 200, 300)).held_bytes(torch.float32) == HELD  # along the longest axis
    assert demand((20, 20, 20)).held_bytes(torch.float16) == 10 * 100**3 * 2  # of what is padded


def test_the_fastest_place_that_fits_comes_first_and_smaller_ones_follow():
    rest = 300 * 200 * 200 * 24 + 10 * 100**3 * 4
    host32, host16, disk = "float32 in the host's memory", "float16 in the host's memory", "float16 on disk"
    assert places(Budget(host_bytes=None)) == [host32, host16, disk]
    assert places(Budget(host_bytes=rest + 2 * HELD)) == [host32, host16, disk]
    assert places(Budget(host_bytes=rest + 2 * HELD - 1)) == [host16, disk]
    assert places(Budget(host_bytes=rest + HELD - 1)) == [disk]
    assert places(Budget(host_bytes=0, device_bytes=HELD * 2))[0] == "float32 in the device's memory"
    assert places(Budget(host_bytes=0, device_bytes=HELD)) == [disk]


def test_probabilities_of_the_case_and_of_the_last_one_count_on_the_images_own_grid():
    plain, keeps = (demand(stored_shape=(600, 400, 400), num_probabilities=count) for count in (0, 10))
    assert keeps.probability_bytes() == 600 * 400 * 400 * 10 * 2 == 1_920_000_000
    assert keeps.least_bytes() - plain.least_bytes() == 2 * keeps.probability_bytes()
    budget = Budget(host_bytes=3 * 10**9)
    assert "its probabilities take 1.9 GB, and those of the last case" in tell_choice("liver_1", keeps, budget, CPU)
    assert "(3.84 GB of it for --save-probabilities)" in tell_shortage("liver_1", keeps, budget)
    require_room("liver_1", keeps, budget)
    require_room("liver_1", plain, Budget(host_bytes=0))
    message = "^liver_1: probabilities of 10 classes or regions of 600×400×400 voxels take 1.92 GB of memory, more than"
    with pytest.raises(InputError, match=message):
        require_room("liver_1", keeps, Budget(host_bytes=10**9))


def test_the_budget_knows_the_models_of_an_ensemble_and_the_outputs_asked_for():
    windows = 10 * 100**3 * 4
    assert (
        demand(num_models=5).held_bytes(torch.float32) == HELD
    )  # windows of one size are averaged before they are added
    assert demand(SHAPE, PATCH, (60, 100, 100)).held_bytes(torch.float32) == HELD + HELD * 60 // 100
    assert (demand().window_bytes(), demand(num_models=2).window_bytes()) == (windows, 3 * windows)
    few = demand(num_outputs=2)
    assert (few.held_bytes(torch.float32), few.window_bytes()) == (HELD // 5, windows)
    rest = 300 * 200 * 200 * 24 + windows
    assert choose_storages(demand(), Budget(host_bytes=rest + 2 * HELD))[0].dtype == torch.float32
    for more in ({"num_models": 2}, {"num_channels": 2}):
        assert choose_storages(demand(**more), Budget(host_bytes=rest + 2 * HELD))[0].dtype == torch.float16
    assert "of 10 outputs, the mean of 3 models, are" in tell_choice(
        "a", demand(num_models=3), Budget(host_bytes=None), CPU
    )


def test_the_user_or_what_is_free_sets_the_budget(monkeypatch: pytest.MonkeyPatch):
    assert find_budget(2.5, CPU, None) == Budget(host_bytes=2_500_000_000)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr("spadunet.inference.budget.available_bytes", lambda: 1000)
    assert find_budget(None, CPU, None).host_bytes == 800
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # processes on this machine
    assert find_budget(None, CPU, None).host_bytes == 200
    assert find_budget(2.5, CPU, None).host_bytes == 2_500_000_000


def test_the_images_own_grid_counts_beside_the_networks():
    """Each image three times as fine as the network's grid along each axis: this, the next and the last one."""
    fine, voxels = (900, 600, 600), 300 * 200 * 200
    assert demand().image_bytes() == voxels * (8 + 8 + 8)
    assert demand(stored_shape=fine).image_bytes() == voxels * (27 * (8 + 8) + 8)
    assert demand(stored_shape=fine, num_stored_channels=2, num_channels=2).image_bytes() == voxels * (27 * 24 + 16)
    budget = Budget(host_bytes=2 * HELD + 10 * 100**3 * 4 + voxels * 24)
    assert choose_storages(demand(), budget)[0].place == "host"
    assert choose_storages(demand(stored_shape=fine), budget)[0].place == "disk"


def test_an_engine_knows_the_images_own_grid(engine: Engine):
    asked = engine.demand((10, 10, 10), 0, (40, 40, 40))
    assert (asked.stored_shape, asked.num_stored_channels) == ((40, 40, 40), len(engine.plan.channel_names))


def test_what_cannot_fit_is_told():
    least = 300 * 200 * 200 * 24 + 10 * 100**3 * 4
    assert demand().least_bytes() == least
    for enough in (None, least):
        assert tell_shortage("liver_3", demand(), Budget(host_bytes=enough)) == ""
    text = tell_shortage("liver_3", demand(), Budget(host_bytes=1000))
    assert text.startswith("liver_3 takes at least 0.328 GB of memory beside the networks")
    assert "more than the 1e-06 GB that may be taken" in text


def test_the_choice_is_told():
    text = tell_choice("liver_3", demand(), Budget(host_bytes=4_000_000_000), CPU)
    assert "4 GB" in text and "liver_3" in text and "300×200×200" in text
    assert "10 outputs are added up as float32 in the host's memory, 100 slices at a time (0.16 GB)" in text
    assert text.endswith("windows at once: 1")
    assert windows_at_once((32, 64, 64), torch.device("cuda")) == 8
    assert windows_at_once((128, 160, 160), torch.device("cuda")) == 1


@pytest.fixture
def engine() -> Engine:
    return engine_of(plan_of("native"))


def test_where_memory_runs_out_the_next_place_is_taken_and_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    image, _ = image_with_box((20, 14, 12), np.eye(4))
    expected = predict_image(image, engine).array
    whole, tried = Sums.__init__, []

    def short(self, shape, storage, device) -> None:
        tried.append(str(storage))
        if storage.place == "host":
            raise MemoryError
        whole(self, shape, storage, device)

    monkeypatch.setattr(Sums, "__init__", short)
    with caplog.at_level(logging.WARNING, "spadunet"):
        assert np.array_equal(predict_image(image, engine).array, expected)
    assert tried == ["float32 in the host's memory", "float16 in the host's memory", "float16 on disk"]
    assert caplog.text.count("out of memory with logits as") == 2
    assert "tried again as float16 on disk" in caplog.text


def test_a_disk_too_small_for_the_logits_fails_that_case_by_name(engine: Engine, tmp_path: Path, limited_files):
    image, _ = image_with_box((20, 14, 12), np.eye(4))
    on_disk = replace(engine, budget=Budget(host_bytes=0, folder=tmp_path))
    predict_image(image, on_disk)
    with limited_files(1000), pytest.raises(OutputError, match=f"^image: {tmp_path}: cannot hold the logits"):
        predict_image(image, on_disk)


def test_what_fails_for_another_reason_is_not_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def broken(self, x, da):
        calls.append(da)
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Threshold, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predict_image(image_with_box((20, 14, 12), np.eye(4))[0], engine)
    assert len(calls) == 1
