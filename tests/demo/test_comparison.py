"""What `spadunet_demo --pretrained` says of the plain demo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from run_folder import score_of

from spadunet.cli.demo import DATASETS, TITLES, comparison
from spadunet.model import Model, save_model
from spadunet.record import write_record
from spadunet.scores import CaseScore, Scores


def scores_of(dice: float) -> Scores:
    return Scores(cases=(CaseScore(case="a", classes={"organ": score_of(dice)}),))


def write_model(folder: Path, *, steps: int, minutes: str = "8.7", seed: str = "0") -> None:
    provenance = {"max_minutes": minutes, "seed": seed, "steps": str(steps)}
    state = {"weight": torch.zeros(1)}
    save_model(folder, Model(backbone="b", preset="p", backbone_state=state, tasks={}, provenance=provenance))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A folder with a plain demo and a pre-trained model."""
    write_model(tmp_path / "results/demo", steps=600)
    write_model(tmp_path / "results/demo_pretrained", steps=590)
    os.utime(tmp_path / "results/demo/model.json", (1, 1))
    for name, dice in zip(DATASETS, (0.85, 0.83), strict=True):
        write_record(tmp_path / "predictions" / name / "scores.json", scores_of(dice))
    return tmp_path


def test_it_says_where_pretraining_is_better_and_where_it_is_not(plain: Path):
    lines = comparison(plain, dict(zip(DATASETS, map(scores_of, (0.86, 0.82)), strict=True)))
    assert lines == [
        "Plain and pre-trained, one run each of 8.7 minutes (600 and 590 steps):",
        f"  {TITLES[0]}: mean test Dice 0.850 and 0.860, better",
        f"  {TITLES[1]}: mean test Dice 0.830 and 0.820, no better",
    ]
    nearly = comparison(plain, dict(zip(DATASETS, map(scores_of, (0.8502, 0.82)), strict=True)))
    assert nearly[1].endswith("as good")


@pytest.mark.parametrize(("option", "value"), [("minutes", "3.0"), ("seed", "1")])
def test_a_plain_demo_of_another_length_or_seed_is_not_compared(plain: Path, option: str, value: str):
    write_model(plain / "results/demo_pretrained", steps=200, **{option: value})
    (line,) = comparison(plain, dict.fromkeys(DATASETS, scores_of(0.9)))
    assert line.startswith("Not compared") and value in line


@pytest.mark.parametrize("what", ["nothing", "no scores", "old scores"])
def test_without_a_finished_plain_demo_it_says_how_to_make_one(plain: Path, what: str):
    scores = plain / "predictions" / DATASETS[1] / "scores.json"
    if what == "nothing":
        (plain / "results/demo/model.json").unlink()
    elif what == "no scores":
        scores.unlink()
    else:  # trained again, and not yet scored
        os.utime(scores, (0, 0))
    (line,) = comparison(plain, {})
    assert line == f"spadunet_demo -o {plain} makes the plain demo, for comparison."
