"""The commands on what is no NIfTI: colour pictures, and DICOM series that show the same as a NIfTI file."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import write_series

from spadunet.cli import evaluate, plan_and_preprocess, predict, train
from spadunet.image import geometry_difference, read_image, read_label_map
from spadunet.scores import Scores

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"


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
    pictures = tmp_path / "pictures"
    own = ("-i", raw / "imagesTr", "-o", pictures, "-d", 301, "-device", "cpu", "--format", "input", *data)
    assert run(predict.main, *own) == 0
    for path in output.glob("*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        np.testing.assert_array_equal(
            read_label_map(pictures / f"{case}.png").array, read_label_map(path).array, strict=True
        )
    assert run(evaluate.main, "-p", pictures, "-r", raw / "labelsTr", "-np", 1) == 0
    assert (pictures / "scores.json").read_text() == (output / "scores.json").read_text()


def test_one_model_predicts_a_folder_of_volumes_and_one_of_pictures(planned: Path, joint_model, tmp_path: Path, run):
    volumes = planned / "raw" / HIPPOCAMPUS / "imagesTr"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    sizes = {}
    for path in sorted(volumes.iterdir())[:3]:
        case = path.name.removesuffix("_0000.nii.gz")
        grey = as_bytes(sitk.ReadImage(str(path)))[8]
        sitk.WriteImage(sitk.GetImageFromArray(grey), str(pictures / f"{case}_0000.png"))
        sizes[case] = {"volumes": sitk.ReadImage(str(path)).GetSize(), "pictures": grey.shape[::-1]}
    command = ("-m", joint_model, "-d", 4, "--spacing", "native", "-device", "cpu", "--data", planned)
    for name, folder in (("volumes", volumes), ("pictures", pictures)):
        assert run(predict.main, "-i", folder, "-o", tmp_path / name / "out", *command) == 0
        for case, size in sizes.items():
            assert sitk.ReadImage(str(tmp_path / name / f"out/{case}.nii.gz")).GetSize() == size[name]


def write_as_dicom(folder: Path, path: Path, **options) -> None:
    """A NIfTI file as a DICOM series with its files in no order."""
    image = sitk.ReadImage(str(path))
    direction = np.array(image.GetDirection()).reshape(3, 3)
    columns_mm, rows_mm, slices_mm = image.GetSpacing()
    volume = sitk.GetArrayFromImage(image).astype(np.int16)
    write_series(
        folder,
        volume,
        names=[f"{(7 * number) % 101}.dcm" for number in range(len(volume))],
        directions=(tuple(direction[:, 0]), tuple(direction[:, 1])),
        step_mm=tuple(direction[:, 2] * slices_mm),
        first_mm=image.GetOrigin(),
        pixel_mm=(rows_mm, columns_mm),
        **options,
    )


def test_a_dicom_series_is_predicted_as_the_nifti_file_that_shows_the_same(
    joint_model: Path, planned: Path, tmp_path: Path, run
):
    nifti, dicom = tmp_path / "nifti", tmp_path / "dicom"
    nifti.mkdir()
    path = sorted((planned / "raw" / HEART / "imagesTr").iterdir())[0]
    shutil.copy(path, nifti / "a_0000.nii.gz")
    write_as_dicom(dicom / "a", path)
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


def test_a_study_of_two_series_is_segmented_as_dicom(
    joint_model: Path, planned: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture
):
    study = tmp_path / "in/study"
    first, second = sorted((planned / "raw" / HEART / "imagesTr").iterdir())[:2]
    write_as_dicom(study / "1", first, **{"0020_0011": "3", "0008_103e": "cine"})
    write_as_dicom(study / "2", second, uid="1.2.4", **{"0020_0011": "4", "0008_103e": "late"})
    options = ("-i", tmp_path / "in", "-m", joint_model, "-d", 101, "-device", "cpu")
    caplog.set_level("INFO", "spadunet")
    assert run(predict.main, *options, "-o", tmp_path / "nifti") == 0
    assert "study: holds 2 DICOM series, each a case of its own: study_3_cine, study_4_late" in caplog.text
    assert "each a case of its own" in (tmp_path / "nifti/spadunet_predict.log").read_text()
    output = tmp_path / "seg"
    assert run(predict.main, *options, "-o", output, "--format", "dicom-seg") == 0
    assert {path.name for path in output.glob("study*")} == {"study_3_cine.dcm", "study_4_late.dcm"}
    for case, part in (("study_3_cine", "1"), ("study_4_late", "2")):
        expected = read_label_map(tmp_path / f"nifti/{case}.nii.gz").array
        assert expected.any()
        headers = [pydicom.dcmread(path) for path in (study / part).iterdir()]
        normal = read_image([study / part]).affine[:3, 0]
        headers.sort(key=lambda header: float(np.dot(header.ImagePositionPatient, normal)))
        array = highdicom.seg.segread(output / f"{case}.dcm").get_pixels_by_source_instance(
            [header.SOPInstanceUID for header in headers], combine_segments=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(array, expected)


def refusal(run, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """What `spadunet_predict` says when it will not begin."""
    assert run(predict.main, *options) == 2
    return capsys.readouterr().err


def test_a_format_that_cannot_be_written_is_refused_before_any_work(
    joint_model: Path, planned: Path, tmp_path: Path, run, capsys, monkeypatch: pytest.MonkeyPatch
):
    images = planned / "raw" / HEART / "imagesTr"
    output = tmp_path / "out"
    options = ("-m", joint_model, "-d", 101, "-device", "cpu", "-o", output)
    assert "the images are .nii.gz files, not DICOM; use nifti or input" in refusal(
        run, capsys, "-i", images, *options, "--format", "dicom-seg"
    )
    write_as_dicom(tmp_path / "in/a", sorted(images.iterdir())[0])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert "pip install 'spadunet[dicom]'" in refusal(
        run, capsys, "-i", tmp_path / "in", *options, "--format", "dicom-seg"
    )
    assert not output.exists()
    inner = ("-o", tmp_path / "in/out", *options[:-2])
    assert "lies among the DICOM files of -i" in refusal(run, capsys, "-i", tmp_path / "in", *inner)
    assert not (tmp_path / "in/out").exists()


def test_label_maps_of_another_format_are_never_left_beside_new_ones(
    joint_model: Path, planned: Path, tmp_path: Path, run, capsys
):
    images, output = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    path = sorted((planned / "raw" / HEART / "imagesTr").iterdir())[0]
    sitk.WriteImage(sitk.ReadImage(str(path)), str(images / "a_0000.nrrd"))
    options = ("-i", images, "-o", output, "-m", joint_model, "-d", 101, "-device", "cpu")
    output.mkdir()
    (output / "a.mha").write_bytes(b"drawn by hand")
    assert "holds a.mha, which spadunet_predict did not write" in refusal(run, capsys, *options)
    (output / "a.mha").unlink()
    assert run(predict.main, *options, "--format", "input") == 0
    before = (output / "a.nrrd").read_bytes()
    for more in ((), ("--continue",)):
        assert "holds a.nrrd, the same case in another format; give another folder" in refusal(
            run, capsys, *options, *more
        )
    assert (output / "a.nrrd").read_bytes() == before
    assert run(predict.main, *options, "--format", "input", "--continue") == 0
    assert (output / "a.nrrd").read_bytes() == before
    assert "1 of 1 label maps are there already" in (output / "spadunet_predict.log").read_text()
