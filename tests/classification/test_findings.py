"""Who trains where some cases have label maps and some studies findings: nobody is on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spadunet.classes import ClassSet
from spadunet.classification.findings import BothSides, choose_sides, findings_of
from spadunet.classification.joint import num_of_studies
from spadunet.dataset import Dataset, RawCase
from spadunet.errors import InputError
from spadunet.labels import LabelSet
from spadunet.study import LabelledStudies, SplitName, Study
from spadunet.training.splits import SPLITS_JSON

CLASSES = ClassSet(kind="multi-label", names=("cyst", "stone"))


def raw(name: str) -> RawCase:
    return RawCase(name=name, image_paths=(Path(f"{name}.nii.gz"),), label_path=None)


def dataset_of(patients: dict[str, str], unlabelled: tuple[str, ...] = ()) -> Dataset:
    """Cases of these patients; of some, nobody drew a label map."""
    return Dataset(
        name="Dataset001_A",
        folder=Path("Dataset001_A"),
        channel_names=("CT",),
        labels=LabelSet(names=("background", "kidney"), ids=(0, 1)),
        file_ending=".nii.gz",
        cases=tuple(raw(name) for name in sorted(patients) if name not in unlabelled),
        patients=patients,
    )


def study(name: str, patient: str, *views: str, split: SplitName | None = None) -> Study:
    """One with a label of its own kind, so that both kinds are among a few."""
    labels = (len(name) % 2, sum(name.encode()) % 2)
    views = views or (name,)
    return Study(name=name, patient=patient, split=split, views=tuple(map(raw, views)), labels=labels)


def studies_of(*studies: Study) -> LabelledStudies:
    return LabelledStudies(
        name="A", folder=Path("A"), channel_names=("CT",), classes=CLASSES, studies=studies
    )  # fmt: skip


def choose(dataset: Dataset, found: LabelledStudies, folder: Path, fold: str = "0") -> tuple[BothSides, Dataset]:
    dataset, found = findings_of(dataset, found)
    return choose_sides(dataset, found, folder, fold), dataset


def test_table_and_names_together_tell_who_is_who():
    """The table says that a and b are Anna, dataset.json that b and c are one: all three are."""
    dataset = dataset_of({"a": "a", "b": "P1", "c": "P1", "d": "d"})
    found = studies_of(study("a", "Anna"), study("b", "Anna"), study("d", "Ben"), study("exam", "Cleo", "x", "y"))
    joined, studies = findings_of(dataset, found)
    assert joined.patients["a"] == joined.patients["b"] == joined.patients["c"]
    assert joined.patients["d"] != joined.patients["a"]
    assert [it.patient for it in studies.studies][:3] == [joined.patients[name] for name in "abd"]
    assert studies.name == "Dataset001_A_findings"


def test_capitals_and_spaces_make_no_other_patient():
    """Whether the table, dataset.json or names of files have them; shown is the table's spelling."""
    dataset = dataset_of({"anna_1": "anna b", "anna_2": "ANNA  B", "cleo_1": "cleo", "cleo_2": "Cleo"})
    found = studies_of(study("exam", "Anna B"), study("other", "AnnaB"), study("late", "dora"))
    joined, studies = findings_of(dataset, found)
    assert len({joined.patients["anna_1"], joined.patients["anna_2"]} | {it.patient for it in studies.studies[:2]}) == 1
    assert joined.patients["cleo_1"] == joined.patients["cleo_2"] == "cleo"
    assert studies.studies[2].patient == "dora"
    linked = studies_of(study("cleo_1", "Zoe"), study("img", "CLEO"))
    joined, studies = findings_of(dataset, linked)
    assert {joined.patients["cleo_2"], *(it.patient for it in studies.studies)} == {"Zoe"}


@pytest.mark.parametrize("fold", ["0", "1", "2", "3", "4"])
def test_no_patient_in_two_spellings_is_on_both_sides(tmp_path: Path, fold: str):
    people = ("anna", "ben", "cleo", "dora", "emil", "fritz")
    maps = {f"{name}_visit1": name for name in people}
    rows = [study(f"img{number}" + "x" * number, name.title()) for number, name in enumerate(people[:5])]
    sides, dataset = choose(dataset_of(maps), studies_of(*rows), tmp_path, fold)
    learned = {dataset.patients[name] for name in sides.cases[0]} | {it.patient for it in sides.train}
    kept = {dataset.patients[name] for name in sides.cases[1]} | {it.patient for it in sides.held_out}
    assert not {it.lower() for it in learned} & {it.lower() for it in kept}


