"""Folds: patients stay together, and a user's file is law."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spadunet.dataset import Dataset, RawCase
from spadunet.errors import InputError
from spadunet.labels import LabelSet
from spadunet.patients import patients_of
from spadunet.training.splits import choose_cases, choose_fraction, make_splits


def dataset_of(*names: str, patients: dict[str, str] | None = None) -> Dataset:
    """A dataset of cases that need not exist."""
    return Dataset(
        name="Dataset001_A",
        folder=Path("raw"),
        channel_names=("MRI",),
        labels=LabelSet(names=("background", "organ"), ids=(0, 1)),
        file_ending=".nii.gz",
        cases=tuple(RawCase(name=name, image_paths=(), label_path=None) for name in names),
        patients=patients_of(names, patients or {}),
    )


TEN = dataset_of(*(f"case{number}" for number in range(10)))
PHASES = dataset_of(*(f"SC-N-{patient:02}_ph{phase:02}" for patient in range(7) for phase in range(3)))


def test_each_case_is_held_out_once_and_trains_in_all_other_folds():
    splits = make_splits(TEN)
    assert len(splits) == 5
    names = sorted(case.name for case in TEN.cases)
    assert sorted(name for split in splits for name in split["val"]) == names
    assert all(sorted(split["train"] + split["val"]) == names for split in splits)
    assert all(len(split["val"]) == 2 for split in splits)


@pytest.mark.parametrize("dataset", [PHASES, dataset_of("a", "b", "c", patients={"a": "P", "b": "P"})])
def test_images_of_one_patient_are_never_on_both_sides(dataset: Dataset):
    splits = make_splits(dataset)
    assert splits
    for split in splits:
        assert split["val"]
        assert not {dataset.patients[n] for n in split["train"]} & {dataset.patients[n] for n in split["val"]}


def test_the_split_is_the_same_every_time_and_does_not_depend_on_the_order_of_cases():
    shuffled = dataset_of(*(case.name for case in reversed(TEN.cases)))
    assert [set(s["val"]) for s in make_splits(TEN)] == [set(s["val"]) for s in make_splits(shuffled)]


def test_three_patients_give_three_folds_and_one_gives_none(tmp_path: Path):
    assert len(make_splits(dataset_of("a", "b", "c"))) == 3
    single = dataset_of("a", "b", patients={"a": "P", "b": "P"})
    assert make_splits(single) == []
    with pytest.raises(InputError, match=r"-f 0: .*has no folds, since a single patient cannot be split; give -f all"):
        choose_cases(single, tmp_path, "0")


def test_the_file_is_written_once_in_nnunets_layout(tmp_path: Path):
    train, val = choose_cases(TEN, tmp_path, "3")
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    assert splits[3] == {"train": train, "val": val}
    assert [set(split) for split in splits] == [{"train", "val"}] * 5


def test_a_file_that_is_there_is_read_and_left_as_it_is(tmp_path: Path):
    path = tmp_path / "splits_final.json"
    text = '[{"val": ["case1"],   "train": ["case7", "case3"]}]'
    path.write_text(text)
    assert choose_cases(TEN, tmp_path, "0") == (["case7", "case3"], ["case1"])
    assert path.read_text() == text


def test_all_trains_on_everything_and_writes_no_file(tmp_path: Path):
    assert choose_cases(TEN, tmp_path, "all") == ([case.name for case in TEN.cases], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "expected a list of"),
        ('{"train": [], "val": []}', "expected a list of"),
        ('[{"train": ["case1"]}]', "expected a list of"),
        ("[3]", "expected a list of"),
        ('[{"train": ["case1"], "val": ["stranger"]}]', r"names cases that the dataset has not: \['stranger'\]"),
        ('[{"train": ["case1"], "val": ["case1"]}]', r"lists cases in both train and val: \['case1'\]"),
        ('[{"train": [], "val": ["case1"]}]', "fold 0 has no training case"),
        ("[]", "has no folds"),
    ],
)
def test_a_bad_file_is_named_with_the_remedy(tmp_path: Path, text: str, message: str):
    (tmp_path / "splits_final.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        choose_cases(TEN, tmp_path, "0")
    assert "splits_final.json" in str(caught.value)


def test_a_fold_beyond_the_file_is_an_error_that_says_which_there_are(tmp_path: Path):
    (tmp_path / "splits_final.json").write_text('[{"train": ["case1"], "val": []}, {"train": ["case2"], "val": []}]')
    with pytest.raises(InputError, match=r"-f 4: .* has folds 0 to 1; give one of them or all"):
        choose_cases(TEN, tmp_path, "4")


def test_cases_added_later_and_patients_on_both_sides_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    splits = [{"train": ["SC-N-01_ph00"], "val": ["SC-N-01_ph01"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    choose_cases(PHASES, tmp_path, "0")
    assert "19 cases are in no fold and not used (SC-N-00_ph00 …)" in caplog.text
    assert "fold 0 has images of SC-N-01 in both train and val" in caplog.text


def test_a_fraction_takes_whole_patients_and_a_larger_one_holds_the_smaller(caplog: pytest.LogCaptureFixture):
    names = [case.name for case in PHASES.cases]
    kept = [choose_fraction(PHASES, names, share, 1) for share in (0.01, 0.3, 0.5, 0.9, 1.0)]
    patients = [{PHASES.patients[name] for name in part} for part in kept]
    assert [len(part) for part in patients] == [1, 2, 3, 6, 7]  # of 7, rounded down, but at least one
    for smaller, larger in zip(patients, patients[1:], strict=False):
        assert smaller < larger
    for part, chosen in zip(kept, patients, strict=True):
        assert part == [name for name in names if PHASES.patients[name] in chosen]
    caplog.set_level("INFO")
    assert choose_fraction(PHASES, names, 0.3, 1) == kept[1]
    assert "--fraction 0.3 of 7 training patients: 2, with 6 of 21 cases" in caplog.text


def test_another_seed_takes_other_patients_and_the_order_of_cases_does_not_matter():
    names = [case.name for case in PHASES.cases]
    assert len({tuple(choose_fraction(PHASES, names, 0.3, seed)) for seed in range(6)}) > 1
    assert set(choose_fraction(PHASES, names[::-1], 0.3, 1)) == set(choose_fraction(PHASES, names, 0.3, 1))


def test_a_fraction_of_hand_written_splits_is_of_their_training_cases(tmp_path: Path):
    splits = [{"train": ["case7", "case3", "case1", "case2"], "val": ["case0"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    train, val = choose_cases(TEN, tmp_path, "0")
    chosen = choose_fraction(TEN, train, 0.5, 0)
    assert len(chosen) == 2
    assert set(chosen) < set(train)
    assert val == ["case0"]
