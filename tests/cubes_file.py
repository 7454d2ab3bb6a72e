"""Real cubes in MedMNIST's layout: cut around the front and the back of embedded hippocampi."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from conftest import DEMO

FRONT, BACK = 1, 2
"""Labels of the demo's hippocampi: class 0 is cut around the front, class 1 around the back."""


def cut_cubes(side: int, num_cases: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (2 · cases, side, side, side) and labels (2 · cases, 1)."""
    cubes, labels = [], []
    folder = DEMO / "Dataset004_Hippocampus"
    for path in sorted((folder / "labelsTr").glob("*.nii.gz"))[:num_cases]:
        case = path.name.removesuffix(".nii.gz")
        image = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "imagesTr" / f"{case}_0000.nii.gz"))).astype(float)
        classes = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        grey = (255 * np.clip(image / np.percentile(image, 99), 0, 1)).astype(np.uint8)
        for number, label in enumerate((FRONT, BACK)):
            middle = np.argwhere(classes == label).mean(0).round().astype(int)
            first = np.clip(middle - side // 2, 0, np.array(grey.shape) - side)
            cubes.append(grey[tuple(slice(start, start + side) for start in first)])
            labels.append([number])
    return np.stack(cubes), np.array(labels, np.uint8)


def write_cubes(path: Path, *, side: int = 12, num_train: int = 8, num_val: int = 4, num_test: int = 2) -> Path:
    """A file of so many pairs of cubes a split."""
    cubes, labels = cut_cubes(side, num_train + num_val + num_test)
    members, start = {}, 0
    for split, count in (("train", num_train), ("val", num_val), ("test", num_test)):
        part = slice(2 * start, 2 * (start + count))
        members |= {f"{split}_images": cubes[part], f"{split}_labels": labels[part]}
        start += count
    np.savez_compressed(path, **members)
    return path
