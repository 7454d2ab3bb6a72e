"""One tiny workspace for all tests of commands: three raw datasets, planned, and a model of two of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spadunet.cli import plan_and_preprocess, train

HIPPOCAMPUS, HEART, SLICES = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV", "Dataset202_Slices"
PLAN_OPTIONS = ("--memory-gb", 0.03, "-np", 1)
TRAIN_OPTIONS = ("--preset", "tiny", "--batch-size", 1, "--num-workers", 0, "-device", "cpu", "--precision", "float32")


@pytest.fixture(scope="session")
def quick() -> tuple[object, ...]:
    """Options of a run of seconds on one core, but for its number of steps."""
    return TRAIN_OPTIONS


@pytest.fixture(scope="session")
def make_raw(copy_demo) -> Callable[[Path], Path]:
    """Fill a workspace's raw/: real cases cut to a box around their labels."""

    def make(folder: Path) -> Path:
        copy_demo(HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, num_cases=6, size=(20, 24, 16))
        copy_demo(HEART, folder / "raw" / HEART, num_cases=5, size=(48, 48, 6))
        copy_demo(HEART, folder / "raw" / SLICES, num_cases=12, size=(64, 64, 20), as_slices=True)
        return folder

    return make


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory, make_raw, run) -> Path:
    """Workspace with three planned datasets, named in three ways; the slices were planned last."""
    workspace = make_raw(tmp_path_factory.mktemp("workspace"))
    names = ("4", "SunnybrookLV", workspace / "raw" / SLICES)
    assert run(plan_and_preprocess.main, "-d", *names, *PLAN_OPTIONS, "--data", workspace) == 0
    return workspace


@pytest.fixture(scope="session")
def joint_model(planned: Path, run) -> Path:
    """Hippocampus and heart through one backbone, all cases, three steps."""
    names = ("-d", "Hippocampus", "101", "-f", "all")
    assert run(train.main, *names, "--max-steps", 3, *TRAIN_OPTIONS, "--data", planned) == 0
    return planned / "results" / f"{HIPPOCAMPUS}+{HEART}" / "spad_unet_tiny" / "fold_all"


@pytest.fixture(autouse=True)
def no_log_file_left_open() -> Iterator[None]:
    """A command closes the log that it opened."""
    yield
    assert not [h for h in logging.getLogger("spadunet").handlers if isinstance(h, logging.FileHandler)]
