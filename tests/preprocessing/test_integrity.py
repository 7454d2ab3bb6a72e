"""Everything that is wrong with a raw dataset, told at once."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.dataset import Dataset, RawCase, load_dataset
from spadunet.errors import InputError
from spadunet.formats import write_array
from spadunet.labels import LabelSet
from spadunet.preprocessing.integrity import CheckReport, check_dataset, read_checked

DATA = Path(__file__).parent.parent.parent / "spadunet/demo/data"
LABELS = LabelSet(names=("background", "liver"), ids=(0, 1))
RAMP = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(path: Path, array: np.ndarray, side_mm: float = 1.0) -> Path:
    """Write an array with cubic voxels."""
    write_array(path, array, np.diag([side_mm, side_mm, side_mm, 1.0]))
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
        f"{label}: does not lie on the grid of {image}: shape 4×3×2 against 5×3×2 voxels (x×y×z); {remedy}"
    )
    write(label, np.ones((2, 3, 4), np.uint8), side_mm=1.5)
    assert problem_of(image, label) == (
        f"{label}: does not lie on the grid of {image}: corners lie up to 1.87 mm apart "  # half of 1, 2 and 3 mm
        f"(spacing 1×1×1 against 1.5×1.5×1.5 mm, x×y×z); {remedy}"
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
    report = check_dataset(dataset)
    assert [finding.text for finding in report.of("error")] == [
        f"{constant}: every voxel is 0; expected an image: export it again or remove it",
        f"{empty}: the file is empty (0 bytes); copy it again from its source",
    ]
    assert [finding.case for finding in report.of("warning")] == ["", "b.nii.gz", "c.nii.gz", "sound.nii.gz"]
    assert CheckReport.from_json(report.to_json()) == report
    assert len(report.to_csv().splitlines()) == 1 + 6
    assert report.to_table().startswith("X: 3 cases checked, 2 errors, 4 warnings, 0 repairs\n  warning ")


def test_embedded_datasets_are_sound():
    dataset = load_dataset(DATA / "Dataset004_Hippocampus")
    report = check_dataset(dataset)
    assert not report.of("error")
    assert all("range of intensities" in finding.text for finding in report.findings)  # 915 in most, 360 000 in some


# --- odd, but no error


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Six sound cases, a0 to a5, and two test cases."""
    generator = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (tmp_path / folder).mkdir()
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    for number in range(6):
        write(tmp_path / f"imagesTr/a{number}.nii.gz", generator.uniform(0, 100, (8, 9, 10)).astype(np.float32))
        write(tmp_path / f"labelsTr/a{number}.nii.gz", (generator.random((8, 9, 10)) > 0.5).astype(np.uint8))
    for number in (7, 8):
        write(tmp_path / f"imagesTs/a{number}.nii.gz", generator.uniform(0, 100, (8, 9, 10)).astype(np.float32))
    return tmp_path


def findings_of(folder: Path) -> list[tuple[str, str, str]]:
    """Severity, case and text of each."""
    report = check_dataset(load_dataset(folder))
    return [(finding.severity, finding.case, finding.text) for finding in report.findings]


def test_a_sound_cohort_has_no_findings(cohort: Path):
    assert findings_of(cohort) == []


def test_drift_of_less_than_half_a_voxel_is_put_back_and_said(cohort: Path):
    image = sitk.ReadImage(str(cohort / "labelsTr/a2.nii.gz"))
    image.SetOrigin((0.2, 0, 0))
    sitk.WriteImage(image, str(cohort / "labelsTr/a2.nii.gz"))
    [(severity, case, text)] = findings_of(cohort)
    assert (severity, case) == ("repair", "a2")
    assert "a2.nii.gz: lies 0.2 mm off its image, less than half a voxel: put back" in text
    raw = load_dataset(cohort).cases[2]
    read, label_map = read_checked(raw, labels=LABELS, num_channels=1)
    assert label_map is not None
    np.testing.assert_array_equal(label_map.affine, read.affine)


def test_empty_label_maps_and_classes_never_seen_are_told(cohort: Path):
    description = json.loads((cohort / "dataset.json").read_text())
    description["labels"]["tumour"] = 7
    (cohort / "dataset.json").write_text(json.dumps(description))
    write(cohort / "labelsTr/a1.nii.gz", np.zeros((8, 9, 10), np.uint8))
    assert findings_of(cohort) == [
        ("warning", "", "no training case has a voxel of tumour (label 7); it cannot be learned"),
        ("warning", "a1", f"{cohort.resolve()}/labelsTr/a1.nii.gz: no voxel is labelled"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda array: (array, 3.0), "voxel side (mm) 3, but 1 in the middle of the cohort"),
        (lambda array: (np.tile(array, (5, 5, 5)), 1.0), "image side (mm) 44.81, but 8.963 in the middle"),
        (lambda array: (array * 1000, 1.0), "range of intensities"),
    ],
)
def test_a_case_far_from_the_cohort_is_told(cohort: Path, change, words: str):
    array, side_mm = change(sitk.GetArrayFromImage(sitk.ReadImage(str(cohort / "imagesTr/a4.nii.gz"))))
    write(cohort / "imagesTr/a4.nii.gz", array, side_mm=side_mm)
    write(cohort / "labelsTr/a4.nii.gz", np.ones(array.shape, np.uint8), side_mm=side_mm)
    found = findings_of(cohort)
    assert {case for _, case, _ in found} == {"a4"}
    assert any(words in text for _, _, text in found)


