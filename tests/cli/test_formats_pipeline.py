"""The commands on what is no NIfTI: colour pictures, and DICOM series that show the same as a NIfTI file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from dicom_files import write_series

from spadunet.cli import evaluate, plan_and_preprocess, predict, train
from spadunet.image import geometry_difference, read_label_map
from spadunet.scores import Scores

HEART = "Dataset101_SunnybrookLV"


def as_bytes(image: sitk.Image) -> np.ndarray:
    """(A0, A1, A2) uint8 over the image's own range."""
    array = sitk.GetArrayFromImage(image).astype(np.float32)
    return np.rint(255 * (array - array.min()) / np.ptp(array)).astype(np.uint8)


def test_colour_pictures_go_from_raw_to_scores(copy_demo, tmp_path: Path, run, quick):
    source = copy_demo(HEART, tmp_path / "slices", num_cases=4, size=(64, 64, 20), as_slices=True)
    raw = tmp_path / "raw/Dataset301_Pictures"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    labels = json.loads((source / "dataset.json").read_text())["labels"]
    names = {"0": "R", "1": "G", "2": "B"}
    (raw / "dataset.json").write_text(json.dumps({"channel_names": names, "labels": labels, "file_ending": ".png"}))
    for path in (source / "labelsTr").iterdir():
        case = path.name.removesuffix(".nii.gz")
        grey = as_bytes(sitk.ReadImage(str(source / "imagesTr" / f"{case}_0000.nii.gz")))[0]
        colour = sitk.GetImageFromArray(np.stack([grey, 255 - grey, grey // 2], axis=-1), isVector=True)
        sitk.WriteImage(colour, str(raw / "imagesTr" / f"{case}.png"))
        sitk.WriteImage(sitk.ReadImage(str(path))[:, :, 0], str(raw / "labelsTr" / f"{case}.png"))
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 301, "--memory-gb", 0.03, "-np", 1, *data) == 0
    assert run(train.main, "-d", 301, "-f", "all", "--max-steps", 2, *quick, "--batch-size", 2, *data) == 0
    output = tmp_path / "predictions"
    assert run(predict.main, "-i", raw / "imagesTr", "-o", output, "-d", 301, "-device", "cpu", *data) == 0
    assert len(list(output.glob("*.nii.gz"))) == 4
    assert run(evaluate.main, "-p", output, "-r", raw / "labelsTr", "-np", 1) == 0
    assert len(Scores.from_json((output / "scores.json").read_text()).cases) == 4


def test_a_dicom_series_is_predicted_as_the_nifti_file_that_shows_the_same(
    joint_model: Path, planned: Path, tmp_path: Path, run
):
    nifti, dicom = tmp_path / "nifti", tmp_path / "dicom"
    nifti.mkdir()
    path = sorted((planned / "raw" / HEART / "imagesTr").iterdir())[0]
    shutil.copy(path, nifti / "a_0000.nii.gz")
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    columns_mm, rows_mm, slices_mm = image.GetSpacing()
    volume = sitk.GetArrayFromImage(image).astype(np.int16)
    write_series(
        dicom / "a",
        volume,
        names=[f"{(7 * number) % 101}.dcm" for number in range(len(volume))],
        directions=(tuple(direction[:, 0]), tuple(direction[:, 1])),
        step_mm=tuple(direction[:, 2] * slices_mm),
        first_mm=image.GetOrigin(),
        pixel_mm=(rows_mm, columns_mm),
    )
    shutil.make_archive(str(dicom / "b"), "zip", dicom / "a")
    for folder in (nifti, dicom, dicom / "a"):
        options = ("-i", folder, "-o", tmp_path / f"of_{folder.name}", "-m", joint_model, "-d", 101, "-device", "cpu")
        assert run(predict.main, *options) == 0
    expected = read_label_map(tmp_path / "of_nifti/a.nii.gz")
    assert 0 < expected.array.mean() < 1
    for written in ("of_dicom/a.nii.gz", "of_dicom/b.nii.gz", "of_a/a.nii.gz"):
        label_map = read_label_map(tmp_path / written)
        if label_map.affine[:3, 0] @ expected.affine[:3, 0] < 0:  # slices are in the order of their normal
            flipped = label_map.array[::-1]
        else:
            assert geometry_difference(label_map, expected) is None
            flipped = label_map.array
        np.testing.assert_array_equal(flipped, expected.array)
