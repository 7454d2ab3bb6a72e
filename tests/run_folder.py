"""Folders of runs, as runs leave them."""

from __future__ import annotations

import csv
import functools
import io
import platform
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from spadunet.labels import LabelSet
from spadunet.metrics import DEFAULT_METRICS
from spadunet.plan import IntensityRule, Plan
from spadunet.record import write_record
from spadunet.scores import CaseScore, ClassScore, Scores
from spadunet.training.curves import CSV_FILE
from spadunet.training.samples import overlay_path
from spadunet.training.status import RunStatus, now, write_status


def plan_of(name: str, classes: Sequence[str] = ("liver", "spleen")) -> Plan:
    """A plan of a dataset with these classes."""
    return Plan(
        dataset_name=name,
        channel_names=("CT",),
        intensity=(IntensityRule(kind="window", low=-175, high=250),),
        target_spacing_mm=(3.0, 0.75, 0.75),
        degree_of_anisotropy=2,
        patch_sizes_voxels=dict.fromkeys(range(7), (16, 64, 64)),
        labels=LabelSet(names=("background", *classes), ids=tuple(range(len(classes) + 1))),
        memory_gb=1,
        fingerprint_digest="0",
    )


def status_of(*, plans: Sequence[Plan] = (), **changes: object) -> RunStatus:
    """A run of fold 0 on this machine that began a minute ago."""
    given: dict[str, object] = {
        "kind": "train",
        "state": "running",
        "started": now() - timedelta(minutes=1),
        "updated": now(),
        "host": platform.node(),
        "checkpoint_minutes": 5.0,
        "request": {
            "datasets": " ".join(plan.dataset_name for plan in plans),
            "backbone": "spad_unet",
            "preset": "tiny",
            "fold": "0",
            "max_steps": "200",
            "max_minutes": "None",
            "init": "None",
        },
        "facts": {"device": "cpu", "torch": "2.13.0"},
        "plans": tuple(plans),
    }
    return RunStatus.model_validate(given | changes)


def write_curves(folder: Path, tasks: Sequence[str], num_steps: int = 100) -> None:
    """Losses that fall from 2, the n-th task's n higher; a fifth of each step is spent waiting."""
    columns = ("step", "minutes", "task", "da", "loss", "learning_rate", "samples_per_second", "waiting_share")
    with (folder / CSV_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for step in range(num_steps):
            number = step % len(tasks)
            loss, rate = 2 * 0.97**step + number, 1e-3 * (1 - step / num_steps)
            writer.writerow([step, f"{step / 60:.4f}", tasks[number], 0, f"{loss:.9g}", f"{rate:.6g}", 4, 0.2])


def score_of(dice: float | None, *, is_missed: bool = False) -> ClassScore:
    """A class of a case; without a Dice, it is neither predicted nor there."""
    if dice is None or is_missed:
        values = dict.fromkeys(DEFAULT_METRICS) | ({"dice": 0.0} if is_missed else {})
        return ClassScore(values=values, num_prediction_voxels=0, num_reference_voxels=9 if is_missed else 0)
    values = {"dice": dice, "assd_mm": 1.25, "hd_mm": 7.5, "hd95_mm": 5.5}
    return ClassScore(values=values, num_prediction_voxels=9, num_reference_voxels=9)


def case_of(name: str, classes: Mapping[str, ClassScore]) -> CaseScore:
    """A case of 3 x 4 x 12 voxels of 1 mm, with a diagonal of 13 mm."""
    return CaseScore(case=name, classes=dict(classes), shape_voxels=(3, 4, 12), spacing_mm=(1, 1, 1))


@functools.cache
def picture() -> bytes:
    """A small JPEG."""
    buffer = io.BytesIO()
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().imshow(np.eye(4))
    figure.savefig(buffer, format="jpg")
    return buffer.getvalue()


def write_validation(
    folder: Path, dataset: str, cases: Mapping[str, Mapping[str, ClassScore]], *, failed: tuple[str, ...] = ()
) -> Scores:
    """Final scores of a dataset, and a picture of each case."""
    scores = Scores(cases=tuple(case_of(name, found) for name, found in cases.items()), failed=failed)
    write_record(folder / "validation" / dataset / "scores.json", scores)
    for case in cases:
        path = overlay_path(folder / "validation" / dataset, case, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture())
    return scores


def make_run(folder: Path, datasets: Mapping[str, Sequence[str]], **changes: object) -> RunStatus:
    """A run with status, curves and, if it is finished, scores: a Dice of 0.5, 0.7, … for the cases of a dataset."""
    plans = [plan_of(name, classes) for name, classes in datasets.items()]
    status = status_of(**{"plans": plans, **changes})
    write_status(folder, status)
    write_curves(folder, list(datasets))
    if status.state == "finished" and status.request["fold"] != "all":
        for name, classes in datasets.items():
            cases = {f"case{number}": {it: score_of(0.5 + 0.2 * number) for it in classes} for number in range(3)}
            write_validation(folder, name, cases)
    return status
