"""Short runs on real cubes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cubes_file import write_cubes

from spadunet.classification.options import ClassificationOptions
from spadunet.classification.sources import Source, medmnist_source
from spadunet.medmnist import open_medmnist
from spadunet.plans.plan_classes import plan_medmnist


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of a second draw no page, which takes as long."""
    monkeypatch.setattr("spadunet.training.follow.write_report", lambda folder: None)
    monkeypatch.setattr("spadunet.training.curves.Curves.draw", lambda self: None)


@pytest.fixture(scope="session")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen cubes to learn from, eight to validate on."""
    return write_cubes(tmp_path_factory.mktemp("cubes") / "cubes.npz")


@pytest.fixture(scope="session")
def source(cubes: Path) -> Source:
    """The same, seen as 16 x 16 x 16 voxels."""
    dataset = open_medmnist(cubes)
    return medmnist_source(dataset, plan_medmnist(dataset, side_voxels=16), None)


@pytest.fixture
def make_options() -> Callable[..., ClassificationOptions]:
    """Of a short run on one core."""

    def make(**changes: object) -> ClassificationOptions:
        options = {
            "max_steps": 6,
            "max_minutes": None,
            "seed": 0,
            "device": torch.device("cpu"),
            "precision": torch.float32,
            "num_workers": 0,
            "checkpoint_minutes": 5.0,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
        }
        return ClassificationOptions(**{**options, **changes})

    return make
