"""What was classified before into an output folder, and which probabilities a run may therefore keep.

As with label maps (`resume`), they are kept only where a record beside them says that they are of the same request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..class_predictions import PREDICTIONS_CSV, read_predictions, write_predictions
from ..classes import ClassSet
from ..errors import InputError
from ..files import sha256_of_file
from ..record import FormatVersion, Record, write_record
from ..study_classes import CLASSES_JSON
from .asked_studies import AskedStudies
from .class_sources import ClassSource
from .heat_maps import heat_paths
from .resume import MANIFEST, UNFINISHED_FILE, ModelAsked, channels_asked, differences_of, models_asked, read_last
from .studies import MedMNISTStudies

if TYPE_CHECKING:
    import torch


class ClassRequest(Record):
    """All that decides what the probabilities of a study are."""

    studies: str
    """Folder or file."""
    sha256: str
    """Of a file; empty of a folder."""
    models: tuple[ModelAsked, ...]
    precision: str
    channels: tuple[str, ...]
    """Where each of the model's is found, as for label maps; none of a file."""
    split: str
    """Empty where the studies have none."""

    def told(self) -> dict[str, str]:
        """What the user would call each part, and its value in words."""
        return {
            "-i": self.studies + (f" ({self.sha256[:8]}…)" if self.sha256 else ""),
            "model": ", ".join(map(str, self.models)),
            "--precision": self.precision,
            "channels": " ".join(self.channels),
            "--split": self.split or "none",
        }

    def differences(self, earlier: ClassRequest) -> list[str]:
        """What another request asked otherwise: `--precision bfloat16 → float32`."""
        return differences_of(self, earlier)


class ClassesMade(Record):
    """Whose the probabilities in an output folder are."""

    format_version: FormatVersion = 1
    classification: ClassRequest


@dataclass(frozen=True, kw_only=True)
class ClassStart:
    """What a run finds, and what it keeps."""

    folder: Path
    made: ClassesMade
    """As it will be."""
    classes: ClassSet
    kept: dict[str, np.ndarray]
    """Probabilities (K,) of studies that are there."""
    outdated: tuple[Path, ...]
    """Heat maps of studies that are predicted anew."""

    def begin(self) -> None:
        """Leave nothing of another request, then write down for whom the probabilities will be."""
        if not self.kept:
            (self.folder / PREDICTIONS_CSV).unlink(missing_ok=True)
        for path in self.outdated:
            path.unlink(missing_ok=True)
        write_record(self.folder / UNFINISHED_FILE, self.made)
        write_record(self.folder / CLASSES_JSON, self.classes)

    def write(self, names: Sequence[str], probabilities: dict[str, np.ndarray]) -> Path:
        """Write what there is, in the order of the names; the path."""
        there = [name for name in names if name in probabilities]
        path = self.folder / PREDICTIONS_CSV
        if there:
            write_predictions(path, self.classes, there, np.stack([probabilities[name] for name in there]))
        return path

    def end(self) -> None:
        """Take back that it is unfinished, once the manifest says the rest."""
        (self.folder / UNFINISHED_FILE).unlink(missing_ok=True)


def class_request_of(
    path: Path, studies: AskedStudies, sources: Sequence[ClassSource], precision: torch.dtype
) -> ClassRequest:
    """The request that models and studies make, with the models as they are on disk."""
    is_file = isinstance(studies, MedMNISTStudies)
    order = None if isinstance(studies, MedMNISTStudies) else studies.order
    return ClassRequest(
        studies=str(path.resolve()),
        sha256=sha256_of_file(path) if is_file else "",
        models=models_asked(sources),
        precision=str(precision).removeprefix("torch."),
        channels=() if order is None else channels_asked(order),
        split=studies.split,
    )


def find_class_start(
    folder: Path,
    request: ClassRequest,
    studies: AskedStudies,
    classes: ClassSet,
    *,
    must_keep: bool,
    has_heat_maps: bool,
) -> ClassStart:
    """What is in an output folder of a request; nothing is changed.

    Args:
        must_keep: keep probabilities also of a finished run; those of an unfinished one are kept anyway.
        has_heat_maps: only studies that have theirs are kept.

    Raises:
        InputError: if what is no prediction of classes would be written over, or some should be kept that were made for
            another request.
    """
    table = folder / PREDICTIONS_CSV
    is_unfinished, has_record = (folder / UNFINISHED_FILE).is_file(), (folder / MANIFEST).is_file()
    made = read_last(folder, ClassesMade)
    if table.is_file() and not (is_unfinished or has_record):
        raise InputError(f"-o {folder}: holds {table.name}, which spadunet_predict did not write; give another folder")
    if made is None and not table.is_file() and (is_unfinished or has_record):
        raise InputError(f"-o {folder}: holds predictions of another kind of task; give another folder")
    if must_keep and made is None and table.is_file():
        raise InputError(
            f"--continue: nothing in {folder} says what its {table.name} was made for; leave --continue out to predict "
            "all anew, or give another folder"
        )
    differences = [] if made is None else request.differences(made.classification)
    if must_keep and differences:
        raise InputError(
            f"--continue: the predictions in {folder} were made otherwise: {'; '.join(differences)}; give the same "
            "options, leave --continue out to predict all anew, or give another folder"
        )
    keeps = made is not None and not differences and (must_keep or is_unfinished)
    heat_of = {
        name: [path for view in studies.view_names(number) for path in heat_paths(folder, view)]
        for number, name in enumerate(studies.names)
    }
    kept: dict[str, np.ndarray] = {}
    if keeps and table.is_file():
        there = read_predictions(table, classes)
        kept = {
            name: row
            for name, row in zip(there.studies, there.probabilities, strict=True)
            if name in heat_of and (not has_heat_maps or all(path.is_file() for path in heat_of[name]))
        }
    outdated = [path for name, paths in heat_of.items() if name not in kept for path in paths if path.is_file()]
    return ClassStart(
        folder=folder,
        made=ClassesMade(classification=request),
        classes=classes,
        kept=kept,
        outdated=tuple(outdated),
    )
