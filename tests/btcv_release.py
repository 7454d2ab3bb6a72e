"""Writes a small tree in exactly the layout of BTCV's release, from a real volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spadunet.formats import write_array

AFFINE = np.eye(4)[[2, 1, 0, 3]] @ np.diag([3, 0.75, 0.75, 1])
AFFINE[:3, 3] = (-180, -170, 20)  # as a scanner has it; a volume that begins at 0 tells no orientation


def write_btcv(folder: Path, image: np.ndarray, labels: np.ndarray, numbers: Sequence[int] = (21, 28, 29)) -> Path:
    """Scans with labels (usually 21 and 28 to train on, 29 to validate on), 61 for testing; what was downloaded.

    Args:
        image: (slice, row, column), int16; each scan gets other values.
        labels: ids 0 to 13.
    """
    training = folder / "RawData/Training"
    for number in numbers:
        write_array(training / f"img/img{number:04}.nii.gz", image + number, AFFINE)
        write_array(training / f"label/label{number:04}.nii.gz", labels, AFFINE)
    write_array(folder / "RawData/Testing/img/img0061.nii.gz", image, AFFINE)
    return folder
