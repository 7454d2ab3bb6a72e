"""benchmarks/medmnist_files.py: real images in MedMNIST's layout, with labels that follow from label maps."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import DEMO

from spadunet.medmnist import open_medmnist

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
HIPPOCAMPUS = DEMO / "Dataset004_Hippocampus"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("medmnist_files")


def write_volume(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def write_case(folder: Path, side: str, name: str, *, size: int = 8, labels: int = 2) -> None:
    """A front that is bright and a back that is dark, one behind the other along height, in 24 × 40 × 24 voxels."""
    classes = np.zeros((24, 40, 24), np.uint8)
    middle = slice(12 - size // 2, 12 + size // 2)
    classes[middle, 8:20, middle] = 1
    if labels > 1:
        classes[middle, 20:32, middle] = 2
    image = np.select([classes == 1, classes == 2], [900, 100], 500).astype(np.int16)
    write_volume(folder / f"images{side}" / f"{name}_0000.nii.gz", image)
    write_volume(folder / f"labels{side}" / f"{name}.nii.gz", classes)


def write_dataset(folder: Path, names: dict[str, list[str]], **more) -> Path:
    """Cases of both sides."""
    for side, cases in names.items():
        for number, name in enumerate(cases):
            write_case(folder, side, name, size=4 + 2 * (number % 4), **more)
    labels = {"background": 0, "front": 1} | ({"back": 2} if more.get("labels", 2) > 1 else {})
    description = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    description["numTraining"] = len(names["Tr"])
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    sides = {"Tr": [f"patient{number:02}" for number in range(10)], "Ts": ["other00", "other01"]}
    return write_dataset(tmp_path / "Dataset007_Made", sides)


def test_files_of_real_images_have_medmnists_layout_and_no_test_case_in_training(script: ModuleType, tmp_path: Path):
    script.make_files(HIPPOCAMPUS, tmp_path, size=28, per_case=1, wanted=["found2d", "part3d"])
    for name, kind, shape, width in (
        ("hippocampusfound2d", "multi-label", (28, 28), 2),
        ("hippocampuspart3d", "binary", (28, 28, 28), 1),
    ):
        with np.load(tmp_path / f"{name}.npz") as file:
            assert list(file) == [f"{split}_{what}" for what in ("images", "labels") for split in script.SPLIT_NAMES]
            for split in script.SPLIT_NAMES:
                images, labels = file[f"{split}_images"], file[f"{split}_labels"]
                assert images.dtype == labels.dtype == np.uint8
                assert images.shape == (len(labels), *shape) and labels.shape == (len(images), width)
        opened = open_medmnist(tmp_path / f"{name}.npz")
        assert (opened.classes.kind, opened.num_channels) == (kind, 1)
        cases = json.loads((tmp_path / f"{name}.json").read_text())["cases"]
        test = {path.name.removesuffix("_0000.nii.gz") for path in (HIPPOCAMPUS / "imagesTs").glob("*.nii.gz")}
        assert set(cases["test"]) == test and not test & {*cases["train"], *cases["val"]}
        assert cases["train"] and cases["val"] and not set(cases["train"]) & set(cases["val"])
        assert {split: len(names) for split, names in cases.items()} == {
            split: len(labels) for split, labels in opened.labels.items()
        }


def test_labels_follow_from_the_label_map(script: ModuleType, raw: Path, tmp_path: Path):
    """The front is bright, the back dark, the rest grey: images tell their labels."""
    lines = script.make_files(raw, tmp_path, size=16, per_case=8)
    assert any(line.startswith("madewhere2d.npz: multi-class, nothing, front, back: train ") for line in lines)
    with np.load(tmp_path / "madefound2d.npz") as file:
        images, labels = file["train_images"], file["train_labels"]
    assert labels[:, 0].tolist() == (images.max(axis=(1, 2)) > 200).astype(int).tolist()
    assert labels[:, 1].tolist() == (images.min(axis=(1, 2)) < 60).astype(int).tolist()
    with np.load(tmp_path / "madepart3d.npz") as file:
        middles, labels = file["test_images"][:, 7:9, 7:9, 7:9].mean(axis=(1, 2, 3)), file["test_labels"]
    assert labels[:, 0].tolist() == (middles < 128).astype(int).tolist() == [0, 1, 0, 1]


def test_sizes_are_graded_by_the_training_cases(script: ModuleType):
    rows = {"train": np.array([[1.0], [2.0], [3.0], [4.0]]), "val": np.array([[0.0], [9.0]])}
    graded = script.graded({**rows, "test": np.array([[2.6]])})
    assert {split: values[:, 0].tolist() for split, values in graded.items()} == {
        "train": [0, 1, 2, 3],
        "val": [0, 3],
        "test": [2],
    }


def test_the_larger_of_two_images_of_a_patient_is_the_second_class(script: ModuleType, tmp_path: Path):
    pairs = {"Tr": [f"P-{number}_ph{phase:02}" for number in range(10) for phase in (0, 8)]}
    raw = write_dataset(
        tmp_path / "Heart", {**pairs, "Ts": [f"P-9{n}_ph0{p}" for n in (1, 2) for p in (0, 8)]}, labels=1
    )
    script.make_files(raw, tmp_path, size=24, per_case=2)
    assert not list(tmp_path.glob("*part*")) and not list(tmp_path.glob("*found*"))
    for end in ("phase2d", "phase3d"):
        with np.load(tmp_path / f"heart{end}.npz") as file:
            images, labels = file["train_images"].reshape(len(file["train_images"]), -1), file["train_labels"][:, 0]
        bright = (images > 128).mean(axis=1)
        assert bright[labels == 1].mean() > bright[labels == 0].mean() and set(labels.tolist()) == {0, 1}
        cases = json.loads((tmp_path / f"heart{end}.json").read_text())["cases"]
        sides = [{name.partition("_")[0] for name in names} for names in cases.values()]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_a_patient_in_training_and_test_ends_it(script: ModuleType, tmp_path: Path):
    sides = {"Tr": ["P-1_ph00", "P-2_ph00", "P-3_ph00"], "Ts": ["P-2_ph08"]}
    raw = write_dataset(tmp_path / "Leaky", sides)
    with pytest.raises(SystemExit, match="patient P-2 is in imagesTr and in imagesTs"):
        script.make_files(raw, tmp_path, size=8, per_case=1)


def test_without_test_images_nothing_is_made(script: ModuleType, tmp_path: Path):
    raw = write_dataset(tmp_path / "Alone", {"Tr": ["a", "b", "c"]})
    with pytest.raises(SystemExit, match="no case with a label map for test; it needs imagesTs and labelsTs"):
        script.make_files(raw, tmp_path, size=8, per_case=1)
