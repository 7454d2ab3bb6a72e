"""Patches of another spacing: what merging and rescaling make of slices and labels, and which batches they give."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spadunet.case import Geometry
from spadunet.labels import LabelSet
from spadunet.plans.patch import choose_patch
from spadunet.training.patches import Batch, BatchStream, TrainingTask
from spadunet.training.respace import MAX_MERGED, Respacing, degrees_met, draw_respacing, respace
from spadunet.training.variety import Variety, VarietyOptions

INSIDE = torch.ones(64, dtype=torch.bool)
BOTH = Variety(slice_merging=0.7, spacing_jitter=0.7)


def geometry_of(spacing_mm, shape) -> Geometry:
    """A grid that is stored as it is."""
    return Geometry(
        stored_shape=shape,
        stored_affine=np.diag([*spacing_mm, 1.0]).tolist(),
        axes=(0, 1, 2),
        flips=(False, False, False),
        crop=tuple((0, size) for size in shape),
        shape=shape,
        spacing_mm=spacing_mm,
    )


def columns(*values: int) -> torch.Tensor:
    """One column of voxels along depth."""
    return torch.tensor(values)[:, None, None]


def merged(image, classes, num_merged: int, inside=None):
    """Mean of each group of a column, and the labels of its slices."""
    mask = torch.ones(len(classes), dtype=torch.bool) if inside is None else torch.tensor(inside)
    size = (len(classes) // num_merged, 1, 1)
    respacing = Respacing(num_merged=num_merged)
    means, found = respace(columns(*image)[None].float(), columns(*classes), respacing, size, is_inside=mask)
    return means.flatten().tolist(), found.flatten().tolist()


def test_neighbouring_slices_are_averaged_and_keep_their_labels():
    assert merged([1, 2, 3, 4, 5, 9], [1, 1, 0, 0, 2, 2], 3) == ([2, 6], [1, 1, 0, 0, 2, 2])


def test_slices_beyond_the_volume_neither_count_nor_tell():
    inside = [False, False, True, True, False, False, False, False, False]
    image, classes = [-1, -1, 0.5, 0.25, -1, -1, -1, -1, -1], [0, 0, 3, 4, 0, 0, 0, 0, 0]
    assert merged(image, classes, 3, inside) == ([0.5, 0.25, -1], [3, 3, 3, 4, 4, 4, 0, 0, 0])
    outside = [False] * 4
    assert merged([-1] * 4, [0] * 4, 2, outside) == ([-1, -1], [0] * 4)


@pytest.mark.parametrize("factor", [2**-0.5, 1.2])
def test_pixels_of_another_size_show_the_same_image(factor: float):
    respacing = Respacing(plane_factor=factor)
    depth, height, width = respacing.source_size((2, 20, 20))
    assert (depth, height, width) == (2, round(20 * factor), round(20 * factor))
    ramp = torch.linspace(0, 1, width).expand(1, depth, height, width).contiguous()
    halves = (ramp[0] > 0.5).long()
    image, classes = respace(ramp, halves, respacing, (2, 20, 20), is_inside=INSIDE[:2])
    assert image.shape == (1, 2, 20, 20)
    assert classes.shape == (2, 20, 20)
    expected = torch.linspace(0, 1, 20).expand(2, 20, 20)
    assert torch.allclose(image[0], expected, atol=0.05)
    assert ((classes == 1) == (expected > 0.5)).float().mean() >= 0.95


def test_the_degree_follows_the_new_spacing():
    thin, thick = geometry_of((1, 1, 1), (30, 20, 20)), geometry_of((8, 1.25, 1.25), (10, 20, 20))
    assert [Respacing(num_merged=k).da_of(thin) for k in (1, 2, 3, 4, 6)] == [0, 1, 1, 2, 2]
    assert Respacing(num_merged=2, plane_factor=1.05).da_of(thin) == 0  # 1.9 pixels
    assert Respacing(num_merged=2, plane_factor=0.95).da_of(thin) == 1  # 2.1 pixels
    assert [Respacing(num_merged=k).da_of(thick) for k in (1, 2, 5, 6)] == [2, 3, 5, None]  # 10 slices, 2 at least
    assert Respacing(plane_factor=1.2).da_of(geometry_of((1, 1, 1), (1, 20, 20))) is None


@pytest.mark.parametrize(("merging", "jitter"), [(0.7, 0.7), (0.7, 0.0), (0.0, 0.7), (0.0, 0.0)])
def test_degrees_that_patches_may_get_are_those_that_are_drawn(merging: float, jitter: float):
    """In several processes, each of their batches is shared out."""
    for spacing_mm, shape in (
        ((1, 1, 1), (40, 9, 9)),
        ((45, 1, 1), (40, 9, 9)),
        ((3, 1, 1), (5, 9, 9)),
        ((1,) * 3, (1,) * 3),
    ):
        geometry, generator = geometry_of(spacing_mm, shape), np.random.default_rng(0)
        options = {"slice_merging": merging, "spacing_jitter": jitter}
        drawn = {draw_respacing(geometry, **options, generator=generator).da_of(geometry) for _ in range(1000)}
        assert degrees_met(geometry, **options) == drawn


def test_what_is_drawn_leaves_a_volume_a_volume():
    generator = np.random.default_rng(0)
    options = {"slice_merging": 1.0, "spacing_jitter": 1.0, "generator": generator}
    thin = geometry_of((1, 1, 1), (30, 20, 20))
    drawn = [draw_respacing(thin, **options) for _ in range(300)]
    assert {it.num_merged for it in drawn} == set(range(2, MAX_MERGED + 1))
    factors = [it.plane_factor for it in drawn]
    assert 2**-0.5 <= min(factors) < 0.75 < 1.35 < max(factors) <= 2**0.5
    ratios = [it.num_merged / it.plane_factor for it in drawn if it.num_merged == 2]
    assert min(ratios) < 1.6 < 2.5 < max(ratios)  # either side of the boundary at 2
    assert all(it.is_none for it in (draw_respacing(geometry_of((1, 1, 1), (1, 9, 9)), **options) for _ in range(20)))
    assert {draw_respacing(geometry_of((1, 1, 1), (5, 9, 9)), **options).num_merged for _ in range(50)} == {2}
    coarse = geometry_of((50, 1, 1), (40, 9, 9))  # degree 5; one more would be a 2D image
    assert all(draw_respacing(coarse, **options).da_of(coarse) == 5 for _ in range(50))


def test_nothing_is_drawn_where_nothing_is_asked_for():
    generator = np.random.default_rng(0)
    thin = geometry_of((1, 1, 1), (30, 20, 20))
    assert draw_respacing(thin, slice_merging=0, spacing_jitter=0, generator=generator).is_none
    assert generator.random() == np.random.default_rng(0).random()


@pytest.fixture
def mixed(make_task) -> TrainingTask:
    """Cases of three spacings with patches for each degree that differ in size."""
    kinds = {
        "thin": {"spacing_mm": (1.0, 1.0, 1.0), "shape": (24, 24, 24)},
        "medium": {"spacing_mm": (3.0, 1.0, 1.0), "shape": (12, 24, 24)},
        "thick": {"spacing_mm": (8.0, 1.25, 1.25), "shape": (6, 24, 24)},
        "flat": {"spacing_mm": (1.0, 1.0, 1.0), "shape": (1, 24, 24)},
    }
    tasks = [make_task(name, **kind) for name, kind in kinds.items()]
    sizes = {da: choose_patch(da, (24 >> da or 1, 24, 24), 0.004) for da in range(7)}
    assert len(set(sizes.values())) >= 4
    plan = tasks[0].plan.model_copy(update={"target_spacing_mm": "native", "patch_sizes_voxels": sizes})
    cases = tuple(case for task in tasks for case in task.cases)
    return TrainingTask(name="mixed", plan=plan, cases=cases, batch_size=2, variety=BOTH)


def same(a: Batch, b: Batch) -> bool:
    """Equal to the last bit."""
    return a.da == b.da and torch.equal(a.image, b.image) and torch.equal(a.classes, b.classes)


def test_batches_of_mixed_spacings_have_one_degree_and_its_patch_size(mixed: TrainingTask):
    stream = BatchStream([mixed], 0)
    seen = Counter()
    for step in range(60):
        batch = stream[step]
        size = mixed.plan.patch_sizes_voxels[batch.da]
        assert batch.image.shape == (2, 1, *size)
        assert batch.classes.shape == (2, batch.num_merged * size[0], *size[1:])
        assert 1 <= batch.num_merged <= MAX_MERGED
        assert batch.image.min() >= -1
        assert batch.image.max() <= 1
        seen[batch.da] += 1
    own = {case.da for case in mixed.cases}
    assert own == {0, 1, 2, 6}
    assert set(seen) > own  # and others, by merging
    assert set(seen) <= own | set(range(6))


def test_a_batch_of_changed_spacing_follows_from_seed_and_step_alone(mixed: TrainingTask):
    stream = BatchStream([mixed], 1)
    for step in (7, 3):
        batch = stream[step]
        stream[step + 1]
        assert same(batch, BatchStream([mixed], 1)[step])
    assert not same(stream[3], BatchStream([mixed], 2)[3])


def test_without_variety_batches_are_those_of_the_cases_themselves(mixed: TrainingTask):
    stream = BatchStream([replace(mixed, variety=Variety())], 0)
    assert {stream[step].da for step in range(40)} == {case.da for case in mixed.cases}


def test_merged_batches_hold_the_labels_of_the_case(make_task):
    # The class of `make_case` is the same in every slice, so merging changes neither it nor its brightness.
    task = make_task(shape=(24, 24, 24), num_classes=2)
    sizes = dict.fromkeys(range(7), (4, 24, 24))
    plan = task.plan.model_copy(update={"patch_sizes_voxels": sizes})
    stream = BatchStream([replace(task, plan=plan, variety=Variety(slice_merging=1.0))], 0)
    means = []
    for step in range(20):
        batch = stream[step]
        assert batch.da in (1, 2)
        if batch.classes.any() and not batch.classes.all():
            image = batch.image[:, 0].repeat_interleave(batch.num_merged, dim=1)
            means.append(float(image[batch.classes == 1].mean() - image[batch.classes == 0].mean()))
    assert len(means) >= 10
    assert min(means) > 0.4  # class 1 is 0.5, the rest between -1 and 0


def test_a_native_plan_meets_other_spacings_unless_told_and_a_fixed_one_if_told(make_task):
    fixed = make_task().plan
    native = fixed.model_copy(update={"target_spacing_mm": "native"})
    options = VarietyOptions()
    assert options.for_plan(fixed) == Variety()
    assert (options.for_plan(native).slice_merging, options.for_plan(native).spacing_jitter) == (0.3, 0.3)
    told = VarietyOptions(slice_merging=0.0, spacing_jitter=0.5)
    assert (told.for_plan(native).slice_merging, told.for_plan(fixed).spacing_jitter) == (0, 0.5)
    two = fixed.model_copy(update={"channel_names": ("T1", "T2"), "intensity": fixed.intensity * 2})
    assert (options.for_plan(fixed).channel_dropout, options.for_plan(two).channel_dropout) == (0, 0.2)
    assert math.isclose(VarietyOptions(channel_dropout=0).for_plan(two).channel_dropout, 0)
    assert math.isclose(options.for_plan(two, is_colour=True).channel_dropout, 0)


def test_the_log_tells_what_mirrors_do_to_labels():
    labels = LabelSet(names=("background", "left kidney", "right kidney"), ids=(0, 1, 2))
    variety = Variety(channel_dropout=0.2, mirror=("left-right",))
    assert variety.describe(labels) == (
        "20% lack a contrast; mirrored across left-right, where these change places: left kidney and right kidney"
    )
