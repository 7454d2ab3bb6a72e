"""What a run is said to take before it begins; `tests/cli/test_dry_run.py` compares it with what it takes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spadunet.dataset import Dataset
from spadunet.inference.estimate import WindowCost
from spadunet.sides import PATIENT_AXES
from spadunet.training.estimate import validation_seconds
from spadunet.training.prepare import TrainingDataset

WINDOW = WindowCost(seconds=0.5, peak_bytes=0, device_bytes=0)


@pytest.mark.parametrize(
    ("shape", "overlap", "mirror", "num_windows"),
    [
        ((8, 32, 16), 0.5, (), 3),  # windows of 16 begin at 0, 8, 16
        ((8, 32, 16), 0.75, (), 5),  # at 0, 4, 8, 12, 16
        ((8, 32, 16), 0.75, PATIENT_AXES, 5 * 8),
        ((8, 32, 16), 0.5, PATIENT_AXES[:1], 3 * 2),
        ((1, 32, 16), 0.5, PATIENT_AXES, 3 * 4),  # a single slice has no mirror image along its depth
    ],
)
def test_validation_takes_the_windows_of_the_runs_overlap_in_every_mirror_image(
    shape, overlap: float, mirror, num_windows: int, make_task, make_options
):
    task = make_task(shape=shape, patch=(min(shape[0], 8), 16, 16), num_cases=2)
    cases = task.cases[0].folder
    folder = cases.parent / "planned"
    folder.mkdir()
    cases.rename(folder / "cases")
    dataset = Dataset(
        name=task.name,
        folder=folder,
        channel_names=task.plan.channel_names,
        labels=task.plan.labels,
        file_ending=".nii.gz",
        cases=(),
        patients={},
    )
    member = TrainingDataset(dataset=dataset, plan=task.plan, folder=folder)
    options = replace(make_options(), overlap=overlap, mirror=mirror)
    names = ["c0", "c1", "one that is not stored"]
    assert validation_seconds(member, names, WINDOW, options) == pytest.approx(2 * num_windows * 0.5)
