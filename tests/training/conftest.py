"""Tiny preprocessed cases and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spadunet.case import Case, Geometry
from spadunet.fingerprint import CaseFacts, Fingerprint, IntensityFacts
from spadunet.labels import LabelSet
from spadunet.plans.planner import make_plan
from spadunet.preprocessing.store import open_case, store_case
from spadunet.training.loop import RunOptions
from spadunet.training.patches import TrainingTask

FACTS = IntensityFacts(percentile_00_5=0, percentile_50=50, percentile_99_5=100, mean=50, std=20)


def make_case(name: str, spacing_mm, shape, num_classes: int, seed: int) -> Case:
    """Noise in which each class is a bright slab of columns in the middle of the volume."""
    generator = np.random.default_rng(seed)
    image = generator.uniform(-1, 0, (1, *shape)).astype(np.float32)
    classes = np.zeros(shape, np.uint8)
    middle, sides = shape[1] // 2, np.array_split(np.arange(shape[2] // 4, 3 * shape[2] // 4), num_classes - 1)
    for number, columns in enumerate(sides, start=1):
        classes[:, middle - 2 : middle + 2, columns] = number
        image[0][classes == number] = number / num_classes
    geometry = Geometry(
        stored_shape=shape,
        stored_affine=np.diag([*spacing_mm, 1.0]).tolist(),
        axes=(0, 1, 2),
        flips=(False, False, False),
        crop=tuple((0, size) for size in shape),
        shape=shape,
        spacing_mm=spacing_mm,
    )
    return Case(name=name, image=image, classes=classes, geometry=geometry)


@pytest.fixture
def make_task(tmp_path: Path) -> Callable[..., TrainingTask]:
    """Store cases of one kind and give the task that trains on them, with one patch size for all degrees."""

    def make(
        name: str = "Dataset001_A",
        *,
        spacing_mm=(1.0, 1.0, 1.0),
        shape=(12, 24, 24),
        patch=(8, 16, 16),
        num_cases: int = 3,
        num_classes: int = 3,
        batch_size: int = 2,
    ) -> TrainingTask:
        folder = tmp_path / "cases" / name
        facts = tuple(CaseFacts(name=f"c{n}", spacing_mm=spacing_mm, shape=shape) for n in range(num_cases))
        labels = LabelSet(
            names=("background", *(f"organ{n}" for n in range(1, num_classes))), ids=tuple(range(num_classes))
        )
        fingerprint = Fingerprint(dataset_name=name, source_digest="0", cases=facts, intensities=(FACTS,))
        plan = make_plan(fingerprint, ("MRI",), labels)
        plan = plan.model_copy(update={"patch_sizes_voxels": dict.fromkeys(range(7), patch)})
        for number, case in enumerate(facts):
            stored = make_case(case.name, spacing_mm, shape, num_classes, number)
            store_case(folder, stored, made_from="0", plan_digest=plan.digest())
        return TrainingTask(
            name=name, plan=plan, cases=tuple(open_case(folder, case.name) for case in facts), batch_size=batch_size
        )

    return make


@pytest.fixture
def make_options() -> Callable[..., RunOptions]:
    """Options of a short run on one core; a checkpoint after every step."""

    def make(**changes: object) -> RunOptions:
        options = {
            "max_steps": 8,
            "max_minutes": None,
            "learning_rate": 3e-3,
            "weight_decay": 0.01,
            "seed": 0,
            "device": torch.device("cpu"),
            "precision": torch.float32,
            "num_workers": 0,
            "checkpoint_minutes": 1e-9,
        }
        return RunOptions(**{**options, **changes})

    return make
