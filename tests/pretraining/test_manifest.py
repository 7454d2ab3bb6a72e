"""Named datasets and their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spadunet.errors import InputError
from spadunet.pretraining.manifest import locate, read_manifest


def test_the_papers_manifest_has_the_totals_of_its_table_7():
    datasets = read_manifest("paper").datasets
    flat = [dataset for dataset in datasets if dataset.dimensions == 2]
    deep = [dataset for dataset in datasets if dataset.dimensions == 3]
    assert (len(flat), len(deep)) == (15, 40)
    assert sum(dataset.num_images or 0 for dataset in flat) == 348_991
    assert sum(dataset.num_images or 0 for dataset in deep) == 48_344
    assert sum(dataset.num_slices or 0 for dataset in deep) == 8_747_693
    assert sum(dataset.num_slices or 0 for dataset in datasets) == 9_096_684


def test_the_papers_manifest_has_the_weights_of_spad_nets_and_1_for_the_others():
    """Of its released settings; it calls RFMiD by its name on Kaggle, Retinal Disease Classification."""
    weights = {dataset.name: dataset.weight for dataset in read_manifest("paper").datasets if dataset.weight != 1}
    assert weights == {
        "BraTS2023/GLI": 0.4,
        "BraTS2023/MEN": 0.5,
        "BUSI": 0.4,
        "CheXpert": 0.007,
        "Chákṣu": 0.2,
        "HC18": 0.2,
        "iChallenge/ADAM": 0.2,
        "iChallenge/PALM": 0.2,
        "iChallenge/REFUGE2": 0.1,
        "IDRiD": 0.5,
        "IXI": 0.5,
        "NIH Chest X-ray": 0.007,
        "PI-CAI": 0.25,
        "RFMiD": 0.1,
        "RSNA-2020-PED": 0.3,
        "RSNA-2022-CSFD": 0.6,
    }


def test_folders_are_found_whatever_their_case_marks_and_accents(tmp_path: Path):
    there = ["acdc", "BraTS2023/gli", "iChallenge_ADAM", "Chaksu/Chaksu", "NIH-Chest-Xray", "misc/rfmid", "Other"]
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    found = locate(read_manifest("paper"), tmp_path)
    assert {dataset.name: path.relative_to(tmp_path).as_posix() for dataset, path in found.folders} == {
        "ACDC": "acdc",
        "BraTS2023/GLI": "BraTS2023/gli",
        "iChallenge/ADAM": "iChallenge_ADAM",
        "Chákṣu": "Chaksu",
        "NIH Chest X-ray": "NIH-Chest-Xray",
        "RFMiD": "misc/rfmid",
    }
    assert len(found.missing) == 55 - 6
    (tmp_path / "ACDC!").mkdir()
    with pytest.raises(InputError, match="several folders are called ACDC; rename all but one"):
        locate(read_manifest("paper"), tmp_path)


def write(path: Path, *datasets: dict[str, object]) -> str:
    path.write_text(json.dumps({"datasets": datasets}))
    return str(path)


def test_own_manifests_name_folders_too(tmp_path: Path):
    (tmp_path / "scans/2024").mkdir(parents=True)
    path = write(tmp_path / "mine.json", {"name": "mine", "modalities": ["ct"], "folder": "scans/2024", "weight": 0.5})
    ((dataset, folder),) = locate(read_manifest(path), tmp_path).folders
    assert (dataset.modalities, dataset.weight, folder) == (("CT",), 0.5, tmp_path / "scans/2024")


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"name": "a", "modalities": ["RGB/fundos"]}, "did you mean 'RGB/fundus'"),
        ({"name": "a", "modalities": ["CT"], "weight": 0}, "datasets.0.weight"),
        ({"name": "a", "modality": "CT"}, "datasets.0.modalities"),
    ],
)
def test_a_wrong_manifest_names_the_field(dataset: dict[str, object], words: str, tmp_path: Path):
    with pytest.raises(InputError, match="mine.json: field 'datasets.0") as caught:
        read_manifest(write(tmp_path / "mine.json", dataset))
    assert words in str(caught.value)


def test_names_differ_and_files_are_there(tmp_path: Path):
    twice = [{"name": name, "modalities": ["CT"]} for name in ("A-b", "a b")]
    with pytest.raises(InputError, match="datasets A-b, a b have one name"):
        read_manifest(write(tmp_path / "mine.json", *twice))
    with pytest.raises(InputError, match="not found; give a manifest's path, or 'paper'"):
        read_manifest(str(tmp_path / "none.json"))