def test_one_image_under_two_names_is_told_across_training_and_test(cohort: Path):
    shutil.copy(cohort / "imagesTr/a0.nii.gz", cohort / "imagesTs/a8.nii.gz")
    shutil.copy(cohort / "imagesTr/a1.nii.gz", cohort / "imagesTr/a5.nii.gz")
    assert findings_of(cohort) == [
        ("warning", "a5", "shows the same image as a1; keep one of them"),
        ("warning", "a8", "shows the same image as a0; keep one of them"),
    ]


def test_a_patient_in_training_and_test_is_told(cohort: Path):
    for kind in ("images", "labels"):
        (cohort / f"{kind}Tr/a0.nii.gz").rename(cohort / f"{kind}Tr/ann_visit1.nii.gz")
        (cohort / f"{kind}Tr/a1.nii.gz").rename(cohort / f"{kind}Tr/bob_visit1.nii.gz")
    (cohort / "imagesTs/a7.nii.gz").rename(cohort / "imagesTs/ann_visit2.nii.gz")
    text = "a test case of ann, who has training cases too; scores on it will be too good"
    assert findings_of(cohort) == [("warning", "ann_visit2", text)]


def test_a_damaged_test_image_is_an_error(cohort: Path):
    (cohort / "imagesTs/a7.nii.gz").write_bytes(b"")
    [(severity, case, text)] = findings_of(cohort)
    assert (severity, case) == ("error", "a7")
    assert "a7.nii.gz: the file is empty" in text


def test_a_label_map_without_an_image_is_told(cohort: Path):
    shutil.copy(cohort / "labelsTr/a0.nii.gz", cohort / "labelsTr/a00.nii.gz")
    text = f"{cohort.resolve()}/labelsTr/a00.nii.gz: no image has this name; it is not used"
    assert findings_of(cohort) == [("warning", "", text)]


# --- regions, ignore, optional channels


def describe(folder: Path, **keys: object) -> None:
    """Change some keys of a dataset.json."""
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(description | keys))


def test_ignore_is_a_known_id_and_labels_nothing(cohort: Path):
    describe(cohort, labels={"background": 0, "organ": 1, "ignore": 9})
    labels = np.ones((8, 9, 10), np.uint8)
    labels[0] = 9
    write(cohort / "labelsTr/a0.nii.gz", labels)
    assert findings_of(cohort) == []
    write(cohort / "labelsTr/a0.nii.gz", np.where(labels == 9, 9, 0).astype(np.uint8))
    write(cohort / "labelsTr/a1.nii.gz", np.full_like(labels, 9))
    write(cohort / "labelsTr/a2.nii.gz", np.full_like(labels, 8))
    found = findings_of(cohort)
    assert [(severity, case) for severity, case, _ in found] == [("error", "a2"), ("warning", "a0"), ("warning", "a1")]
    assert "holds label values [8] that dataset.json does not name (it has [0, 1, 9])" in found[0][2]
    assert all(text.endswith("no voxel is labelled") for _, _, text in found[1:])


def test_a_region_is_unseen_only_if_all_its_ids_are(cohort: Path):
    describe(
        cohort,
        labels={"background": 0, "whole": [1, 2, 3], "part": [2, 3]},
        regions_class_order=[1, 2],
    )
    assert findings_of(cohort) == [
        ("warning", "", "no training case has a voxel of part (label 2, 3); it cannot be learned")
    ]


def test_only_channels_that_are_there_are_checked(cohort: Path):
    describe(cohort, channel_names={"0": "T1", "1": "T2"}, optional_channels=["T1", "T2"])
    for path in [*cohort.glob("images*/*.nii.gz")]:
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0001.nii.gz")))
    shutil.copy(cohort / "imagesTr/a1_0001.nii.gz", cohort / "imagesTr/a0_0000.nii.gz")
    assert findings_of(cohort) == []
    constant = write(cohort / "imagesTr/a0_0000.nii.gz", np.full((8, 9, 10), 7, np.int16))
    [(severity, case, text)] = findings_of(cohort)
    assert (severity, case) == ("error", "a0")
    assert text.startswith(f"{constant.resolve()}: every voxel is 7")
    write(cohort / "labelsTr/a1.nii.gz", np.ones((8, 9, 11), np.uint8))
    assert any("does not lie on the grid of" in text and "a1_0001.nii.gz" in text for _, _, text in findings_of(cohort))
