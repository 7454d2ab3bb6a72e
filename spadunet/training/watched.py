"""Stored cases that may be lost or damaged while a run reads them: told in a line that names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..preprocessing.store import StoredCase, classes_path, image_path
from ..spacing import Shape
from .patches import TrainingTask


@dataclass(frozen=True, kw_only=True)
class WatchedCase(StoredCase):
    """A stored case that says which of its files cannot be read.

    Raises:
        InputError: of each method; names the file.
    """

    def foreground_voxels(self) -> np.ndarray:
        """As of any stored case."""
        with naming(self.folder / f"{self.name}.foreground.npy"):
            return super().foreground_voxels()

    def read_patch(self, first: Sequence[int], size: Shape) -> tuple[np.ndarray, np.ndarray]:
        """As of any stored case."""
        with naming(image_path(self.folder, self.name), classes_path(self.folder, self.name)):
            return super().read_patch(first, size)


def watch(case: StoredCase) -> StoredCase:
    """The same case, whose files are named if they cannot be read."""
    return WatchedCase(folder=case.folder, header=case.header)


def watch_task(task: TrainingTask) -> TrainingTask:
    """The same task, with `watch` of its cases."""
    return replace(task, cases=tuple(map(watch, task.cases)))


@contextlib.contextmanager
def naming(*paths: Path) -> Iterator[None]:
    """Say which of these files, as they are read here, is lost or damaged, and what to do.

    Raises:
        InputError: if one is.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError, EOFError) as error:
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path}: not found any more; run spadunet_preprocess") from error
        named = [path for path in paths if str(path) in str(error)] or paths
        words = " ".join(str(error).split())
        raise InputError(
            f"{' or '.join(map(str, named))}: damaged ({words}); free disk space if it is full, delete the file, and "
            "run spadunet_preprocess"
        ) from error
