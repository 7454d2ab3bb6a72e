"""Batches: drawn from (seed, step) alone, one task, degree and size each."""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch

from spadunet.case import Case
from spadunet.preprocessing.store import StoredCase, open_case, store_case
from spadunet.training import patches
from spadunet.training.loop import load_batches
from spadunet.training.patches import Batch, BatchStream, TrainingTask, choose_batch_size, draw_corner

NO_FOREGROUND = np.zeros((0, 4), np.int32)


def same(a: Batch, b: Batch) -> bool:
    """Equal to the last bit."""
    equal = torch.equal(a.image, b.image) and torch.equal(a.classes, b.classes)
    return equal and (a.task, a.da) == (b.task, b.da)


def test_a_batch_follows_from_seed_and_step_alone(make_task):
    task = make_task()
    stream = BatchStream([task], 1)
    batch = stream[5]
    for step in (0, 9, 3):
        stream[step]
    assert same(stream[5], batch)
    assert same(BatchStream([task], 1)[5], batch)
    assert not same(BatchStream([task], 1)[6], batch)
    assert not same(BatchStream([task], 2)[5], batch)


def test_a_batch_is_the_same_whether_the_worker_or_the_device_augments_it(make_task):
    task = make_task()
    late, early = BatchStream([task], 1, augments=False), BatchStream([task], 1)
    larger = 0
    for step in range(6):
        batch = late[step]
        assert batch.augmentation is not None
        assert batch.image.shape[2:] == batch.augmentation.read_size
        larger += batch.image.shape != early[step].image.shape
        finished = batch.finish(torch.device("cpu"))
        assert same(finished, early[step])
        assert same(finished.finish(torch.device("cpu")), finished)  # what is done is not done again
    assert larger


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork
def test_the_number_of_workers_does_not_matter(make_task, make_options):
    stream = BatchStream([make_task()], 0)
    batches = [list(load_batches(stream, 1, make_options(max_steps=5, num_workers=workers))) for workers in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 4
    assert all(same(a, b) for a, b in zip(*batches, strict=True))
    assert same(batches[0][0], stream[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12 on fork
def test_workers_do_not_wait_for_threads_that_read_patches_before_them(make_task, make_options):
    before = blosc2.set_nthreads(2)
    try:
        stream = BatchStream([make_task()], 0)
        first = stream[0]  # by Blosc2's threads in this process
        (batch,) = load_batches(stream, 0, make_options(max_steps=1, num_workers=1))
        assert same(batch, first)
        assert blosc2.nthreads == 1
    finally:
        blosc2.set_nthreads(before)


def test_a_batch_has_one_degree_and_the_patch_size_of_that_degree(make_task):
    thin, thick = make_task("thin"), make_task("thick", spacing_mm=(8.0, 1.25, 1.25), shape=(6, 24, 24))
    sizes = {da: (2, 8, 8) if da == 2 else (8, 16, 16) for da in range(7)}
    plan = thin.plan.model_copy(update={"target_spacing_mm": "native", "patch_sizes_voxels": sizes})
    mixed = TrainingTask(name="mixed", plan=plan, cases=thin.cases + thick.cases, batch_size=3)
    stream = BatchStream([mixed], 0)
    seen = Counter()
    for step in range(30):
        batch = stream[step]
        assert batch.image.shape == (3, 1, *sizes[batch.da])
        assert batch.classes.shape == (3, *sizes[batch.da])
        assert batch.image.dtype == torch.float32
        assert batch.classes.dtype == torch.int64
        seen[batch.da] += 1
    assert set(seen) == {0, 2}
    assert min(seen.values()) >= 5  # half of 30 each; fewer than 5 in 1 of 30 000 streams


def test_joint_training_draws_every_task_as_often_as_its_weight(make_task):
    one, other = make_task("Dataset001_A"), make_task("Dataset002_B", batch_size=1)
    heavy = TrainingTask(name=one.name, plan=one.plan, cases=one.cases, batch_size=1, weight=3)
    names = Counter(BatchStream([heavy, other], 0)[step].task for step in range(80))
    # 60 and 20 of 80 are expected, with a standard deviation of sqrt(80 · 3/4 · 1/4) = 3.9.
    assert abs(names["Dataset001_A"] - 60) < 4 * 3.9
    assert names["Dataset001_A"] + names["Dataset002_B"] == 80


def test_a_share_of_patches_is_centred_on_foreground_and_every_class_as_often():
    # 90 voxels of class 1 in one place, 1 of class 2 in another, in a volume large enough to tell them from chance.
    foreground = np.array([[1, 500, 500, 500]] * 90 + [[2, 700, 700, 700]], np.int32)
    generator = np.random.default_rng(0)
    corners = [draw_corner((1000, 1000, 1000), (8, 8, 8), foreground, generator) for _ in range(2000)]
    centres = Counter(tuple(c + 4 for c in corner) for corner in corners)
    # A binomial of 2000 draws with half of the share each.
    share = patches.FOREGROUND_SHARE / 2
    allowed = 4 * (2000 * share * (1 - share)) ** 0.5
    assert abs(centres[500, 500, 500] - 2000 * share) < allowed
    assert abs(centres[700, 700, 700] - 2000 * share) < allowed


def test_where_voxels_are_ignored_the_rest_of_the_patches_is_centred_on_labelled_background():
    labelled = np.array([[0, 500, 500, 500], [1, 700, 700, 700]], np.int32)
    generator = np.random.default_rng(0)
    corners = [draw_corner((1000, 1000, 1000), (8, 8, 8), labelled, generator) for _ in range(1000)]
    centres = Counter(tuple(c + 4 for c in corner) for corner in corners)
    share = patches.FOREGROUND_SHARE
    assert set(centres) == {(500, 500, 500), (700, 700, 700)}
    assert abs(centres[700, 700, 700] - 1000 * share) < 4 * (1000 * share * (1 - share)) ** 0.5
    assert draw_corner((1000, 1000, 1000), (8, 8, 8), labelled[:1], generator) == [496, 496, 496]


def test_where_voxels_are_ignored_and_no_background_is_labelled_every_patch_is_centred_on_a_structure():
    strokes = np.array([[1, 500, 500, 500], [2, 700, 700, 700]], np.int32)
    generator = np.random.default_rng(0)
    corners = [draw_corner((1000,) * 3, (8, 8, 8), strokes, generator, has_ignored=True) for _ in range(200)]
    assert {tuple(c + 4 for c in corner) for corner in corners} == {(500, 500, 500), (700, 700, 700)}
    assert draw_corner((10,) * 3, (4,) * 3, NO_FOREGROUND, generator, has_ignored=True)  # nothing is known: anywhere


@pytest.mark.parametrize("foreground", [NO_FOREGROUND, np.array([[1, 0, 0, 0], [1, 9, 9, 9]], np.int32)])
def test_patches_lie_inside_the_volume_and_reach_both_ends(foreground: np.ndarray):
    generator = np.random.default_rng(0)
    corners = np.array([draw_corner((10, 10, 10), (8, 4, 10), foreground, generator) for _ in range(300)])
    assert corners.min(0).tolist() == [0, 0, 0]
    assert corners.max(0).tolist() == [2, 6, 0]


def test_a_volume_smaller_than_the_patch_is_centred_in_it():
    generator = np.random.default_rng(0)
    for _ in range(20):
        # 4 voxels in 8: two on each side; 5 in 8: one and two.
        assert draw_corner((4, 5, 8), (8, 8, 8), np.array([[1, 0, 0, 0]], np.int32), generator) == [-2, -2, 0]


def test_a_volume_smaller_than_the_patch_trains_with_the_darkest_value_around_it(make_task):
    task = make_task(shape=(4, 24, 24), patch=(8, 16, 16))
    batch = BatchStream([task], 0)[0]
    assert batch.image.shape == (2, 1, 8, 16, 16)
    assert batch.classes.any()


def test_a_case_without_foreground_gives_patches_of_background(make_task, monkeypatch: pytest.MonkeyPatch):
    task = make_task()
    monkeypatch.setattr("spadunet.preprocessing.store.StoredCase.foreground_voxels", lambda _: NO_FOREGROUND)
    assert BatchStream([task], 0)[0].image.shape == (2, 1, 8, 16, 16)


def test_no_voxels_of_cases_stay_in_memory(make_task, monkeypatch: pytest.MonkeyPatch):
    """Of a thousand cases with a hundred classes they would be gigabytes in every worker."""
    read, real = [], StoredCase.foreground_voxels

    def foreground_voxels(case: StoredCase) -> np.ndarray:
        voxels = real(case)
        read.append(weakref.ref(voxels))
        return voxels

    monkeypatch.setattr(StoredCase, "foreground_voxels", foreground_voxels)
    stream = BatchStream([make_task()], 0)
    for step in range(3):
        stream[step]
    assert read
    assert [voxels() for voxels in read] == [None] * len(read)


def test_one_slice_images_are_drawn_as_such(make_task):
    task = make_task(spacing_mm=(1.0, 1.0, 1.0), shape=(1, 24, 24), patch=(1, 16, 16))
    batch = BatchStream([task], 0)[0]
    assert (batch.da, batch.image.shape) == (6, (2, 1, 1, 16, 16))


@pytest.mark.parametrize(
    ("memory_gb", "patch", "size"),
    [
        (12.0, (128, 160, 128), 2),  # a patch that fills the memory with two
        (12.0, (40, 56, 40), 4),
        (0.8, (40, 56, 40), 4),
        (0.5, (40, 56, 40), 2),
        (0.1, (128, 128, 128), 2),  # edited by hand to more than its memory
    ],
)
def test_small_patches_make_larger_batches(make_task, memory_gb: float, patch: tuple[int, int, int], size: int):
    plan = make_task().plan
    changed = {"memory_gb": memory_gb, "patch_sizes_voxels": dict.fromkeys(range(7), patch)}
    assert choose_batch_size(plan.model_copy(update=changed), 0) == size


def test_a_batch_holds_as_many_patches_as_its_degree_leaves_room_for(make_task):
    thin, thick = make_task("thin"), make_task("thick", spacing_mm=(8.0, 1.25, 1.25), shape=(6, 24, 24))
    sizes = {da: (2, 8, 8) if da == 2 else (8, 16, 16) for da in range(7)}
    changed = {"target_spacing_mm": "native", "patch_sizes_voxels": sizes, "memory_gb": 0.008}
    mixed = TrainingTask(
        name="mixed", plan=thin.plan.model_copy(update=changed), cases=thin.cases + thick.cases, batch_size=None
    )
    stream = BatchStream([mixed], 0)
    assert {(batch.da, len(batch.image)) for batch in map(stream.__getitem__, range(20))} == {(0, 2), (2, 4)}


def test_a_missing_channel_is_zero_in_every_patch_whatever_augmentation_does(make_task, tmp_path: Path):
    task = make_task(shape=(4, 24, 24))  # padded along depth
    case = task.cases[0]
    classes = case.read_patch((0, 0, 0), (4, 24, 24))[1].astype(np.uint8)
    image = np.random.default_rng(0).uniform(-1, 1, (3, 4, 24, 24)).astype(np.float32)
    image[[0, 2]] = 0
    stored = Case(name="x", image=image, classes=classes, geometry=case.header.geometry, missing_channels=(0, 2))
    store_case(tmp_path / "x", stored, made_from="", plan_digest="")
    stream = BatchStream([dataclasses.replace(task, cases=(open_case(tmp_path / "x", "x"),))], 0)
    for step in range(20):
        batch = stream[step]
        assert batch.image.shape == (2, 3, 8, 16, 16)
        assert not batch.image[:, [0, 2]].any()
        assert batch.image[:, 1].any()