@pytest.mark.parametrize("fold", ["0", "1", "2", "3", "4"])
def test_no_patient_trains_for_one_kind_and_is_held_out_for_the_other(tmp_path: Path, fold: str):
    """Twelve patients with a label map, eight of them with findings, in other images too; nine with findings alone."""
    names = {f"map{n:02}": f"map{n:02}" for n in range(12)}
    both = [study(f"map{n:02}", f"person{n}") for n in range(0, 8, 2)]
    other_images = [study(f"late{n}" + "x" * n, f"person{n}") for n in range(0, 8, 2)]
    alone = [study(f"row{n}" + "y" * n, f"row{n}") for n in range(9)]
    sides, dataset = choose(dataset_of(names), studies_of(*both, *other_images, *alone), tmp_path, fold)
    learned = {dataset.patients[name] for name in sides.cases[0]} | {it.patient for it in sides.train}
    kept = {dataset.patients[name] for name in sides.cases[1]} | {it.patient for it in sides.held_out}
    assert not learned & kept
    assert sorted(sides.cases[0] + sides.cases[1]) == sorted(names)
    assert len(sides.train) + len(sides.held_out) == len(both + other_images + alone)
    assert any(it.name.startswith("row") for it in sides.held_out)


def test_all_learns_from_everything(tmp_path: Path):
    found = studies_of(study("a", "a"), study("bb", "b"))
    sides, _ = choose(dataset_of({"a": "a", "c": "c"}), found, tmp_path, "all")
    assert (sides.cases, len(sides.train), sides.held_out) == ((["a", "c"], []), 2, ())


def test_splits_of_the_table_count_for_label_maps_too(tmp_path: Path):
    """c has no row and trains; d is of the test patient, so that nothing is learned of it."""
    found = studies_of(
        study("a", "a", split="train"),
        study("bb", "b", split="val"),
        study("eee", "d", split="test"),
        study("ffff", "f", split="train"),
    )
    sides, _ = choose(dataset_of({"a": "a", "bb": "b", "c": "c", "d": "d"}), found, tmp_path, "split")
    assert sides.cases == (["a", "c"], ["bb"])
    assert [it.name for it in sides.train] == ["a", "ffff"]
    assert [it.name for it in sides.held_out] == ["bb"]


def test_a_patient_on_both_sides_is_refused(tmp_path: Path):
    """The user's own folds hold b out; the table says that it shows Anna, as a does."""
    dataset = dataset_of({"a": "a", "b": "b", "c": "c"})
    (tmp_path / SPLITS_JSON).write_text(json.dumps([{"train": ["a", "c"], "val": ["b"]}]))
    found = studies_of(study("a", "Anna"), study("b", "Anna"), study("cc", "c"))
    with pytest.raises(InputError, match=r"splits_final.json: Anna would train and be held out.*made anew by patient"):
        choose(dataset, found, tmp_path)
    split = studies_of(study("a", "a", split="train"), study("bb", "b", split="test"))
    with pytest.raises(InputError, match=r"labels.csv: b would train and be held out, with label maps or findings"):
        choose(dataset_of({"a": "a", "bb": "a"}), split, tmp_path, "split")


def test_a_fold_in_which_one_kind_cannot_be_learned_is_refused(tmp_path: Path):
    dataset = dataset_of({name: name for name in "abcde"})
    (tmp_path / SPLITS_JSON).write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "d", "e"]}]))
    with pytest.raises(InputError, match="no study with a row trains"):
        choose(dataset, studies_of(study("c", "c"), study("d", "d")), tmp_path)
    alike = studies_of(study("a", "a"), study("c", "c", "c"), study("dd", "d"))
    with pytest.raises(InputError, match="fold 0: all studies that would train have the same label"):
        choose(dataset, alike, tmp_path)
    table = studies_of(study("a", "a", split="val"), study("bb", "b", split="train"))
    with pytest.raises(InputError, match="no case with a label map trains"):
        choose(dataset_of({"a": "a"}), table, tmp_path, "split")


def test_steps_of_studies_are_spread_evenly():
    for share in (0.5, 1 / 3, 0.01, 0.9):
        numbers = [num_of_studies(step, share) for step in range(301)]
        assert all(b - a in (0, 1) for a, b in zip(numbers, numbers[1:], strict=False))
        assert numbers[300] == pytest.approx(300 * share, abs=1)
