"""Fingerprint of a dataset: read every training case once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from ..dataset import Dataset, RawCase
from ..errors import InputError
from ..fingerprint import CaseFacts, Fingerprint, IntensityFacts
from ..image import Image, LabelMap
from ..parallel import map_cases
from ..spacing import Shape, Spacing
from ..workers import THIS_PROCESS, Workers

VOXELS_PER_CASE = 10_000
"""Foreground voxels sampled from each case, as nnU-Net does."""


class OrientedCase(Protocol):
    """What orientation and cropping give: array (C, D, H, W), its spacing, and the same for a label array."""

    @property
    def array(self) -> np.ndarray: ...

    @property
    def spacing_mm(self) -> Spacing: ...

    @property
    def shape(self) -> Shape: ...

    def follow(self, label_array: np.ndarray) -> np.ndarray: ...


ReadCase = Callable[[RawCase], tuple[Image, LabelMap | None]]
OrientCase = Callable[[Image], OrientedCase]
ObservedCase = tuple[CaseFacts, np.ndarray]
"""Facts, and intensities (C, N) of voxels."""


def extract_fingerprint(
    dataset: Dataset,
    *,
    read: ReadCase,
    orient: OrientCase,
    workers: Workers = THIS_PROCESS,
    memory_of: Callable[[RawCase], int] | None = None,
) -> Fingerprint:
    """Facts of all training cases.

    Args:
        read: reads and checks a raw case.
        orient: turns an image to depth, height, width and crops it, as preprocessing will.
        memory_of: bytes that reading and orienting a case takes at most.

    Raises:
        InputError: if a case cannot be used; all problems in one text, a line each.
    """
    extract = partial(extract_case, read=read, orient=orient, ignore_id=dataset.labels.ignore_id)
    title = f"Reading {dataset.name}"
    return summarise_cases(dataset, extract_all(extract, dataset.cases, title, workers=workers, memory_of=memory_of))


def extract_all(
    extract: Callable[[RawCase], ObservedCase],
    cases: Sequence[RawCase],
    title: str,
    *,
    workers: Workers = THIS_PROCESS,
    memory_of: Callable[[RawCase], int] | None = None,
) -> list[ObservedCase]:
    """What `extract` tells of each case, in any order; `title` and what else as `map_cases`.

    Raises:
        InputError: if a case cannot be used; all problems in one text, a line each.
    """
    outcomes = list(map_cases(extract, cases, title=title, workers=workers, memory_of=memory_of))
    problems = sorted(outcome.problem for outcome in outcomes if outcome.problem)
    if problems:
        raise InputError("\n".join(problems))
    return [outcome.result for outcome in outcomes if outcome.result]


def summarise_cases(
    dataset: Dataset, observed: Sequence[ObservedCase], *, source_digest: str | None = None
) -> Fingerprint:
    """The fingerprint that follows from the facts of all training cases, in any order.

    Args:
        source_digest: None for that of the files.
    """
    digest = digest_of_dataset(dataset) if source_digest is None else source_digest
    return summarise_images(dataset.name, dataset.folder, observed, source_digest=digest)


def summarise_images(name: str, folder: Path, observed: Sequence[ObservedCase], *, source_digest: str) -> Fingerprint:
    """The fingerprint of images, whatever their labels are; the dataset's name and folder, and the facts as above."""
    observed = sorted(observed, key=lambda pair: pair[0].name)
    samples = np.concatenate([sample for _, sample in observed], axis=1)  # (C, N)
    return Fingerprint(
        dataset_name=name,
        source_folder=str(folder),
        source_digest=source_digest,
        cases=tuple(facts for facts, _ in observed),
        intensities=tuple(summarise(channel[~np.isnan(channel)]) for channel in samples),
    )


def extract_case(case: RawCase, *, read: ReadCase, orient: OrientCase, ignore_id: int | None = None) -> ObservedCase:
    """As `observe_case`, of a case on disk."""
    image, label_map = read(case)
    return observe_case(case.name, image, label_map, orient=orient, ignore_id=ignore_id)


def observe_case(
    name: str, image: Image, label_map: LabelMap | None, *, orient: OrientCase, ignore_id: int | None = None
) -> ObservedCase:
    """Facts of one case and intensities (C, N) float32 of its foreground voxels; of any voxels where it has none.

    NaN in channels that the case lacks.

    Args:
        orient: turns an image to depth, height, width and crops it, as preprocessing will.
        ignore_id: of voxels that are no foreground, though not 0.
    """
    oriented = orient(image)
    facts = CaseFacts(name=name, spacing_mm=oriented.spacing_mm, shape=oriented.shape)
    places = np.zeros(0, np.intp)
    if label_map is not None:
        labels = oriented.follow(label_map.array)
        places = np.flatnonzero(labels if ignore_id is None else (labels != 0) & (labels != ignore_id))
    num_places = len(places) or math.prod(oriented.shape)
    if num_places > VOXELS_PER_CASE:  # a stride would follow rows and columns
        chosen = np.random.default_rng(0).integers(num_places, size=VOXELS_PER_CASE)
    else:
        chosen = np.arange(num_places)
    depth, height, width = np.unravel_index(places[chosen] if len(places) else chosen, oriented.shape)
    sample = oriented.array[:, depth, height, width].astype(np.float32)  # (C, N)
    sample[list(image.missing_channels)] = np.nan
    return facts, sample


def summarise(values: np.ndarray) -> IntensityFacts:
    """Statistics of one channel's foreground values (N,)."""
    low, middle, high = np.percentile(values, (0.5, 50, 99.5)).tolist()
    return IntensityFacts(
        percentile_00_5=low,
        percentile_50=middle,
        percentile_99_5=high,
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
    )


def digest_of_dataset(dataset: Dataset) -> str:
    """Changes when any training file does, or what is ignored in them."""
    digest = hashlib.sha256()
    if dataset.labels.ignore_id is not None:
        digest.update(f"ignore {dataset.labels.ignore_id}".encode())
    for case in dataset.cases:
        digest.update(case.name.encode())
        digest.update(case.content().encode())
    return digest.hexdigest()[:16]
