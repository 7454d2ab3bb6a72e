"""CHAOS's release, cut from real volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chaos_release import ImageSet, write_release

from spadunet.formats import read_channels


@pytest.fixture(scope="session")
def hippocampus(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> tuple[np.ndarray, np.ndarray]:
    """A hippocampus (slice, row, column), more columns than rows, with four labels: its two differ left and right."""
    size = (26, 19, 12)
    folder = copy_demo("Dataset004_Hippocampus", tmp_path_factory.mktemp("cut"), num_cases=1, size=size)
    image, labels = (next((folder / name).glob("*.nii.gz")) for name in ("imagesTr", "labelsTr"))
    array = read_channels(image)[0][0]
    classes = read_channels(labels)[0][0].astype(np.uint8)
    classes[:, :, 13:][classes[:, :, 13:] > 0] += 2
    assert array.shape == size[::-1]
    assert np.unique(classes).tolist() == [0, 1, 2, 3, 4]
    return array.astype(np.int16), classes


@pytest.fixture(scope="session")
def chaos(tmp_path_factory: pytest.TempPathFactory, hippocampus) -> tuple[Path, dict[str, ImageSet]]:
    """CHAOS's release, small, to be read only, and what it holds by name of case."""
    folder = tmp_path_factory.mktemp("release") / "CHAOS"
    return folder, write_release(folder, *hippocampus)
