"""A whole dataset: resumable, each case whole or absent."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from spadunet.dataset import Dataset, load_dataset
from spadunet.files import partial_path
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.plan import Plan
from spadunet.plans.extract import extract_fingerprint
from spadunet.plans.planner import make_plan
from spadunet.preprocessing.integrity import read_checked
from spadunet.preprocessing.preprocess import orient_and_crop
from spadunet.preprocessing.run import Summary, preprocess_dataset
from spadunet.preprocessing.store import open_case
from spadunet.workers import Workers

DEMO = Path(__file__).parent.parent.parent / "spadunet/demo/data/Dataset004_Hippocampus"
NAMES = ["hippocampus_011", "hippocampus_017", "hippocampus_035"]
KEPT = Summary(num_made=0, num_kept=3, problems=())


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three embedded cases in a folder of their own."""
    folder = tmp_path / "Dataset004_Hippocampus"
    for sub, suffix in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / sub).mkdir(parents=True)
        for name in NAMES:
            shutil.copy(DEMO / sub / f"{name}{suffix}", folder / sub)
    shutil.copy(DEMO / "dataset.json", folder)
    return load_dataset(folder)


@pytest.fixture
def plan(dataset: Dataset) -> Plan:
    read = partial(read_checked, labels=dataset.labels, num_channels=1)
    fingerprint = extract_fingerprint(dataset, read=read, orient=orient_and_crop)
    return make_plan(fingerprint, dataset.channel_names, dataset.labels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cases"


def make_cases(dataset: Dataset, plan: Plan, folder: Path) -> Summary:
    """Preprocess in this process."""
    return preprocess_dataset(dataset, plan, folder)


def test_the_first_run_makes_all_and_the_second_keeps_all(dataset: Dataset, plan: Plan, folder: Path):
    assert make_cases(dataset, plan, folder) == Summary(num_made=3, num_kept=0, problems=())
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(times) == 3 * 4
    assert make_cases(dataset, plan, folder) == KEPT
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_a_device_of_torch_gives_the_same_arrays(dataset: Dataset, plan: Plan, tmp_path: Path):
    finer = plan.model_copy(update={"target_spacing_mm": (0.9, 1.1, 0.8)})
    for device, name in (("cpu", "a"), ("cpu:0", "b")):  # cpu:0 takes the way of a GPU
        preprocess_dataset(dataset, finer, tmp_path / name, device=device)
    for name in NAMES:
        first, second = (open_case(tmp_path / folder, name) for folder in "ab")
        shape = first.header.geometry.shape
        images, classes = zip(*(case.read_patch((0, 0, 0), shape) for case in (first, second)), strict=True)
        np.testing.assert_allclose(images[0], images[1], atol=2e-3)  # a step of float16 at 1
        np.testing.assert_array_equal(classes[0], classes[1])


def test_labels_of_stored_cases_are_those_of_the_files(dataset: Dataset, plan: Plan, folder: Path):
    make_cases(dataset, plan, folder)
    for name in NAMES:
        case = open_case(folder, name)
        _, classes = case.read_patch((0, 0, 0), case.header.geometry.shape)
        reference = read_label_map(dataset.folder / "labelsTr" / f"{name}.nii.gz").array
        assert np.bincount(classes.ravel()).tolist()[1:] == np.bincount(reference.ravel()).tolist()[1:]


def test_a_changed_plan_makes_all_anew(dataset: Dataset, plan: Plan, folder: Path):
    make_cases(dataset, plan, folder)
    coarser = plan.model_copy(update={"target_spacing_mm": (2.0, 2.0, 2.0)})
    assert make_cases(dataset, coarser, folder) == Summary(num_made=3, num_kept=0, problems=())
    assert open_case(folder, NAMES[0]).header.geometry.spacing_mm == (2, 2, 2)


@pytest.mark.parametrize("changed", ["image", "label"])
def test_a_changed_file_makes_its_case_anew(dataset: Dataset, plan: Plan, folder: Path, changed: str):
    make_cases(dataset, plan, folder)
    case = dataset.cases[1]
    assert case.label_path is not None
    path = case.image_paths[0] if changed == "image" else case.label_path
    array = read_label_map(case.label_path)
    write_label_map(path, LabelMap(array=(array.array == 2).astype(np.uint8), affine=array.affine))
    assert make_cases(dataset, plan, folder) == Summary(num_made=1, num_kept=2, problems=())
    assert make_cases(dataset, plan, folder) == KEPT


@pytest.mark.parametrize("left", [".json", ".b2nd", ".classes.b2nd", ".foreground.npy"])
def test_an_interrupted_case_is_made_again(dataset: Dataset, plan: Plan, folder: Path, left: str):
    """What a killed run leaves: no header, and half of some file under its temporary name."""
    make_cases(dataset, plan, folder)
    (folder / f"{NAMES[2]}.json").unlink()
    (folder / f"{NAMES[2]}{left}").unlink(missing_ok=True)
    partial_path(folder / f"{NAMES[2]}{left}", 99999999).write_bytes(b"half")
    assert make_cases(dataset, plan, folder) == Summary(num_made=1, num_kept=2, problems=())
    assert len(list(folder.iterdir())) == 3 * 4
    assert open_case(folder, NAMES[2]).read_patch((0, 0, 0), (4, 4, 4))[0].shape == (1, 4, 4, 4)


def test_one_broken_case_is_told_and_does_not_stop_the_others(dataset: Dataset, plan: Plan, folder: Path):
    path = dataset.cases[1].image_paths[0]
    path.write_bytes(path.read_bytes()[:1000])
    summary = make_cases(dataset, plan, folder)
    assert (summary.num_made, summary.num_kept) == (2, 0)
    [problem] = summary.problems
    assert problem.startswith(f"{path}: damaged gzip file (")
    assert sorted(path.name for path in folder.glob("*.json")) == [f"{NAMES[0]}.json", f"{NAMES[2]}.json"]


def test_a_case_whose_file_broke_since_is_not_left_as_it_was(dataset: Dataset, plan: Plan, folder: Path):
    make_cases(dataset, plan, folder)
    dataset.cases[1].image_paths[0].write_bytes(b"")
    summary = make_cases(dataset, plan, folder)
    assert (summary.num_made, summary.num_kept, len(summary.problems)) == (0, 2, 1)
    assert not (folder / f"{NAMES[1]}.json").exists()


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_told_by_case(dataset: Dataset, plan: Plan, folder: Path):
    summary = make_cases(dataset, plan, folder)
    reason = "no space is left on the device; free some and run the same command again"
    assert summary.num_made == 0
    assert list(summary.problems) == [f"{folder}/{name}.b2nd: cannot be written: {reason}" for name in NAMES]
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_two_processes_make_the_same_cases(dataset: Dataset, plan: Plan, folder: Path, tmp_path: Path):
    two = dataclasses.replace(dataset, cases=dataset.cases[:2])
    assert preprocess_dataset(two, plan, folder, workers=Workers(num_processes=2)) == Summary(
        num_made=2, num_kept=0, problems=()
    )
    make_cases(two, plan, tmp_path / "alone")
    for name in NAMES[:2]:
        pair = open_case(folder, name), open_case(tmp_path / "alone", name)
        assert pair[0].header == pair[1].header
        shape = pair[0].header.geometry.shape
        for first, second in zip(*(case.read_patch((0, 0, 0), shape) for case in pair), strict=True):
            np.testing.assert_array_equal(first, second)


def test_no_cases_make_nothing(dataset: Dataset, plan: Plan, folder: Path):
    assert make_cases(dataclasses.replace(dataset, cases=()), plan, folder) == Summary(
        num_made=0, num_kept=0, problems=()
    )
