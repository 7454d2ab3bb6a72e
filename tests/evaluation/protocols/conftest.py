"""Releases' layouts, cut from a real volume, and predictions that are perturbed references."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.formats import read_channels


@pytest.fixture(scope="session")
def volume(tmp_path_factory: pytest.TempPathFactory, copy_demo) -> tuple[np.ndarray, np.ndarray]:
    """A hippocampus (slice, row, column), int16, and its labels 1 and 2."""
    size = (26, 20, 12)
    folder = copy_demo("Dataset004_Hippocampus", tmp_path_factory.mktemp("cut"), num_cases=1, size=size)
    image, labels = (next((folder / name).glob("*.nii.gz")) for name in ("imagesTr", "labelsTr"))
    return read_channels(image)[0][0].astype(np.int16), read_channels(labels)[0][0].astype(np.uint8)


@pytest.fixture(scope="session")
def organs(volume) -> np.ndarray:
    """Thirteen organs: slabs of the volume's labels, one after the other."""
    labels = volume[1]
    slices, rows, columns = np.nonzero(labels)
    order = np.lexsort((columns, slices, rows))
    found = np.zeros_like(labels)
    found[slices[order], rows[order], columns[order]] = 1 + 13 * np.arange(len(order)) // len(order)
    return found
