"""CHAOS's release, small, to raw datasets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from chaos_release import PIXEL_MM, STEP_MM, ImageSet, write_image_set
from dicom_files import write_series

from spadunet.cli import convert_chaos, export_chaos, plan_and_preprocess, predict, train
from spadunet.dataset import load_dataset
from spadunet.description import read_description
from spadunet.formats import read_channels, write_array
from spadunet.patients import patients_of
from spadunet.preprocessing.converters.chaos import SLICES_JSON, ChaosSlices, files_of
from spadunet.record import read_record
from spadunet.training.splits import make_splits

PATIENTS = [["chaos_02_t1", "chaos_02_t2"], ["chaos_21_t1", "chaos_21_t2"]]
MR_FILES = {
    "imagesTr": ["02_t1_0000", "02_t1_0001", "02_t2_0002", "21_t1_0000", "21_t1_0001", "21_t2_0002"],
    "imagesTs": ["11_t1_0000", "11_t1_0001", "11_t2_0002"],
    "labelsTr": ["02_t1", "02_t2", "21_t1", "21_t2"],
}


@pytest.fixture
def damaged(chaos, tmp_path: Path) -> Path:
    """A copy of patient 2 to spoil."""
    shutil.copytree(chaos[0] / "Train_Sets/MR/2", tmp_path / "CHAOS/Train_Sets/MR/2")
    return tmp_path / "CHAOS"


def raw(workspace: Path, name: str) -> Path:
    return workspace / "raw" / name


def assert_lies_where_it_was(case: ImageSet, path: Path, values: np.ndarray) -> None:
    """Every voxel of a NIfTI file, found through its place in the world, holds what its pixel had."""
    image = sitk.ReadImage(str(path))
    assert sorted(image.GetSize()) == sorted(values.shape)
    sides_mm = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    x, y, z = np.rint(np.linalg.solve(sides_mm, (case.points_mm().reshape(-1, 3) - image.GetOrigin()).T)).astype(int)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[z, y, x], values.ravel())


@pytest.mark.parametrize("inner", [".", "Train_Sets"])
def test_mr_becomes_one_dataset_of_named_channels_that_keeps_patients_together(chaos, tmp_path, run, inner):
    assert run(convert_chaos.main, chaos[0] / inner, "--data", tmp_path) == 0
    folder = raw(tmp_path, "Dataset008_CHAOS")
    found = {name: sorted(path.name for path in (folder / name).iterdir()) for name in MR_FILES}
    assert found == {name: [f"chaos_{file}.nii.gz" for file in files] for name, files in MR_FILES.items()}
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "in-phase", "1": "out-phase", "2": "T2-SPIR"}
    assert content["optional_channels"] == ["in-phase", "out-phase", "T2-SPIR"]
    assert content["labels"] == {"background": 0, "liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
    cases = ["chaos_02_t1", "chaos_02_t2", "chaos_21_t1", "chaos_21_t2"]
    patients = patients_of(cases, read_description(folder).patients)
    assert patients == {case: case[:8] for case in cases}


def test_every_voxel_lies_where_its_pixel_lay_and_keeps_its_whole_number(chaos, tmp_path: Path, run):
    source, cases = chaos
    assert run(convert_chaos.main, source, "--data", tmp_path) == 0
    assert run(convert_chaos.main, source, "--data", tmp_path, "--task", "ct") == 0
    for name, case in cases.items():
        folder = raw(tmp_path, "Dataset009_CHAOSCT" if name.endswith("ct") else "Dataset008_CHAOS")
        images = "imagesTs" if "Test_Sets" in case.folder.parts else "imagesTr"
        for number, volume in case.channels.items():
            path = folder / images / f"{name}_{number:04}.nii.gz"
            array, affine = read_channels(path)
            assert np.issubdtype(array.dtype, np.integer)
            np.testing.assert_allclose(np.linalg.norm(affine[:3, :3], axis=0), (STEP_MM, *PIXEL_MM), rtol=1e-5)
            assert_lies_where_it_was(case, path, volume)
        if images == "imagesTr":
            assert_lies_where_it_was(case, folder / "labelsTr" / f"{name}.nii.gz", case.labels)


@pytest.mark.slow
def test_from_the_release_to_a_submission(chaos, tmp_path: Path, run):
    data = ("--data", tmp_path)
    assert run(convert_chaos.main, chaos[0], *data) == 0
    assert run(plan_and_preprocess.main, "-d", "CHAOS", "--memory-gb", 0.03, "-np", 1, *data) == 0
    splits = make_splits(load_dataset(raw(tmp_path, "Dataset008_CHAOS")))
    assert [sorted(split["val"]) for split in splits] in (PATIENTS, PATIENTS[::-1])
    quick = ("--preset", "tiny", "--batch-size", 1, "--num-workers", 0, "-device", "cpu", "--precision", "float32")
    assert run(train.main, "-d", "CHAOS", "-f", 0, "--max-steps", 4, *quick, *data) == 0
    images = raw(tmp_path, "Dataset008_CHAOS") / "imagesTs"
    assert run(predict.main, "-d", "CHAOS", "-i", images, "-o", tmp_path / "predictions", *data) == 0
    assert {path.name for path in (tmp_path / "predictions").glob("*.nii.gz")} == {
        "chaos_11_t1.nii.gz",
        "chaos_11_t2.nii.gz",
    }
    assert run(export_chaos.main, "-i", tmp_path / "predictions", "-o", tmp_path / "out", *data) == 0
    assert (tmp_path / "out/submission.zip").is_file()


def test_ct_is_a_dataset_of_its_own_that_loads(chaos, tmp_path: Path, run):
    folder = tmp_path / "Dataset019_Livers"
    assert run(convert_chaos.main, chaos[0], "--task", "ct", "-o", folder) == 0
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == ["chaos_05_ct"]
    assert (dataset.channel_names, dataset.labels.names) == (("CT",), ("background", "liver"))
    assert (folder / "imagesTs/chaos_03_ct_0000.nii.gz").is_file()
    assert "optional_channels" not in json.loads((folder / "dataset.json").read_text())


def test_names_are_sorted_by_their_numbers_and_pictures_follow_names_not_positions(tmp_path, run, hippocampus):
    image, labels = hippocampus
    folder = tmp_path / "CHAOS/Train_Sets/CT/1"
    names = [f"{number}.dcm" for number in range(len(image), 0, -1)]  # 12.dcm is the lowest slice, 1.dcm the highest
    case = write_image_set(folder, {"": image}, labels == 1, first_channel=0, names=names, greys=None)
    for number, plane in enumerate(labels[::-1] == 1):  # the first picture is that of 1.dcm
        write_array(folder / f"Ground/liver_GT_{number:03}.png", 255 * plane[None].astype(np.uint8), np.eye(4))
    (folder / "Ground/._liver_GT_000.png").write_bytes(b"left behind by an archive")
    assert [path.name for path in files_of(folder / "DICOM_anon", ".dcm")] == names[::-1]
    assert run(convert_chaos.main, tmp_path / "CHAOS", "--task", "ct", "--data", tmp_path) == 0
    path = raw(tmp_path, "Dataset009_CHAOSCT") / "labelsTr/chaos_01_ct.nii.gz"
    assert_lies_where_it_was(case, path, case.labels.astype(np.uint8))


def test_the_grid_that_is_kept_is_that_of_the_written_image_where_slices_lean_a_little(tmp_path, run, hippocampus):
    """By less than half a pixel over all slices: NIfTI cannot say it, and a submission is checked against this grid."""
    patient = tmp_path / "CHAOS/Train_Sets/CT/1"
    write_series(patient / "DICOM_anon", hippocampus[0][:9], step_mm=(0.02, 0.0, 5.0))
    for number in range(9):
        write_array(patient / f"Ground/liver_GT_{number:03}.png", np.zeros((1, 19, 26), np.uint8), np.eye(4))
    assert run(convert_chaos.main, tmp_path / "CHAOS", "--task", "ct", "--data", tmp_path) == 0
    folder = raw(tmp_path, "Dataset009_CHAOSCT")
    kept = read_record(folder / SLICES_JSON, ChaosSlices, remedy="").cases["chaos_01_ct"]
    _, affine = read_channels(folder / "labelsTr/chaos_01_ct.nii.gz")
    np.testing.assert_array_equal(np.array(kept.affine), affine)


def spoil_grey(train: Path) -> None:
    """A value between right and left kidney, as of a resampled picture."""
    path = train / "MR/2/T2SPIR/Ground/IMG-0012-00003.png"
    plane = read_channels(path)[0][0]
    plane[0, 2, 3] = 150
    write_array(path, plane, np.eye(4))


def spoil_size(train: Path) -> None:
    """Rows for columns."""
    path = train / "MR/2/T1DUAL/Ground/IMG-0004-00004.png"
    write_array(path, read_channels(path)[0][0].transpose(0, 2, 1).copy(), np.eye(4))


def spoil_phase(train: Path) -> None:
    """Out-phase one slice shorter."""
    (train / "MR/2/T1DUAL/DICOM_anon/OutPhase/OUT-IMG-0004-00002.dcm").unlink()


def shift_phase(train: Path) -> None:
    """Out-phase some way off, with as many slices."""
    folder = train / "MR/2/T1DUAL/DICOM_anon/OutPhase"
    shutil.rmtree(folder)
    write_series(
        folder, np.arange(12 * 19 * 26, dtype=np.int16).reshape(12, 19, 26), names=[f"{n}.dcm" for n in range(12)]
    )


def miss_picture(train: Path) -> None:
    (train / "MR/2/T2SPIR/Ground/IMG-0012-00005.png").unlink()


def add_picture(train: Path) -> None:
    ground = train / "MR/2/T2SPIR/Ground"
    shutil.copy(ground / "IMG-0012-00005.png", ground / "IMG-0012-00099.png")


def miss_slice(train: Path) -> None:
    """With its picture: the pairs are whole, the volume is not."""
    (train / "MR/2/T2SPIR/Ground/IMG-0012-00005.png").unlink()
    (train / "MR/2/T2SPIR/DICOM_anon/IMG-0012-00005.dcm").unlink()


def empty_slice(train: Path) -> None:
    (train / "MR/2/T2SPIR/DICOM_anon/IMG-0012-00005.dcm").write_bytes(b"")


def miss_ground(train: Path) -> None:
    shutil.rmtree(train / "MR/2/T1DUAL/Ground")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            spoil_grey,
            "MR/2/T2SPIR/Ground/IMG-0012-00003.png: holds the grey value 150, which is no label of MR (they are",
        ),
        (spoil_size, "MR/2/T1DUAL/Ground/IMG-0004-00004.png: shape (26, 19) against (19, 26) pixels of its slice"),
        (spoil_phase, "T1DUAL/DICOM_anon/OutPhase: does not lie on the grid of "),
        (shift_phase, "T1DUAL/DICOM_anon/OutPhase: does not lie on the grid of "),
        (miss_picture, "Ground: holds 11 pictures, but DICOM_anon 12 DICOM files, IMG-0012-00005 without a partner"),
        (add_picture, "Ground: holds 13 pictures, but DICOM_anon 12 DICOM files, IMG-0012-00099 without a partner"),
        (miss_slice, "11 mm to the next slice"),
        (empty_slice, "IMG-0012-00005.dcm: damaged DICOM file"),
        (miss_ground, "MR/2/T1DUAL/Ground: folder not found; expected Train_Sets/MR/<number>/T1DUAL"),
    ],
)
def test_a_release_that_is_damaged_is_told_by_file(damaged: Path, tmp_path: Path, run, capsys, spoil, message):
    spoil(damaged / "Train_Sets")
    assert run(convert_chaos.main, damaged, "--data", tmp_path) == 2
    assert message in capsys.readouterr().err
    assert not (raw(tmp_path, "Dataset008_CHAOS") / "dataset.json").exists()


def test_all_that_is_wrong_is_told_at_once(damaged: Path, tmp_path: Path, run, capsys):
    spoil_grey(damaged / "Train_Sets")
    spoil_size(damaged / "Train_Sets")
    assert run(convert_chaos.main, damaged, "--data", tmp_path) == 2
    told = capsys.readouterr().err
    assert "IMG-0012-00003.png" in told
    assert "IMG-0004-00004.png" in told


def test_a_folder_without_the_release_is_told(tmp_path: Path, run, capsys):
    assert run(convert_chaos.main, tmp_path / "nothing", "--data", tmp_path) == 2
    assert "nothing/Train_Sets/MR: folder not found; expected Train_Sets/MR/<number>/T1DUAL" in capsys.readouterr().err
    (tmp_path / "empty/Train_Sets/CT").mkdir(parents=True)
    assert run(convert_chaos.main, tmp_path / "empty", "--task", "ct", "--data", tmp_path) == 2
    assert "no patients' folders there; expected Train_Sets/CT/<number>" in capsys.readouterr().err
    assert not (tmp_path / "raw/Dataset008_CHAOS").exists()
