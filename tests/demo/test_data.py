"""The embedded data: test cases are never trained on, and where they come from is said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import spadunet
from spadunet.patients import patients_of

DATA = Path(spadunet.__file__).parent / "demo/data"
DATASETS = sorted(path.name for path in DATA.iterdir() if path.is_dir())


def cases_in(folder: Path) -> set[str]:
    """Names of the cases whose images lie there."""
    return {path.name.removesuffix("_0000.nii.gz") for path in folder.glob("*_0000.nii.gz")}


def content_of(path: Path) -> str:
    """Hash of an image's voxels and shape, whatever its header and compression."""
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return hashlib.sha256(str(array.shape).encode() + np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()


def test_there_are_the_two_datasets_of_the_demo():
    assert DATASETS == ["Dataset004_Hippocampus", "Dataset101_SunnybrookLV"]


@pytest.mark.parametrize("name", DATASETS)
def test_no_test_case_is_in_the_training_set_by_name_or_content(name: str):
    train, test = cases_in(DATA / name / "imagesTr"), cases_in(DATA / name / "imagesTs")
    assert train
    assert test
    assert not train & test
    seen = {content_of(path): path.name for path in (DATA / name / "imagesTr").iterdir()}
    assert len(seen) == len(train)
    assert not [path.name for path in (DATA / name / "imagesTs").iterdir() if content_of(path) in seen]


@pytest.mark.parametrize("name", DATASETS)
def test_no_test_patient_is_in_the_training_set(name: str):
    train, test = (cases_in(DATA / name / folder) for folder in ("imagesTr", "imagesTs"))
    patients = patients_of([*train, *test], {})
    assert not {patients[case] for case in train} & {patients[case] for case in test}


@pytest.mark.parametrize("name", DATASETS)
def test_every_image_has_its_label_map(name: str):
    for part in ("Tr", "Ts"):
        labelled = {path.name.removesuffix(".nii.gz") for path in (DATA / name / f"labels{part}").iterdir()}
        assert labelled == cases_in(DATA / name / f"images{part}")
    description = json.loads((DATA / name / "dataset.json").read_text(encoding="utf-8"))
    assert description["numTraining"] == len(cases_in(DATA / name / "imagesTr"))


@pytest.mark.parametrize(
    ("name", "licence"), [("Dataset004_Hippocampus", "CC-BY-SA 4.0"), ("Dataset101_SunnybrookLV", "CC0")]
)
def test_licence_is_named_in_the_description_and_told_in_a_file(name: str, licence: str):
    description = json.loads((DATA / name / "dataset.json").read_text(encoding="utf-8"))
    assert licence in description["licence"]
    assert (DATA / name / "LICENSE.txt").stat().st_size > 100


def test_the_hippocampus_release_is_cited():
    citation = (DATA / "Dataset004_Hippocampus/CITATION.txt").read_text(encoding="utf-8")
    assert "Decathlon" in citation
    assert "Attribution-ShareAlike" in (DATA / "Dataset004_Hippocampus/LICENSE.txt").read_text(encoding="utf-8")
