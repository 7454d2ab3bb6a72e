"""Memory does not grow with the images, and little with the cases."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from peak_memory import peak_bytes

from spadunet.evaluation.evaluate import evaluate_folders
from spadunet.evaluation.scoring import Scoring, gather_scores
from spadunet.evaluation.tables import write_scores
from spadunet.formats import write_array
from spadunet.labels import LabelSet
from spadunet.scores import CaseScore, ClassScore

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MEGABYTE = 1_000_000
ORGANS = LabelSet(names=("background", *(f"organ {number}" for number in range(1, 14))), ids=tuple(range(14)))


def test_images_are_held_one_pair_at_a_time(tmp_path: Path):
    array = np.zeros((100, 300, 300), np.uint8)  # 9 MB
    array[40:60, 100:120, 100:120] = 1
    folder = tmp_path / "labels"
    write_array(folder / "case_0.nii", array, np.eye(4))
    peaks = []
    for number in range(1, 9):
        shutil.copy(folder / "case_0.nii", folder / f"case_{number}.nii")
        if number in (1, 8):
            scoring = Scoring(metrics=("dice",))
            peaks.append(peak_bytes(lambda scoring=scoring: evaluate_folders(folder, folder, ORGANS, scoring=scoring)))
    assert 15 * MEGABYTE < peaks[0] < 100 * MEGABYTE
    assert peaks[1] < peaks[0] + 20 * MEGABYTE  # seven more pairs have 126


def test_a_thousand_cases_of_thirteen_organs_fit_into_little(tmp_path: Path):
    scoring = Scoring()
    values = dict.fromkeys(scoring.metrics, 0.5)

    def gather_and_write() -> None:
        cases = (
            CaseScore(
                case=f"case_{number:04}",
                classes={
                    name: ClassScore(
                        values=dict(values), num_prediction_voxels=9, num_reference_voxels=9, num_common_voxels=8
                    )
                    for name in ORGANS.names[1:]
                },
                shape_voxels=(9, 9, 9),
                spacing_mm=(1.0, 1.0, 1.0),
            )
            for number in range(1000)
        )
        write_scores(tmp_path, gather_scores(cases, scoring), ORGANS)

    assert peak_bytes(gather_and_write) < 120 * MEGABYTE
    assert (tmp_path / "scores.csv").read_text().count("\n") > 13_000
