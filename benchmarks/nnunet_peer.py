"""nnU-Net as a peer: planned, trained and asked by its own commands, with its folders inside ours.

Its environment is its own (python -m venv .peers && .peers/bin/pip install nnunetv2==2.8.1); ours only starts it. On a
processor one process augments for it, as for us; on a GPU it chooses how many, and whether to compile, as it would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from preprocess import nnunet as preprocess_for_nnunet

from spadunet.dataset import Dataset
from spadunet.network.device import choose_device
from spadunet.training.splits import SPLITS_JSON


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Where its commands are, and a folder whose raw/ holds the datasets."""

    commands: Path
    data: Path
    device: str

    def environment(self, results: Path) -> dict[str, str]:
        """Its variables."""
        places = {
            "nnUNet_raw": self.data / "raw",
            "nnUNet_preprocessed": self.data / "nnunet",
            "nnUNet_results": results,
        }
        own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        few = {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"} if self.device == "cpu" else {}
        return own | {name: str(place) for name, place in places.items()} | few

    def preprocess(self, dataset: Dataset, *spacing: str) -> Path:
        """Plan and preprocess its full resolution, unless that is done; the folder."""
        folder = self.data / "nnunet" / dataset.name
        if not (folder / "nnUNetPlans_3d_fullres").is_dir():
            preprocess_for_nnunet(self.commands, self.data, dataset.name[7:10].lstrip("0"), 1, *spacing)
        return folder

    def train(
        self,
        dataset: Dataset,
        fold: str,
        length: str,
        seed: int,
        folder: Path,
        *,
        splits: Path | None,
        batch_size: int | None = None,
    ) -> None:
        """Train unless that is done, of steps from where an earlier call ended; what it says goes to log.txt.

        Args:
            length: as of nnunet_run.py.
            splits: a splits_final.json that holds the fold, in place of its own.
            batch_size: in place of that of its plans.
        """
        preprocessed, results = self.preprocess(dataset), folder / "nnunet_results"
        if splits is not None:
            shutil.copy(splits, preprocessed / SPLITS_JSON)
        trainer = results / dataset.name / "nnUNetTrainer__nnUNetPlans__3d_fullres"
        if not (trainer / f"fold_{fold}" / "checkpoint_final.pth").is_file():
            script = Path(__file__).with_name("nnunet_run.py")
            words = [self.commands / "python", script, dataset.name, fold, length, seed, self.device]
            self.call([*words, *([] if batch_size is None else [batch_size])], folder)

    def predict(self, dataset: Dataset, fold: str, images: Path, folder: Path, *options: str) -> None:
        """Label maps of a folder of images in predictions/, by the model that `train` left in the same folder."""
        self.call(self.predict_words(dataset, fold, images, folder, *options), folder)

    def predict_words(self, dataset: Dataset, fold: str, images: Path, folder: Path, *options: str) -> list[object]:
        """The command of `predict`."""
        words = [self.commands / "nnUNetv2_predict", "-i", images, "-o", folder / "predictions", "-d", dataset.name]
        return [*words, "-c", "3d_fullres", "-f", fold, "-device", self.device, "-npp", 1, "-nps", 1, *options]

    def call(self, words: Sequence[object], folder: Path) -> None:
        """Run one of its commands; end where it fails."""
        texts, path = [str(word) for word in words], folder / "log.txt"
        with path.open("a", encoding="utf-8") as log:
            if subprocess.call(texts, env=self.environment(folder / "nnunet_results"), stdout=log, stderr=log):
                raise SystemExit(f"{' '.join(texts)}: failed; see {path}")


def open_peer(commands: Path | None, data: Path, device: str) -> Peer | None:
    """On the device that ours runs on; None where it has no commands.

    Args:
        device: as of our commands; auto for what is at hand.
    """
    return None if commands is None else Peer(commands=commands, data=data, device=str(choose_device(device)))
