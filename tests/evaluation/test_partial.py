"""The scores of an interrupted evaluation, and what of them is used again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import spadunet
from spadunet.errors import InputError
from spadunet.evaluation import evaluate
from spadunet.evaluation.evaluate import evaluate_folders
from spadunet.evaluation.partial import keep_scores
from spadunet.evaluation.scoring import Scoring
from spadunet.labels import LabelSet
from spadunet.scores import Scores

DEMO_LABELS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/labelsTs"
LABELS = LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))
DICE = Scoring(metrics=("dice",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three of the demo's label maps, predictions and references at once."""
    for path in sorted(DEMO_LABELS.glob("*.nii.gz"))[:3]:
        (tmp_path / "labels").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "labels")
    return tmp_path / "labels"


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are scored from now on."""
    names: list[str] = []
    real = evaluate.evaluate_case

    def note(case: str, *arguments, **options):
        names.append(case)
        return real(case, *arguments, **options)

    monkeypatch.setattr(evaluate, "evaluate_case", note)
    return names


def score(folder: Path, scoring: Scoring = DICE, **options) -> Scores:
    return evaluate_folders(
        folder, folder, LABELS, scoring=scoring, partial=folder.parent / "out/partial.jsonl", **options
    )


def test_only_the_rest_is_scored_again_and_the_scores_are_the_same(folder: Path, scored: list[str]):
    whole, partial = score(folder), folder.parent / "out/partial.jsonl"
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 3
    partial.write_bytes(b"".join(lines[:2]) + lines[2][:-30])  # killed while it wrote the second
    scored.clear()
    assert score(folder) == whole
    assert len(scored) == 2
    assert len(partial.read_bytes().splitlines()) == 1 + 3
    scored.clear()
    assert score(folder) == whole
    assert scored == []


def test_a_case_whose_file_has_changed_is_scored_anew(folder: Path, scored: list[str]):
    score(folder)
    scored.clear()
    path = sorted(folder.iterdir())[1]
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    score(folder)
    assert scored == [path.name.removesuffix(".nii.gz")]


@pytest.mark.parametrize(
    "change", [{"scoring": Scoring(metrics=("dice", "hd_mm"))}, {"scoring": Scoring(metrics=("dice",), missing="nan")}]
)
def test_other_settings_score_all_anew(folder: Path, scored: list[str], change: dict):
    score(folder)
    scored.clear()
    assert score(folder, **change).metrics == change["scoring"].metrics
    assert len(scored) == 3


def test_what_was_annotated_counts_too(folder: Path, scored: list[str]):
    score(folder)
    scored.clear()
    name = sorted(folder.iterdir())[0].name.removesuffix(".nii.gz")
    score(folder, annotated={name: ("Anterior",)})
    assert scored == [name]


def test_two_evaluations_do_not_write_into_one_file(tmp_path: Path):
    path = tmp_path / "partial.jsonl"
    with (
        keep_scores(path, "a"),
        pytest.raises(InputError, match="another evaluation writes here"),
        keep_scores(path, "a"),
    ):
        pass
