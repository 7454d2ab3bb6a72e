"""Lesions that can be counted by hand, and what is said where panoptica is not installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from spadunet.errors import InputError
from spadunet.evaluation.lesions import lesion_scores, require_panoptica
from spadunet.evaluation.scoring import Scoring, score_class


@pytest.fixture
def masks() -> tuple[np.ndarray, np.ndarray]:
    """One lesion found with IoU 16 / 20, one false, two not found."""
    prediction, reference = np.zeros((2, 1, 40, 60), bool)
    prediction[0, 2:6, 2:6] = True
    reference[0, 2:6, 2:7] = True
    prediction[0, 20:24, 20:24] = True
    reference[0, 30:34, 40:44] = True
    reference[0, 10:12, 50:52] = True
    return prediction, reference


def test_lesions_are_matched_and_counted(masks: tuple[np.ndarray, np.ndarray]):
    pytest.importorskip("panoptica")
    scores = lesion_scores(*masks)
    assert scores["lesion_f1"] == pytest.approx(2 / (2 + 1 + 2))
    assert scores["panoptic_quality"] == pytest.approx(0.8 * 2 / 5)
    score = score_class(*masks, (1.0, 1.0, 1.0), Scoring(metrics=("panoptic_quality", "dice", "lesion_f1")))
    assert list(score.values) == ["panoptic_quality", "dice", "lesion_f1"]
    assert score.values["lesion_f1"] == scores["lesion_f1"]


def test_an_iou_of_just_a_half_is_no_match_and_voxels_touch_at_corners():
    pytest.importorskip("panoptica")
    two, one = np.zeros((2, 3, 4, 5), bool)
    two[0, 0, :2] = True
    one[0, 0, 0] = True
    assert lesion_scores(two, one) == {"lesion_f1": 0, "panoptic_quality": 0}
    diagonal, rest = np.zeros((2, 5, 5, 5), bool)
    diagonal[[1, 2, 3], [1, 2, 3], [1, 2, 3]] = True
    rest[[1, 2], [1, 2], [1, 2]] = True
    assert lesion_scores(rest, diagonal) == pytest.approx({"lesion_f1": 1, "panoptic_quality": 2 / 3})


@pytest.mark.parametrize(("predicted", "there", "value"), [(1, 0, 0.0), (0, 1, 0.0), (0, 0, None)])
def test_empty_masks_need_no_panoptica(predicted: int, there: int, value: float | None):
    masks = [np.full((2, 2, 2), number, bool) for number in (predicted, there)]
    assert lesion_scores(*masks) == {"lesion_f1": value, "panoptic_quality": value}


def test_where_panoptica_is_not_installed_the_command_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^lesion_f1: needs panoptica; pip install 'spadunet\[lesions\]'$"):
        require_panoptica(["dice", "lesion_f1"])
    require_panoptica(["dice"])
