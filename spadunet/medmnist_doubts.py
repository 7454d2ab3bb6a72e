"""What a MedMNIST file may not have been meant to hold, told before anything is learned from it."""

from __future__ import annotations

from .copies import warn_copied_images
from .medmnist import MedMNIST
from .study import SPLIT_NAMES
from .study_classes import warn_missing


def warn_doubts(dataset: MedMNIST) -> None:
    """Say which classes cannot be learned or scored, and which images are in two splits.

    Raises:
        InputError: if the file is damaged.
    """
    warn_missing(dataset.path, dataset.classes, {split: dataset.labels[split] for split in SPLIT_NAMES})
    warn_copied_images(dataset)
