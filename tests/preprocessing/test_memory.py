"""The estimate from headers, by hand, and against the real peak of a process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from peak_memory import peak_bytes

from spadunet.dataset import RawCase
from spadunet.labels import LabelSet
from spadunet.plan import IntensityRule, Plan
from spadunet.plans.extract import extract_case
from spadunet.preprocessing.integrity import check_case, read_checked
from spadunet.preprocessing.memory import (
    BYTES_TO_MAKE,
    BYTES_TO_PREPROCESS,
    BYTES_TO_READ,
    memory_to_preprocess,
    memory_to_read,
)
from spadunet.preprocessing.preprocess import orient_and_crop
from spadunet.preprocessing.run import preprocess_case
from spadunet.spacing import Spacing

LABELS = LabelSet(names=("background", "liver", "spleen"), ids=(0, 1, 2))


def make_case(
    folder: Path, shape: tuple[int, int, int], *, num_channels: int = 1, voxel_type: str = "int16"
) -> RawCase:
    """A ball in noise, with voxels of 1×1×2 mm (x, y, z)."""
    generator = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32) for size in shape], indexing="ij", sparse=True)
    radius = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2
    paths = []
    for channel in range(num_channels):
        noise = generator.standard_normal(shape, dtype=np.float32)
        paths.append(write(folder / f"a_{channel:04}.nii.gz", (1000 - 800 * radius + 50 * noise).astype(voxel_type)))
    label_path = write(folder / "a.nii.gz", (radius < 0.6).astype(np.uint8) + (radius < 0.3))
    return RawCase(name="a", image_paths=tuple(paths), label_path=label_path)


def write(path: Path, array: np.ndarray) -> Path:
    """Write a volume."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 1, 2))
    sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
    return path


def make_plan(target_spacing_mm: Spacing, *, num_channels: int = 1) -> Plan:
    """A plan with this spacing."""
    return Plan(
        dataset_name="ball",
        channel_names=("T1",) * num_channels,
        intensity=(IntensityRule(kind="percentiles", low=0.5, high=99.5),) * num_channels,
        target_spacing_mm=target_spacing_mm,
        degree_of_anisotropy=0,
        patch_sizes_voxels=dict.fromkeys(range(7), (8, 8, 8)),
        labels=LABELS,
        memory_gb=1,
        fingerprint_digest="",
    )


def test_the_estimate_counts_what_is_read_and_what_is_made(tmp_path: Path):
    case = make_case(tmp_path, (4, 5, 6), num_channels=2)
    assert memory_to_read(case) == 3 * 120 * BYTES_TO_READ
    halved = make_plan((2, 2, 1), num_channels=2)  # voxels of 4 mm³ from 2 mm³
    assert memory_to_preprocess(case, plan=halved) == 3 * 120 * BYTES_TO_PREPROCESS + 3 * 60 * BYTES_TO_MAKE
    native = halved.model_copy(update={"target_spacing_mm": "native"})
    assert memory_to_preprocess(case, plan=native) == 3 * 120 * (BYTES_TO_PREPROCESS + BYTES_TO_MAKE)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
@pytest.mark.parametrize(
    ("num_channels", "growth", "voxel_type"),
    [(1, 0.5, "int16"), (1, 1, "int16"), (1, 2, "int16"), (3, 2, "int16"), (1, 2, "float32")],
)
def test_the_estimate_is_above_the_real_peak_but_not_far(
    tmp_path: Path, num_channels: int, growth: float, voxel_type: str
):
    case = make_case(tmp_path, (100, 200, 200), num_channels=num_channels, voxel_type=voxel_type)
    side = (2 / growth) ** (1 / 3)
    plan = make_plan((side, side, side), num_channels=num_channels)
    read = partial(read_checked, labels=LABELS, num_channels=num_channels)
    stages = {
        "check": (partial(check_case, case, labels=LABELS, num_channels=num_channels), memory_to_read(case)),
        "extract": (partial(extract_case, case, read=read, orient=orient_and_crop), memory_to_read(case)),
        "preprocess": (
            partial(preprocess_case, case, plan=plan, folder=tmp_path / "cases"),
            memory_to_preprocess(case, plan=plan),
        ),
    }
    for stage, (function, estimate) in stages.items():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            peak = pool.submit(peak_bytes, function).result()
        print(f"{stage}: {num_channels} channels, growth {growth}: {peak / 4e6 / (num_channels + 1):.1f} bytes a value")
        assert peak <= estimate <= 3 * peak, stage
