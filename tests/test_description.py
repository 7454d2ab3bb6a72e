"""dataset.json of nnU-Net and of the Decathlon, and folders that have none."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from spadunet.channels import usual_names
from spadunet.dataset import find_dataset, load_dataset
from spadunet.description import DatasetDescription, describe, read_description
from spadunet.errors import InputError
from spadunet.image import read_image

MSD = {
    "name": "BRATS",
    "tensorImageSize": "4D",
    "modality": {"0": "FLAIR", "1": "T1w"},
    "labels": {"0": "background", "1": "edema", "2": "tumor"},
    "numTraining": 2,
    "training": [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}],
    "test": ["./imagesTs/BRATS_485.nii.gz"],
}
VOLUME = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)


def write(path: Path, *volumes: np.ndarray) -> None:
    """One volume, or several as one 4D file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [sitk.GetImageFromArray(volume) for volume in volumes]
    for image in images:
        image.SetSpacing((0.5, 0.75, 3))
    sitk.WriteImage(images[0] if len(images) == 1 else sitk.JoinSeries(images), str(path))


def test_the_decathlons_keys_are_understood():
    description = DatasetDescription.from_json(json.dumps(MSD))
    assert description.channel_names == {"0": "FLAIR", "1": "T1w"}
    assert description.labels == {"background": 0, "edema": 1, "tumor": 2}


def test_a_decathlon_folder_works_as_it_is(tmp_path: Path):
    folder = tmp_path / "Task01_BrainTumour"
    for case in ("BRATS_001", "BRATS_002"):
        write(folder / f"imagesTr/{case}.nii.gz", VOLUME, VOLUME + 100)
        write(folder / f"labelsTr/{case}.nii.gz", (VOLUME > 40).astype(np.uint8))
    write(folder / "imagesTr/._BRATS_001.nii.gz", VOLUME)  # as macOS leaves them in the Decathlon's archives
    (folder / "dataset.json").write_text(json.dumps(MSD))
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == ["BRATS_001", "BRATS_002"]
    assert dataset.channel_names == ("FLAIR", "T1w")
    image = read_image(dataset.cases[0].image_paths, num_channels=2)
    np.testing.assert_array_equal(image.array, np.stack([VOLUME, VOLUME + 100]))
    assert image.spacing_mm == (3, 0.75, 0.5)


def test_a_pair_of_folders_is_described_by_what_is_in_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "spadunet")
    folder = tmp_path / "raw/Liver"
    for number, case in enumerate("ab"):
        for channel in (0, 1):
            write(folder / f"images/{case}_{channel:04}.nrrd", VOLUME)
        write(folder / f"labels/{case}.nii.gz", np.where(VOLUME > 40, 63 + number, 0).astype(np.uint8))
    assert find_dataset("liver", tmp_path / "raw") == folder
    dataset = load_dataset(folder)
    assert [len(case.image_paths) for case in dataset.cases] == [2, 2]
    assert (dataset.labels.names, dataset.labels.ids) == (("background", "63", "64"), (0, 63, 64))
    assert dataset.file_ending == ".nrrd"
    assert "dataset.json written: 2 channels, labels [63, 64]" in caplog.text
    description = read_description(folder)
    (folder / "dataset.json").write_text(description.to_json().replace('"63"', '"liver"'))  # the user names it
    assert load_dataset(folder).labels.names == ("background", "liver", "64")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "images: holds no images; expected images of one ending"),
        (["images/a.nrrd", "images/b.nii.gz"], r"images: holds .nii.gz and .nrrd; expected images of one ending"),
        (["images/a.nrrd"], "labels: holds no label maps"),
    ],
)
def test_a_pair_that_is_none_is_told(tmp_path: Path, files: list[str], message: str):
    (tmp_path / "images").mkdir()
    for file in files:
        write(tmp_path / file, VOLUME)
    with pytest.raises(InputError, match=message):
        load_dataset(tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_colours_of_a_picture_are_called_so_and_other_channels_by_their_numbers(tmp_path: Path):
    picture = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)
    sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), tmp_path / "a.png")
    sitk.WriteImage(sitk.GetImageFromArray(picture[..., 0] % 2), tmp_path / "label.png")
    described = describe(tmp_path, [tmp_path / "a.png"], [tmp_path / "label.png"], ".png")
    assert described.channel_names == {"0": "red", "1": "green", "2": "blue"}
    assert usual_names(3, may_be_colour=False) == ("channel 0", "channel 1", "channel 2")
    assert usual_names(1, may_be_colour=True) == ("channel 0",)
