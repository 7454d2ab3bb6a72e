"""Patch sizes worked out by hand: 8 GB hold 128³ voxels."""

from __future__ import annotations

import itertools
import math

import pytest

from spadunet.plans.patch import choose_patch, scale_patch
from spadunet.spacing import MAX_DA, Shape


@pytest.mark.parametrize(
    ("da", "median_shape", "memory_gb", "patch"),
    [
        (0, (500, 500, 500), 8, (128, 128, 128)),
        (0, (500, 500, 500), 1, (64, 64, 64)),
        (3, (500, 500, 500), 8, (32, 256, 256)),  # 8 times fewer slices than pixels
        (0, (36, 50, 35), 12, (36, 52, 36)),  # hippocampus: the whole image, rounded up to fours
        (2, (9, 254, 256), 12, (9, 256, 256)),  # Sunnybrook: the whole image, all its slices
        (2, (9, 256, 256), 1, (9, 168, 168)),  # 2^18 voxels / 9 slices = 170.7² pixels
        (MAX_DA, (9, 256, 256), 12, (1, 256, 256)),
        (MAX_DA, (1, 2000, 1000), 0.25, (1, 256, 256)),  # 2^16 voxels
    ],
)
def test_a_patch_is_isotropic_in_mm_fits_the_memory_and_the_image(da: int, median_shape, memory_gb: float, patch):
    assert choose_patch(da, median_shape, memory_gb) == patch


def test_room_that_one_axis_leaves_goes_to_the_others():
    assert choose_patch(0, (500, 32, 500), 8) == (256, 32, 256)
    assert choose_patch(0, (32, 32, 5000), 8) == (32, 32, 2048)


def test_height_and_width_are_treated_alike():
    depth, height, width = choose_patch(1, (60, 100, 400), 2)
    assert choose_patch(1, (60, 400, 100), 2) == (depth, width, height)


@pytest.mark.parametrize("da", range(MAX_DA + 1))
def test_no_patch_takes_more_than_the_memory_or_more_than_the_image_needs(da: int):
    for shape, memory_gb in itertools.product([(1, 32, 32), (9, 256, 256), (500, 512, 512), (90, 40, 700)], [1, 8, 40]):
        patch = choose_patch(da, shape, memory_gb)
        assert math.prod(patch) <= memory_gb * 128**3 / 8
        assert all(size < limit + 4 for size, limit in zip(patch, shape, strict=True))
        assert patch[1] % 4 == patch[2] % 4 == 0


@pytest.mark.parametrize(("da", "patch"), [(0, (4, 4, 4)), (1, (2, 4, 4)), (5, (1, 4, 4)), (MAX_DA, (1, 4, 4))])
def test_the_smallest_patch_is_one_voxel_after_two_halvings(da: int, patch: Shape):
    assert choose_patch(da, (1, 1, 1), 12) == patch
    assert choose_patch(da, (500, 500, 500), 1e-6) == patch


@pytest.mark.parametrize(
    ("patch", "from_da", "patches"),
    [
        ((48, 192, 192), 2, [(192, 192, 192), (96, 192, 192), (48, 192, 192), (24, 192, 192), (12, 192, 192)]),
        (
            (40, 24, 32),
            2,
            [(32, 24, 32), (32, 24, 32), (40, 24, 32), (20, 24, 32), (10, 24, 32)],
        ),  # no deeper than wide
        ((1, 16, 16), 0, [(1, 16, 16)] * 5),
    ],
)
def test_a_given_patch_is_as_long_in_mm_at_every_degree(patch: Shape, from_da: int, patches: list[Shape]):
    assert [scale_patch(patch, from_da, da) for da in range(5)] == patches
    assert scale_patch(patch, from_da, MAX_DA) == (1, *patch[1:])
    assert scale_patch(patch, MAX_DA, MAX_DA) == patch
