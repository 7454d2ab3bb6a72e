"""MedMNIST v2's files, and any of the same layout: images and labels of three splits in one .npz (Yang et al. 2023).

Letters: N images; L labels of an image; C channels; D, H, W depth, height, width.
"""

from __future__ import annotations

import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from .classes import ClassSet
from .errors import InputError
from .medmnist_names import known_classes
from .memory import available_bytes
from .record import digest_of
from .spacing import MAX_DA, Shape
from .study import SPLIT_NAMES, SplitName

NUM_COLOURS = 3
MAX_CLASSES = 1 << 12
"""Of a file whose name tells nothing; more are a slip, such as ages."""
DAMAGES = (
    *(ValueError, EOFError, OSError, zlib.error, zipfile.BadZipFile),
    *(SyntaxError, tokenize.TokenError),  # of numpy, which reads a header as Python's literals
    *(NotImplementedError, RuntimeError),  # of zipfile, of another version's and of encrypted members
)
"""What Python and numpy raise where bytes are not what they should be."""
DAMAGED = "damaged: copy it again from its source"
LAYOUT = "expected MedMNIST's layout: train_images, train_labels, val_images, val_labels, test_images and test_labels"


@dataclass(frozen=True, kw_only=True)
class MedMNIST:
    """What a file holds, without its images."""

    path: Path
    classes: ClassSet
    num_channels: int
    """1, or 3 colours."""
    shape: Shape
    """(D, H, W) of an image; a picture has one slice."""
    labels: Mapping[SplitName, np.ndarray]
    """(N, L) int64 by split: L is 1, or one a finding, which is 0 or 1."""
    digest: str
    """Changes with what the file holds."""

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def is_planar(self) -> bool:
        """True if images are pictures."""
        return self.shape[0] == 1

    @property
    def da(self) -> int:
        """Degree of anisotropy: voxels of volumes are cubes."""
        return MAX_DA if self.is_planar else 0

    def study_name(self, split: SplitName, number: int) -> str:
        """What the image of this number in a split is called in tables: train_00012."""
        return f"{split}_{number:05}"


@dataclass(frozen=True, kw_only=True)
class Member:
    """What the header of one array in the file says."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype


def open_medmnist(path: Path) -> MedMNIST:
    """Check a file's headers and read its labels; images stay where they are.

    Kind and names of the classes are those published for a file of this name, if it holds pictures or volumes as that
    does; of any other, several columns of 0 and 1 are findings, two different labels are binary, and names are numbers.

    Raises:
        InputError: if it is missing, damaged, of another layout, or its labels are not those of its classes.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; give the path of a MedMNIST .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {
                split: (read_member(archive, path, f"{split}_images"), read_member(archive, path, f"{split}_labels"))
                for split in SPLIT_NAMES
            }
            facts = [(it.filename, it.CRC, it.file_size) for it in archive.infolist()]
    except InputError:
        raise
    except DAMAGES as error:
        raise InputError(f"{path}: cannot be read as an .npz file ({error}); {DAMAGED}") from error
    layouts = {check_images(path, split, images) for split, (images, _) in headers.items()}
    if len(layouts) > 1:
        raise InputError(f"{path}: images of its splits have different shapes, {sorted(layouts)}; {LAYOUT}")
    widths = {check_labels(path, split, *pair) for split, pair in headers.items()}
    if len(widths) > 1:
        raise InputError(f"{path}: splits have {sorted(widths)} labels an image; expected as many in each")
    labels = {split: read_labels(path, split) for split in SPLIT_NAMES}
    num_channels, *sizes = layouts.pop()
    classes = known_classes(path.stem, is_planar=sizes[0] == 1) or infer_classes(path, labels)
    require_labels(path, classes, labels)
    return MedMNIST(
        path=path,
        classes=classes,
        num_channels=num_channels,
        shape=(sizes[0], sizes[1], sizes[2]),
        labels=labels,
        digest=digest_of(json.dumps(sorted(facts))),
    )


def read_images(dataset: MedMNIST, split: SplitName) -> np.ndarray:
    """All images of a split, (N, C, D, H, W) uint8 as stored, grey as one channel; a view of what was read.

    Raises:
        InputError: if the file has changed or is damaged, or memory does not hold them.
    """
    array = read_array(dataset.path, f"{split}_images")
    if layout_of(array.shape) != (dataset.num_channels, *dataset.shape) or len(array) != len(dataset.labels[split]):
        raise InputError(f"{dataset.path}: has changed since it was opened; run the same command again")
    if dataset.num_channels > 1:
        return np.moveaxis(array, -1, 1)[:, :, None]  # (N, C, 1, H, W)
    return array.reshape(len(array), 1, *dataset.shape)  # (N, 1, D, H, W)


def layout_of(shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """(C, D, H, W) of images (N, H, W), (N, H, W, 3) or (N, D, H, W); None of anything else."""
    if len(shape) == 3:
        return 1, 1, shape[1], shape[2]
    if len(shape) == 4 and shape[-1] == NUM_COLOURS:
        return NUM_COLOURS, 1, shape[1], shape[2]
    return (1, *shape[1:]) if len(shape) == 4 else None


def read_member(archive: zipfile.ZipFile, path: Path, name: str) -> Member:
    """The header of one array, checked against the bytes that there are.

    Raises:
        InputError: if it is not there, is no array of numbers, or says more or less than there is.
    """
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError as error:
        there = ", ".join(it.filename.removesuffix(".npy") for it in archive.infolist()[:8]) or "nothing"
        raise InputError(f"{path}: holds no {name}, but {there}; {LAYOUT}") from error
    try:
        with archive.open(info) as file:
            member = read_array_header(file)
            num_bytes = file.tell() + math.prod(member.shape) * member.dtype.itemsize
    except DAMAGES as error:
        raise InputError(f"{path}: {name} cannot be read ({error}); {DAMAGED}") from error
    if member.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} holds {member.dtype.name} values; expected numbers (uint8)")
    if num_bytes != info.file_size:
        shape = "×".join(map(str, member.shape))
        raise InputError(f"{path}: {name} says {shape}, {num_bytes} bytes, but has {info.file_size}; {DAMAGED}")
    return member


