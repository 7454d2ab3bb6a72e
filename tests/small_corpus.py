"""A corpus of a few arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spadunet.pretraining.corpus import CORPUS_JSON, Corpus, CorpusImage, CorpusIndex, load_corpus, store_image
from spadunet.record import write_record
from spadunet.spacing import Spacing


def make_corpus(
    folder: Path, images: Mapping[str, tuple[np.ndarray, Spacing]], weights: Mapping[str, float] | None = None
) -> Corpus:
    """Store arrays (C, D, H, W) in [-1, 1] with their spacings by key; weight 1 where none is given."""
    entries = []
    for key, (array, spacing_mm) in images.items():
        store_image(folder, key, array)
        entry = {
            "key": key,
            "source": f"{key}.nii.gz",
            "dataset": "A",
            "modality": "CT",
            "shape": array.shape[1:],
            "spacing_mm": spacing_mm,
            "num_channels": len(array),
            "weight": (weights or {}).get(key, 1.0),
        }
        entries.append(CorpusImage.model_validate(entry))
    write_record(folder / CORPUS_JSON, CorpusIndex(name=folder.name, images=tuple(entries)))
    return load_corpus(folder)


def noise(*shape: int) -> np.ndarray:
    """Values that float16 holds exactly."""
    return np.random.default_rng(sum(shape)).integers(-64, 65, shape).astype(np.float32) / 64
