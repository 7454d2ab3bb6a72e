"""Memory that a case takes at its peak, told from its headers.

The factors bound what was measured: the peak of a fresh process less its memory at rest, over volumes of 4 million
voxels, one and three int16 or float32 channels with uint8 labels. Reading took 4 to 8 bytes a value; preprocessing 9,
14 and 23 where it made half, as many and twice as many voxels. Wider types on disk take some more.
tests/preprocessing/test_memory.py measures again.
"""

from __future__ import annotations

import math

from ..classification_plan import ClassificationPlan
from ..dataset import RawCase
from ..plan import ImagePlan
from ..sizes import count_values, most_values, voxel_volume_mm3

BYTES_TO_READ = 10
"""Per value of all files, to read, check, turn and crop them."""
BYTES_TO_PREPROCESS = 8
"""Per value of all files, to preprocess them …"""
BYTES_TO_MAKE = 10
"""… and per value that is made."""
MOST_GROWTH = 8


def memory_to_read(case: RawCase) -> int:
    """Bytes to check a case or to take its fingerprint."""
    return count_values(case.paths) * BYTES_TO_READ


def memory_to_preprocess(case: RawCase, *, plan: ImagePlan) -> int:
    """Bytes to preprocess a case; cropping, which no header tells, may make it less."""
    num_read = count_values(case.paths)
    return num_read * BYTES_TO_PREPROCESS + round(num_read * growth(case, plan)) * BYTES_TO_MAKE


def memory_to_view(case: RawCase, *, plan: ClassificationPlan) -> int:
    """Bytes to preprocess an image that is classified, whose size the plan may fix."""
    size = plan.input_size_voxels
    if size is None:
        return memory_to_preprocess(case, plan=plan)
    num_made = math.prod(size) * len(plan.channel_names)
    return count_values(case.paths) * BYTES_TO_PREPROCESS + num_made * BYTES_TO_MAKE


def most_memory(case: RawCase, *, plan: ImagePlan | None = None) -> int:
    """More bytes than reading a case takes, or preprocessing it if no voxel is split into more than MOST_GROWTH."""
    factor = BYTES_TO_READ if plan is None else BYTES_TO_PREPROCESS + MOST_GROWTH * BYTES_TO_MAKE
    return most_values(case.paths) * factor


def growth(case: RawCase, plan: ImagePlan) -> float:
    """By how much resampling multiplies the voxels; 1 where the header does not tell."""
    if plan.target_spacing_mm == "native":
        return 1.0
    volume_mm3 = voxel_volume_mm3(case.paths[0])
    if volume_mm3 is None:
        return 1.0
    depth, height, width = plan.target_spacing_mm
    return volume_mm3 / (depth * height * width)
