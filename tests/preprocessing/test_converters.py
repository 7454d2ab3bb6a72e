"""Releases in exactly the layout in which they are downloaded, small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.cli import convert_btcv, convert_msd
from spadunet.dataset import load_dataset
from spadunet.formats import read_channels, write_array

VOLUME = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
AFFINE = np.eye(4)[[2, 1, 0, 3]] @ np.diag([3, 0.75, 0.75, 1])


@pytest.fixture
def btcv(tmp_path: Path) -> Path:
    """Abdomen/RawData with scans 28 to 31, 38 and 39 labelled, and 61 for testing."""
    data = tmp_path / "Abdomen/RawData"
    for folder in ("Training/img", "Training/label", "Testing/img"):
        (data / folder).mkdir(parents=True)
    for number in (28, 29, 30, 31, 38, 39):
        write_array(data / f"Training/img/img{number:04}.nii.gz", VOLUME, AFFINE)
        write_array(data / f"Training/label/label{number:04}.nii.gz", (VOLUME % 14).astype(np.uint8), AFFINE)
    write_array(data / "Testing/img/img0061.nii.gz", VOLUME, AFFINE)
    return tmp_path / "Abdomen"


@pytest.mark.parametrize("inner", [".", "RawData"])
def test_btcv_becomes_a_dataset_with_thirteen_organs_and_the_split_of_papers(btcv: Path, tmp_path: Path, run, inner):
    assert run(convert_btcv.main, btcv / inner, "--data", tmp_path) == 0
    folder = tmp_path / "raw/Dataset007_BTCV"
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == [f"btcv_{n:04}" for n in (28, 29, 30, 31, 38, 39)]
    assert (dataset.channel_names, dataset.labels.num_classes) == (("CT",), 14)
    assert (dataset.labels.names[2], dataset.labels.names[13]) == ("right kidney", "left adrenal gland")
    [split] = json.loads((folder / "splits_21_9.json").read_text())
    assert split == {
        "train": ["btcv_0028", "btcv_0038"],
        "val": ["btcv_0029", "btcv_0030", "btcv_0031", "btcv_0039"],
    }
    original = btcv / "RawData/Training/img/img0028.nii.gz"
    assert (folder / "imagesTr/btcv_0028_0000.nii.gz").read_bytes() == original.read_bytes()
    assert (folder / "imagesTs/btcv_0061_0000.nii.gz").is_file()


def test_a_conversion_is_not_written_over_and_an_interrupted_one_goes_on(btcv: Path, tmp_path: Path, run, capsys):
    assert run(convert_btcv.main, btcv, "--data", tmp_path) == 0
    assert run(convert_btcv.main, btcv, "--data", tmp_path) == 2
    assert "Dataset007_BTCV: is there already; remove it, or convert into another folder" in capsys.readouterr().err
    folder = tmp_path / "raw/Dataset007_BTCV"
    (folder / "dataset.json").unlink()
    (folder / "imagesTr/btcv_0031_0000.nii.gz").unlink()
    assert run(convert_btcv.main, btcv, "--data", tmp_path) == 0
    assert len(load_dataset(folder).cases) == 6


def test_a_release_that_is_not_there_or_not_whole_is_told(btcv: Path, tmp_path: Path, run, capsys):
    assert run(convert_btcv.main, tmp_path / "nothing", "--data", tmp_path) == 2
    assert "nothing/Training/img: folder not found; expected RawData/Training/img" in capsys.readouterr().err
    (btcv / "RawData/Training/label/label0030.nii.gz").unlink()
    assert run(convert_btcv.main, btcv, "--data", tmp_path) == 2
    assert "Training: 0030 has no partner among img and label" in capsys.readouterr().err
    assert not (tmp_path / "raw/Dataset007_BTCV").exists()


def test_a_decathlon_task_becomes_a_file_a_channel(tmp_path: Path, run):
    source = tmp_path / "Task01_BrainTumour"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (source / folder).mkdir(parents=True)
    both = sitk.JoinSeries([sitk.GetImageFromArray(VOLUME), sitk.GetImageFromArray(VOLUME + 100)])
    sitk.WriteImage(both, str(source / "imagesTr/BRATS_001.nii.gz"))
    sitk.WriteImage(both, str(source / "imagesTs/BRATS_485.nii.gz"))
    write_array(source / "labelsTr/BRATS_001.nii.gz", (VOLUME % 3).astype(np.uint8), np.eye(4)[[2, 1, 0, 3]])
    description = {
        "name": "BRATS",
        "licence": "CC-BY-SA 4.0",
        "modality": {"0": "FLAIR", "1": "T1w"},
        "labels": {"0": "background", "1": "edema", "2": "tumor"},
    }
    (source / "dataset.json").write_text(json.dumps(description))
    assert run(convert_msd.main, source, "--data", tmp_path) == 0
    dataset = load_dataset(tmp_path / "raw/Dataset001_BrainTumour")
    assert dataset.channel_names == ("FLAIR", "T1w")
    [case] = dataset.cases
    np.testing.assert_array_equal(read_channels(case.image_paths[1])[0][0], VOLUME + 100)
    assert json.loads((dataset.folder / "dataset.json").read_text())["licence"] == "CC-BY-SA 4.0"
    assert (dataset.folder / "imagesTs/BRATS_485_0001.nii.gz").is_file()
