"""Predictions that are references, moved a little."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spadunet.formats import read_channels, write_array


def write_moved(references: Iterable[Path], folder: Path, *, step: int = 1) -> None:
    """Write label maps under their names, moved along a row by as many voxels, every second one more."""
    for number, path in enumerate(sorted(references)):
        array, affine = read_channels(path)
        write_array(folder / path.name, np.roll(array[0], step + number % 2, axis=2), affine)
