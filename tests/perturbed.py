"""Real references of the demo, and predictions that are wrong in ways that one can name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

import spadunet
from spadunet.image import LabelMap, read_label_map, write_label_map

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus"
HOSTILE = "<b onmouseover=alert(1)>&amp; \"x\" 'y' 肝"
"""A case's name: anything but a slash may be in one."""
SHIFTED, NO_POSTERIOR, EMPTY = "hippocampus_014", "hippocampus_038", "hippocampus_042"


def make_folders(folder: Path, *, labels: dict[str, object] | None = None) -> tuple[Path, Path, Path]:
    """Folders of predictions, references and images of five cases.

    One is shifted by two voxels, one misses Posterior, one is empty, one is perfect, and one of hostile name has a spot
    of Anterior far from it.

    Args:
        labels: of dataset.json, instead of the demo's.
    """
    predictions, references, images = folder / "predictions", folder / "raw/labelsTs", folder / "raw/imagesTs"
    for it in (predictions, references, images):
        it.mkdir(parents=True)
    description = json.loads((DEMO / "dataset.json").read_text())
    description |= {"labels": labels} if labels else {}
    (folder / "raw/dataset.json").write_text(json.dumps(description))
    cases = {SHIFTED: SHIFTED, NO_POSTERIOR: NO_POSTERIOR, EMPTY: EMPTY, "hippocampus_051": "perfect"}
    for source, name in (cases | {"hippocampus_150": HOSTILE}).items():
        shutil.copy(DEMO / "labelsTs" / f"{source}.nii.gz", references / f"{name}.nii.gz")
        shutil.copy(DEMO / "imagesTs" / f"{source}_0000.nii.gz", images / f"{name}_0000.nii.gz")
        reference = read_label_map(references / f"{name}.nii.gz")
        array = reference.array.copy()
        if name == SHIFTED:
            array = np.roll(array, 2, axis=1)
        if name == NO_POSTERIOR:
            array[array == 2] = 0
        if name == EMPTY:
            array[:] = 0
        if name == HOSTILE:
            array[:2, :2, :2] = 1
        write_label_map(predictions / f"{name}.nii.gz", LabelMap(array=array, affine=reference.affine))
    return predictions, references, images
