"""One training on a file of MedMNIST's layout, and what its test split says: the part that benchmarks of it share."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import command

from spadunet import pretrained
from spadunet.evaluation.classification import ClassificationScores
from spadunet.evaluation.classification_tables import SCORES_JSON
from spadunet.medmnist import open_medmnist
from spadunet.record import read_record

MANIFEST = "spadunet_train.json"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Of one run. AUC and ACC are the official ones, of the test split; None where an AUC is not defined."""

    num_train: int
    num_test: int
    auc: float | None
    accuracy: float | None
    validation_auc: float | None
    """Of the epoch that was kept."""
    seconds: float
    """From the start of training to the scores."""
    epoch_seconds: float
    """Of training alone, from the median speed of all steps."""
    router_entropy: float | None
    """In nats, mean of the last tenth of the steps; None without experts."""
    expert_use: tuple[float, ...]
    """Likewise, of each expert."""


def result_of(values: dict) -> Result:
    """From a line of rows."""
    return Result(**{**values, "expert_use": tuple(values["expert_use"])})


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Files, how they are trained on, and how many runs."""
    parser.add_argument("files", type=Path, nargs="+", help="MedMNIST .npz files, or any of the same layout")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of rows and tables")
    parser.add_argument("--init", type=Path, help="model or pre-trained backbone, or spad_unet_tiny")
    parser.add_argument("--backbone", help="where there is no --init")
    parser.add_argument("--preset", help="where there is no --init")
    parser.add_argument("--epochs", type=int, help="as in spadunet_train")
    parser.add_argument("--input-size", nargs="+", help="as in spadunet_train")
    parser.add_argument("--learning-rate", help="as in spadunet_train")
    parser.add_argument("--train", default="", metavar='"OPTIONS"', help="more options of spadunet_train, in quotes")
    parser.add_argument("-device", "--device", default="auto")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, each with its share of cores")
    parser.add_argument("--num-workers", type=int, default=0, help="as in spadunet_train")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Options with whole paths; names that come with spadunet are found."""
    options = parser.parse_args()
    if options.init is not None:
        options.init = pretrained.find_weights(str(options.init)).resolve()
    options.output = options.output.resolve()
    options.files = [path.resolve() for path in options.files]
    names = [path.stem for path in options.files]
    if len(set(names)) < len(names):
        parser.error(f"two files have one name; give each another: {', '.join(names)}")
    return options


def digests_of(files: Sequence[Path]) -> dict[Path, str]:
    """Of what each file holds; a file that is none of MedMNIST's layout ends the benchmark."""
    return {path: open_medmnist(path).digest for path in files}


def training_options(options: argparse.Namespace) -> list[str]:
    """Options of `spadunet_train` that all runs of a folder share."""
    given = {name: getattr(options, name) for name in ("init", "backbone", "preset", "epochs", "learning_rate")}
    arguments = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    arguments += ["--input-size", *options.input_size] if options.input_size else []
    return [*arguments, *options.train.split(), "--num-workers", str(options.num_workers)]


def train_and_score(file: Path, folder: Path, arguments: Sequence[str], *, device: str, keeps: bool) -> Result:
    """Train unless that is done, predict the test split, score it; the folder goes unless it is to be kept."""
    start = time.perf_counter()
    model, predictions, log = folder / "model", folder / "predictions", folder / "log.txt"
    on = ["-device", device]
    if not (model / MANIFEST).is_file():
        train = ["--task", "classification", "-d", str(file), *arguments, *on]
        command("train", *train, "-o", str(model), "--data", str(folder), log=log)
    command("predict", "-m", str(model), "-i", str(file), "-o", str(predictions), "--continue", *on, log=log)
    command("evaluate", "-p", str(predictions / "predictions.csv"), "-r", str(file), log=log)
    scores = read_record(predictions / SCORES_JSON, ClassificationScores, remedy="delete it and start again")
    labels = open_medmnist(file).labels
    result = Result(
        num_train=len(labels["train"]),
        num_test=len(labels["test"]),
        auc=scores.auc,
        accuracy=scores.accuracy,
        validation_auc=validation_auc(model),
        seconds=round(time.perf_counter() - start, 1),
        **told_by_curves(model / "curves.csv", len(labels["train"])),
    )
    if not keeps:
        shutil.rmtree(folder)
    return result


def validation_auc(model: Path) -> float | None:
    """Of the weights that were kept."""
    provenance = json.loads((model / "model.json").read_text(encoding="utf-8"))["provenance"]
    value = provenance.get("validation_auc")
    return None if value in (None, "None") else float(value)


def told_by_curves(path: Path, num_train: int) -> dict:
    """Seconds of an epoch, and of experts their use and the router's entropy."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    last = lines[-max(1, len(lines) // 10) :]
    uses = [name for name in lines[-1] if name.startswith("expert_")]

    def mean(name: str) -> float:
        return statistics.mean(float(line[name]) for line in last)

    return {
        "epoch_seconds": num_train / statistics.median(float(line["samples_per_second"]) for line in lines),
        "router_entropy": mean("router_entropy") if uses else None,
        "expert_use": tuple(map(mean, uses)),
    }