def read_array_header(file: IO[bytes]) -> Member:
    """Shape, order and type of a .npy file.

    Raises:
        ValueError: if it is none, or of another version than 1 and 2.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"unknown version {version} of the .npy format")
    shape, is_fortran, dtype = readers[version](file)
    return Member(shape=shape, is_fortran=is_fortran, dtype=dtype)


def check_images(path: Path, split: str, images: Member) -> tuple[int, int, int, int]:
    """(C, D, H, W) of a split's images.

    Raises:
        InputError: if there are none, or they are no uint8 images.
    """
    told = "×".join(map(str, images.shape)) or "one number"
    layout = layout_of(images.shape)
    if images.dtype != np.uint8 or layout is None or 0 in layout:
        raise InputError(
            f"{path}: {split}_images is {told} of {images.dtype.name}; expected N×28×28, N×28×28×3 or N×28×28×28 of "
            "uint8 (28 may be any size)"
        )
    if images.shape[0] == 0:
        raise InputError(f"{path}: {split}_images is empty; every split needs at least one image")
    return layout


def check_labels(path: Path, split: str, images: Member, labels: Member) -> int:
    """Labels an image of a split.

    Raises:
        InputError: if there is not a row of whole numbers for each image.
    """
    told = "×".join(map(str, labels.shape)) or "one number"
    if labels.dtype.kind not in "biu" or len(labels.shape) != 2 or labels.shape[1] < 1:
        raise InputError(
            f"{path}: {split}_labels is {told} of {labels.dtype.name}; expected N×1 (a class) or N×L (findings), uint8"
        )
    if labels.shape[0] != images.shape[0]:
        raise InputError(f"{path}: {split}_labels has {labels.shape[0]} rows for {images.shape[0]} images")
    return labels.shape[1]


def read_labels(path: Path, split: SplitName) -> np.ndarray:
    """Labels (N, L) int64 of a split.

    Raises:
        InputError: if they are damaged or do not fit into int64.
    """
    labels = read_array(path, f"{split}_labels")
    too_large = np.argwhere(labels > np.iinfo(np.int64).max)  # of uint64 alone
    if len(too_large):
        row, column = too_large[0].tolist()
        raise InputError(f"{path}: {split}_labels: row {row} is {labels[row, column]}; expected classes 0, 1, …")
    return labels.astype(np.int64)


def read_array(path: Path, name: str) -> np.ndarray:
    """One array of the file, alone.

    Raises:
        InputError: if it is damaged or does not fit into memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            member = read_member(archive, path, name)
            needed, free = math.prod(member.shape) * member.dtype.itemsize, available_bytes()
            if needed > free:
                raise InputError(
                    f"{path}: {name} takes {needed / 1e9:.3g} GB, but {free / 1e9:.3g} GB of memory are free; take the "
                    "dataset's file of a smaller size, or a machine with more memory"
                )
            with archive.open(f"{name}.npy") as file:
                return np.lib.format.read_array(file, allow_pickle=False)
    except InputError:
        raise
    except DAMAGES as error:
        raise InputError(f"{path}: {name} cannot be read ({error}); {DAMAGED}") from error


def infer_classes(path: Path, labels: Mapping[SplitName, np.ndarray]) -> ClassSet:
    """Classes of a file whose name is none of MedMNIST's, from all its labels.

    Raises:
        InputError: if they do not tell classes apart.
    """
    together = np.concatenate(list(labels.values()))
    num_labels = together.shape[1]
    if num_labels > 1:
        return ClassSet(kind="multi-label", names=tuple(map(str, range(num_labels))))
    highest = int(together.max())
    if highest < 1:
        raise InputError(f"{path}: every label is {highest}; expected at least two classes, 0, 1, …")
    if highest >= MAX_CLASSES:
        raise InputError(f"{path}: a label is {highest}; expected classes 0, 1, …, fewer than {MAX_CLASSES}")
    return ClassSet(kind="binary" if highest == 1 else "multi-class", names=tuple(map(str, range(highest + 1))))


def require_labels(path: Path, classes: ClassSet, labels: Mapping[SplitName, np.ndarray]) -> None:
    """Refuse labels that are not those of the classes, and training labels that tell nothing apart.

    Raises:
        InputError: names split, row and value.
    """
    for split, rows in labels.items():
        if rows.shape[1] != classes.num_labels:
            raise InputError(
                f"{path}: {split}_labels has {rows.shape[1]} columns; expected {classes.num_labels}, as {path.stem} is "
                f"{classes.kind}; rename the file if it is another dataset"
            )
        highest = classes.num_outputs - 1 if classes.is_exclusive else 1
        wrong = np.argwhere((rows < 0) | (rows > highest))
        if len(wrong):
            row, column = wrong[0].tolist()
            raise InputError(
                f"{path}: {split}_labels: row {row} is {rows[row, column]}; expected 0 to {highest}, as {path.stem} is "
                f"{classes.kind}"
            )
    train = labels["train"]
    if (train == train[:1]).all():
        raise InputError(f"{path}: every label of train_labels is {train[0].tolist()}; expected at least two different")
