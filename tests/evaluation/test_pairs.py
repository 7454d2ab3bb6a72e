"""Which files belong together."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadunet.errors import InputError
from spadunet.evaluation.pairs import Pair, find_pairs


def folders(tmp_path: Path, predictions: list[str], references: list[str]) -> tuple[Path, Path]:
    """Two folders of empty files."""
    for folder, names in (("p", predictions), ("r", references)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return tmp_path / "p", tmp_path / "r"


def test_pairs_have_one_name_whatever_the_ending_and_are_sorted(tmp_path: Path):
    p, r = folders(tmp_path, ["b.nii.gz", "a.nii", "a.json", "._b.nii.gz"], ["a.nii.gz", "b.nii.gz", "notes.txt"])
    pairs = [Pair("a", p / "a.nii", r / "a.nii.gz"), Pair("b", p / "b.nii.gz", r / "b.nii.gz")]
    assert find_pairs(p, r) == (pairs, [])


def test_missing_predictions_are_listed_with_the_remedy(tmp_path: Path):
    p, r = folders(tmp_path, ["a.nii.gz"], ["a.nii.gz", "b.nii.gz", "c.nii.gz"])
    with pytest.raises(InputError, match=r"p: no prediction for 2 of 3 references: b, c; .*--allow-missing"):
        find_pairs(p, r)


def test_missing_predictions_are_counted_if_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    p, r = folders(tmp_path, ["a.nii.gz"], ["a.nii.gz", "b.nii.gz", "c.nii.gz"])
    pairs, missing = find_pairs(p, r, allow_missing=True)
    assert [pair.name for pair in pairs] == ["a"]
    assert missing == ["b", "c"]
    assert "references without a prediction, not scored: 2 of 3" in caplog.text


def test_predictions_without_a_reference_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    p, r = folders(tmp_path, ["a.nii.gz", "x.nii.gz"], ["a.nii.gz"])
    assert len(find_pairs(p, r)[0]) == 1
    assert "predictions without a reference, not scored: 1" in caplog.text


@pytest.mark.parametrize("allow_missing", [False, True])
def test_not_a_single_pair_is_an_error(tmp_path: Path, allow_missing: bool):
    p, r = folders(tmp_path, ["a.nii.gz"], ["b.nii.gz"])
    with pytest.raises(InputError, match=r"no prediction for 1 of 1 references: b; the names must be the same"):
        find_pairs(p, r, allow_missing=allow_missing)


def test_a_long_list_is_cut(tmp_path: Path):
    p, r = folders(tmp_path, [], [f"case_{number:03}.nii.gz" for number in range(30)])
    with pytest.raises(InputError, match=r"30 of 30 references: case_000, .*case_019 and 10 more"):
        find_pairs(p, r)


def test_no_references_no_folder_and_doubles_are_errors(tmp_path: Path):
    p, r = folders(tmp_path, ["a.nii.gz", "a.nii"], [])
    with pytest.raises(InputError, match=r"elsewhere: folder not found"):
        find_pairs(p, tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"a\.nii\.gz: a\.nii beside it is the same case"):
        find_pairs(p, r)
    with pytest.raises(InputError, match=r"r: no references here"):
        find_pairs(r, r)
