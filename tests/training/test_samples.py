"""Which validation cases are shown, and that a case which cannot be drawn stops nothing."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from run_folder import case_of, score_of

import spadunet
from spadunet.dataset import RawCase
from spadunet.labels import LabelSet
from spadunet.scores import Scores
from spadunet.training.samples import choose_samples, draw_samples, overlay_paths, rank_cases

DEMO = Path(spadunet.__file__).parent / "demo/data/Dataset101_SunnybrookLV"
LABELS = LabelSet(names=("background", "LV"), ids=(0, 1))


def scores_of(dice: dict[str, float | None]) -> Scores:
    """One class."""
    return Scores(cases=tuple(case_of(name, {"LV": score_of(value)}) for name, value in dice.items()))


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ({}, {}),
        ({"a": None}, {}),
        ({"a": 0.5}, {"worst": "a"}),
        ({"a": 0.5, "b": 0.4}, {"worst": "b", "best": "a"}),
        ({"a": 0.5, "b": 0.4, "c": 0.9, "d": None}, {"worst": "b", "median": "a", "best": "c"}),
        ({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}, {"worst": "a", "median": "b", "best": "d"}),
        ({"b": 0.5, "a": 0.5, "c": 0.5}, {"worst": "a", "median": "b", "best": "c"}),
    ],
)
def test_worst_median_and_best_by_mean_dice(dice: dict[str, float | None], chosen: dict[str, str]):
    assert {word: score.case for word, score in choose_samples(scores_of(dice)).items()} == chosen


def test_cases_without_a_dice_have_no_rank():
    assert [score.case for score in rank_cases(scores_of({"a": 0.7, "b": None, "c": 0.1}))] == ["c", "a"]


def test_samples_are_drawn_from_their_files_and_those_that_cannot_be_are_named(tmp_path: Path, caplog):
    names = sorted(path.name.removesuffix(".nii.gz") for path in (DEMO / "labelsTs").glob("*.nii.gz"))[:3]
    cases = [
        RawCase(
            name=name,
            image_paths=(DEMO / f"imagesTs/{name}_0000.nii.gz",),
            label_path=DEMO / f"labelsTs/{name}.nii.gz",
        )
        for name in names
    ]
    for name in names[:2]:
        shutil.copy(DEMO / f"labelsTs/{name}.nii.gz", tmp_path)
    (tmp_path / f"{names[2]}.nii.gz").write_bytes(b"no NIfTI")
    (tmp_path / "overlays").mkdir()
    (tmp_path / "overlays/of_an_earlier_run_0.jpg").touch()
    scores = scores_of({names[0]: 0.1, names[1]: 0.2, names[2]: 0.3})
    with caplog.at_level(logging.WARNING, "spadunet"):
        draw_samples(cases, tmp_path, scores, LABELS)
    assert [len(overlay_paths(tmp_path, name)) for name in names] == [3, 3, 0]
    assert f"{names[2]}: cannot be drawn (InputError" in caplog.text
    assert len(list((tmp_path / "overlays").iterdir())) == 6
