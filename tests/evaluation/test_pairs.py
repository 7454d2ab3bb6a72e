"""Which files belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadunet.errors import InputError
from spadunet.evaluation.pairs import Pair, find_pairs, missing_problem


def folders(tmp_path: Path, predictions: list[str], references: list[str]) -> tuple[Path, Path]:
    """Two folders of empty files."""
    for folder, names in (("p", predictions), ("r", references)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path / "p", tmp_path / "r"


def test_pairs_have_one_name_whatever_the_ending_and_are_sorted(tmp_path: Path):
    p, r = folders(tmp_path, ["b.nii.gz", "a.nii", "a.json", "._b.nii.gz"], ["a.nii.gz", "b.nii.gz", "notes.txt"])
    pairs = [Pair("a", p / "a.nii", r / "a.nii.gz", ("liver",)), Pair("b", p / "b.nii.gz", r / "b.nii.gz")]
    assert find_pairs(p, r, {"a": ("liver",), "c": ()}) == pairs
    assert missing_problem(pairs, p) is None


def test_missing_predictions_are_all_listed_with_the_remedy(tmp_path: Path):
    names = [f"case_{number:03}" for number in range(30)]
    p, r = folders(tmp_path, ["a.nii.gz"], [f"{name}.nii.gz" for name in ("a", *names)])
    problem = missing_problem(find_pairs(p, r), p)
    assert problem is not None
    assert problem.startswith(f"{p}: no prediction for 30 of 31 references: {', '.join(names)}; ")
    assert problem.endswith("--allow-missing")


def test_missing_predictions_are_counted_if_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    p, r = folders(tmp_path, ["a.nii.gz"], ["a.nii.gz", "b.nii.gz", "c.nii.gz"])
    pairs = find_pairs(p, r)
    assert [(pair.name, pair.prediction) for pair in pairs] == [("a", p / "a.nii.gz"), ("b", None), ("c", None)]
    assert missing_problem(pairs, p, allow_missing=True) is None
    assert "references without a prediction, counted as missed: 2 of 3" in caplog.text
    assert "predictions without a reference" not in caplog.text


def test_predictions_without_a_reference_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    p, r = folders(tmp_path, ["a.nii.gz", "x.nii.gz"], ["a.nii.gz"])
    assert len(find_pairs(p, r)) == 1
    assert "predictions without a reference among those that are scored, left out: 1" in caplog.text


@pytest.mark.parametrize("allow_missing", [False, True])
def test_not_a_single_pair_is_a_problem(tmp_path: Path, allow_missing: bool):
    p, r = folders(tmp_path, ["a.nii.gz"], ["b.nii.gz"])
    problem = missing_problem(find_pairs(p, r), p, allow_missing=allow_missing)
    assert problem == f"{p}: no prediction for 1 of 1 references: b; the names must be the same"


def test_no_references_no_folder_and_doubles_are_errors(tmp_path: Path):
    p, r = folders(tmp_path, ["a.nii.gz", "a.nii"], [])
    with pytest.raises(InputError, match=r"elsewhere: folder not found"):
        find_pairs(p, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"a\.nii\.gz: a\.nii beside it is the same case"):
        find_pairs(p, r)
    with pytest.raises(InputError, match=r"r: no references here"):
        find_pairs(r, r)
