"""A small file in exactly MedMNIST's layout: six members, uint8, labels (N, L)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COUNTS = {"train": 6, "val": 3, "test": 4}


def members_of(shape: tuple[int, ...] = (4, 4, 4), num_classes: int = 2, num_labels: int = 1) -> dict[str, np.ndarray]:
    """Random images of this shape; labels that go through the classes, or through 0 and 1."""
    rng = np.random.default_rng(0)
    members = {}
    for split, count in COUNTS.items():
        members[f"{split}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        numbers = np.arange(count * num_labels, dtype=np.uint8).reshape(count, num_labels)
        members[f"{split}_labels"] = (numbers % num_classes).astype(np.uint8)
    return members


def write_medmnist(path: Path, members: dict[str, np.ndarray]) -> Path:
    """As `medmnist` distributes them."""
    np.savez_compressed(path, **members)
    return path
