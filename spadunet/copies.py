"""Images that are there twice, in two splits or of two patients: what is learned of one would be known of the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from .files import sha256_of_file
from .medmnist import MedMNIST, read_images
from .memory import available_bytes
from .study import SPLIT_NAMES, LabelledStudies
from .study_table import LABELS_CSV

Item = TypeVar("Item", bound=Hashable)
MAX_TOLD = 3
"""Pairs that are named."""
SAMPLE_BYTES = 1 << 16
"""Of a file's middle; only files that are alike in these are read whole."""
MAX_IMAGE_BYTES = 4 << 30
"""Of a MedMNIST file's images, some seconds of work; those of larger ones are not compared."""

log = logging.getLogger("spadunet")


def warn_copied_files(found: LabelledStudies) -> None:
    """Say which image files of a folder are the same in two splits, or where it has none of two patients."""
    side = {
        path: study.split or study.patient
        for study in found.studies
        for view in study.views
        for path in view.paths
        if path.is_file()
    }
    names = {path: view.name for study in found.studies for view in study.views for path in view.paths}
    alike: list[list[Path]] = [list(side)]
    for fact in (lambda path: path.stat().st_size, middle_of, sha256_of_file):
        alike = [group for files in alike for group in groups_of(files, fact) if len({side[it] for it in group}) > 1]
    pairs = {names[later]: pair_of(group, later, side, names) for group in alike for later in group[1:]}
    what = "in two splits" if found.has_splits else "of two patients"
    warn(found.folder / LABELS_CSV, [pair for pair in pairs.values() if pair], what)


def warn_copied_images(dataset: MedMNIST) -> None:
    """Say which images of a MedMNIST file are the same in two splits.

    Raises:
        InputError: if the file is damaged.
    """
    counts = [len(labels) for labels in dataset.labels.values()]
    depth, height, width = dataset.shape
    bytes_each = dataset.num_channels * depth * height * width
    if sum(counts) * bytes_each > MAX_IMAGE_BYTES or max(counts) * bytes_each > available_bytes() // 2:
        log.info("%s: too large to look for images that are in two splits", dataset.path)
        return
    first: dict[bytes, str] = {}
    pairs = []
    for split in SPLIT_NAMES:
        own: dict[bytes, str] = {}
        for number, image in enumerate(read_images(dataset, split)):
            key, name = blake2b(image.tobytes(), digest_size=16).digest(), dataset.study_name(split, number)
            if key in first:
                pairs.append(f"{name} and {first[key]}")
            else:
                own.setdefault(key, name)
        first |= own
    warn(dataset.path, pairs, "in two splits")


def warn(path: Path, pairs: list[str], what: str) -> None:
    """Say how many there are, and the first of them."""
    if pairs:
        log.warning(
            "%s: there are images %s: %d, such as %s; what is scored was learned then, leave one of each out",
            *(path, what, len(pairs), ", ".join(pairs[:MAX_TOLD])),
        )


def groups_of(items: Iterable[Item], fact: Callable[[Item], object]) -> list[list[Item]]:
    """Items that share a fact, of which there are several."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(fact(item), []).append(item)
    return [group for group in groups.values() if len(group) > 1]


def middle_of(path: Path) -> bytes:
    """Some bytes from the middle of a file."""
    with path.open("rb") as file:
        file.seek(max(0, (path.stat().st_size - SAMPLE_BYTES) // 2))
        return file.read(SAMPLE_BYTES)


def pair_of(group: list[Path], later: Path, side: Mapping[Path, str], names: Mapping[Path, str]) -> str | None:
    """A file and the first one like it on another side; None where all others are on its own."""
    earlier = next((it for it in group if side[it] != side[later]), None)
    return None if earlier is None else f"{names[later]} ({side[later]}) and {names[earlier]} ({side[earlier]})"
