"""Where raw, preprocessed, corpora and results lie, and why there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT_VARIABLE = "SPADUNET_DATA"
DEFAULT_FOLDER = "spadunet_data"


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The data folder and where its path came from."""

    folder: Path
    origin: str

    @property
    def raw(self) -> Path:
        """Raw dataset folders, as users bring them."""
        return self.folder / "raw"

    @property
    def preprocessed(self) -> Path:
        """Fingerprints, plans and preprocessed cases."""
        return self.folder / "preprocessed"

    @property
    def corpora(self) -> Path:
        """Unlabelled images for pre-training."""
        return self.folder / "corpora"

    @property
    def results(self) -> Path:
        """Trained models."""
        return self.folder / "results"


def find_workspace(flag: Path | None) -> Workspace:
    """The folder of `--data`, else of the environment variable, else ./spadunet_data."""
    if flag is not None:
        return Workspace(folder=flag, origin="--data")
    if os.environ.get(ENVIRONMENT_VARIABLE):
        return Workspace(folder=Path(os.environ[ENVIRONMENT_VARIABLE]), origin=ENVIRONMENT_VARIABLE)
    return Workspace(folder=Path(DEFAULT_FOLDER), origin="default")
