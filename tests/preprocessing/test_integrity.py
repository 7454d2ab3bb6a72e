"""Everything that is wrong with a raw dataset, told at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from spadunet.dataset import Dataset, RawCase, load_dataset
from spadunet.errors import InputError
from spadunet.image import LabelMap, write_label_map
from spadunet.labels import LabelSet
from spadunet.preprocessing.integrity import check_dataset, read_checked

DATA = Path(__file__).parent.parent.parent / "spadunet/demo/data"
LABELS = LabelSet(names=("background", "liver"), ids=(0, 1))
RAMP = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(path: Path, array: np.ndarray, side_mm: float = 1.0) -> Path:
    """Write an array with cubic voxels."""
    write_label_map(path, LabelMap(array=array, affine=np.diag([side_mm, side_mm, side_mm, 1.0])))
    return path


def problem_of(image: Path, label: Path | None) -> str:
    """The one line that says why a case cannot be used."""
    with pytest.raises(InputError) as caught:
        read_checked(RawCase(name="a", image_paths=(image,), label_path=label), labels=LABELS, num_channels=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path / "a_0000.nii.gz", RAMP)


@pytest.fixture
def label(tmp_path: Path) -> Path:
    return tmp_path / "a.nii.gz"


def test_a_sound_case_is_read_with_its_labels_or_without(image: Path, label: Path):
    write(label, (RAMP > 12).astype(np.uint8))
    case = RawCase(name="a", image_paths=(image, image), label_path=label)
    checked = read_checked(case, labels=LABELS, num_channels=2)
    assert checked is not None
    assert checked[0].array.shape == (2, 2, 3, 4)
    assert checked[1] is not None
    assert checked[1].array.sum() == 11
    alone = read_checked(dataclasses.replace(case, label_path=None), labels=LABELS, num_channels=2)
    assert alone is not None
    assert alone[1] is None


def test_a_label_map_of_background_alone_is_sound(image: Path, label: Path):
    write(label, np.zeros_like(RAMP))
    assert (
        read_checked(RawCase(name="a", image_paths=(image,), label_path=label), labels=LABELS, num_channels=1)
        is not None
    )


def test_a_constant_channel_is_told(tmp_path: Path):
    path = write(tmp_path / "a_0000.nii.gz", np.full((2, 3, 4), 7, np.int16))
    assert problem_of(path, None) == f"{path}: every voxel is 7; expected an image: export it again or remove it"


def test_labels_on_another_grid_are_told(image: Path, label: Path):
    write(label, np.ones((2, 3, 5), np.uint8))
    remedy = "resample the labels to the image"
    assert problem_of(image, label) == (
        f"{label}: does not lie on the grid of {image}: shape (2, 3, 4) against (2, 3, 5) voxels; {remedy}"
    )
    write(label, np.ones((2, 3, 4), np.uint8), side_mm=1.5)
    assert problem_of(image, label) == (
        f"{label}: does not lie on the grid of {image}: corners lie up to 1.87 mm apart "  # half of 1, 2 and 3 mm
        f"(spacing 1×1×1 against 1.5×1.5×1.5 mm); {remedy}"
    )


def test_values_that_are_no_label_are_told(image: Path, label: Path):
    write(label, (RAMP % 4).astype(np.uint8))
    assert problem_of(image, label) == (
        f"{label}: holds label values [2, 3] that dataset.json does not name (it has [0, 1]); "
        "add them to its labels or correct the file"
    )


def test_a_dataset_is_checked_to_the_end_and_its_problems_are_sorted(tmp_path: Path, label: Path):
    sound = write(tmp_path / "sound.nii.gz", RAMP)
    constant, empty = write(tmp_path / "b.nii.gz", np.zeros_like(RAMP)), tmp_path / "c.nii.gz"
    empty.touch()
    write(label, np.zeros_like(RAMP))
    cases = [RawCase(name=path.name, image_paths=(path,), label_path=label) for path in (empty, sound, constant)]
    dataset = Dataset(
        name="X",
        folder=tmp_path,
        channel_names=("MRI",),
        labels=LABELS,
        file_ending=".nii.gz",
        cases=tuple(cases),
        patients={},
    )
    assert check_dataset(dataset, num_processes=1) == [
        f"{constant}: every voxel is 0; expected an image: export it again or remove it",
        f"{empty}: the file is empty (0 bytes); copy it again from its source",
    ]


def test_embedded_datasets_are_sound():
    dataset = load_dataset(DATA / "Dataset004_Hippocampus")
    assert check_dataset(dataset, num_processes=1) == []
