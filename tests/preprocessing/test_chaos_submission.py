"""Label maps of CHAOS's cases to the challenge's pictures and back."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from chaos_release import GREYS, ImageSet

from spadunet.cli import convert_chaos, export_chaos
from spadunet.formats import read_channels, write_array

MR, CT = "raw/Dataset008_CHAOS", "raw/Dataset009_CHAOSCT"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, chaos, run) -> Path:
    """Workspace with both datasets, to be read only."""
    workspace = tmp_path_factory.mktemp("workspace")
    for task in ("mr", "ct"):
        assert run(convert_chaos.main, chaos[0], "--task", task, "--data", workspace) == 0
    return workspace


@pytest.fixture
def predictions(converted: Path, tmp_path: Path, chaos) -> Path:
    """Label maps of all MR and CT cases; of the test cases, those that were hidden."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for name, case in chaos[1].items():
        image = next((converted / (CT if name.endswith("ct") else MR)).glob(f"images*/{name}_*"))
        descends = case.positions_mm[0, 2] > case.positions_mm[-1, 2]
        array, affine = read_channels(image)
        labels = case.labels[::-1] if descends else case.labels
        assert array[0].shape == labels.shape
        write_array(folder / f"{name}.nii.gz", labels, affine)
    return folder


def pictures_in(folder: Path) -> dict[str, np.ndarray]:
    """Pictures (row, column) by name."""
    return {path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in sorted(folder.iterdir())}


def pictures_of(case: ImageSet, greys: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The pictures of a case that was written into the release."""
    planes = np.array(greys, np.uint8)[case.labels]
    return {name.replace(".dcm", ".png"): plane for name, plane in zip(case.names, planes, strict=True)}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, plane in wanted.items():
        assert found[name].dtype == np.uint8
        np.testing.assert_array_equal(found[name], plane)


def test_ground_truth_that_is_converted_and_exported_is_the_ground_truth(chaos, converted, tmp_path: Path, run):
    source, cases = chaos
    labels, out = [converted / MR / "labelsTr", converted / CT / "labelsTr"], tmp_path / "out"
    assert run(export_chaos.main, "-i", *labels, "-o", out, "--data", converted, "--allow-missing") == 0
    for name, case in cases.items():
        if "Train_Sets" not in case.folder.parts or name == "chaos_21_t2":  # whose grey values are the tolerated ones
            continue
        inner = case.folder.relative_to(source / "Train_Sets")
        ground = pictures_in(case.folder / "Ground")
        if name.endswith("ct"):  # their names are not those of the slices
            renamed = dict(zip(sorted(Path(name).stem + ".png" for name in case.names), ground.values(), strict=True))
            assert_same(pictures_in(out / "Task2" / inner / "Results"), renamed)
        else:
            assert_same(pictures_in(out / "Task5" / inner / "Results"), ground)
            liver = {picture: np.where(plane == 63, plane, 0) for picture, plane in ground.items()}
            assert_same(pictures_in(out / "Task3" / inner / "Results"), liver)
    case = cases["chaos_21_t2"]
    assert_same(pictures_in(out / "Task5/MR/21/T2SPIR/Results"), pictures_of(case, GREYS["MR"]))


def test_test_cases_become_pictures_named_as_their_slices(chaos, converted, predictions, tmp_path: Path, run):
    out = tmp_path / "out"
    for name in ("chaos_02_t1", "chaos_02_t2", "chaos_21_t1", "chaos_21_t2", "chaos_05_ct"):
        (predictions / f"{name}.nii.gz").unlink()  # training cases need no prediction
    assert run(export_chaos.main, "-i", predictions, "-o", out, "--data", converted) == 0
    cases = chaos[1]
    t1, t2 = cases["chaos_11_t1"], cases["chaos_11_t2"]
    assert_same(pictures_in(out / "Task5/MR/11/T1DUAL/Results"), pictures_of(t1, GREYS["MR"]))
    assert_same(pictures_in(out / "Task5/MR/11/T2SPIR/Results"), pictures_of(t2, GREYS["MR"]))
    assert_same(pictures_in(out / "Task3/MR/11/T2SPIR/Results"), pictures_of(t2, (0, 63, 0, 0, 0)))
    assert_same(pictures_in(out / "Task2/CT/3/Results"), pictures_of(cases["chaos_03_ct"], GREYS["CT"]))


def test_folders_are_those_of_the_template_and_the_zip_holds_them_all(converted, predictions, tmp_path: Path, run):
    out = tmp_path / "out"
    assert run(export_chaos.main, "-i", predictions, "-o", out, "--data", converted) == 0
    assert sorted(path.name for path in out.iterdir()) == [*(f"Task{n}" for n in range(1, 6)), "submission.zip"]
    for inner in ("Task1/CT/40", "Task1/MR/1/T1DUAL", "Task4/MR/40/T2SPIR", "Task4/CT/1", "Task3/MR/7/T1DUAL"):
        assert list((out / inner / "Results").iterdir()) == []
    assert len(list(out.glob("Task5/MR/*/*/Results"))) == 80
    assert len(list(out.glob("Task2/CT/*/Results"))) == 40
    with zipfile.ZipFile(out / "submission.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    (out / "submission.zip").unlink()
    trees = [{path.relative_to(top): path for path in top.rglob("*")} for top in (out, tmp_path / "unpacked")]
    assert trees[0].keys() == trees[1].keys()
    for inner, path in trees[0].items():
        assert path.is_dir() or path.read_bytes() == trees[1][inner].read_bytes()


def test_missing_test_cases_are_listed_by_modality(converted, predictions, tmp_path: Path, run, capsys):
    out = tmp_path / "out"
    for name in ("chaos_11_t1", "chaos_11_t2", "chaos_03_ct"):
        (predictions / f"{name}.nii.gz").unlink()
    assert run(export_chaos.main, "-i", predictions, "-o", out, "--data", converted) == 2
    told = capsys.readouterr().err
    assert "3 test cases have no label map: chaos_03_ct, chaos_11_t1, chaos_11_t2; predict them" in told
    (predictions / "chaos_05_ct.nii.gz").unlink()  # no CT at all: that task is not entered
    assert run(export_chaos.main, "-i", predictions, "-o", out, "--data", converted) == 2
    assert "2 test cases have no label map: chaos_11_t1, chaos_11_t2;" in capsys.readouterr().err
    assert not out.exists()
    assert run(export_chaos.main, "-i", predictions, "-o", out, "--data", converted, "--allow-missing") == 0
    assert len(list(out.glob("Task5/**/*.png"))) == 4 * 12


def spoil_label(path: Path) -> None:
    array, affine = read_channels(path)
    array[0, 3, 4, 5] = 7
    write_array(path, array[0], affine)


def spoil_shape(path: Path) -> None:
    array, affine = read_channels(path)
    write_array(path, array[0, 1:], affine)


def spoil_place(path: Path) -> None:
    """Slices the other way round, as of a tool that goes by file names."""
    array, affine = read_channels(path)
    affine[:3, 3] += 11 * affine[:3, 0]
    affine[:3, 0] *= -1
    write_array(path, array[0], affine)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_label, "chaos_11_t1.nii.gz: holds the label 7; MR has 0 to 4"),
        (
            spoil_shape,
            "chaos_11_t1.nii.gz: does not lie on the grid of its image: shape 26×19×11 against 26×19×12 voxels (x×y×z)",
        ),
        (spoil_place, "chaos_11_t1.nii.gz: does not lie on the grid of its image: corners lie up to 60.5 mm apart"),
    ],
)
def test_label_maps_that_do_not_fit_are_told_and_nothing_is_left(
    converted, predictions, tmp_path: Path, run, capsys, spoil, message
):
    spoil(predictions / "chaos_11_t1.nii.gz")
    before = sorted(tmp_path.iterdir())
    assert run(export_chaos.main, "-i", predictions, "-o", tmp_path / "out", "--data", converted) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_nothing(converted, predictions, tmp_path: Path, run, capsys, full_disk):
    before = sorted(tmp_path.iterdir())
    assert run(export_chaos.main, "-i", predictions, "-o", tmp_path / "out", "--data", converted) == 1
    assert "no space is left on the device" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_folders_are_told(converted, predictions, tmp_path: Path, run, capsys):
    data = ("--data", converted)
    assert run(export_chaos.main, "-i", predictions, "-o", predictions, *data) == 2
    assert "predictions: is there already; remove it, or give another folder" in capsys.readouterr().err
    assert run(export_chaos.main, "-i", converted / MR / "imagesTs", "-o", tmp_path / "out", *data) == 2
    assert "imagesTs: no label maps named as CHAOS's cases are, like chaos_02_t1.nii.gz" in capsys.readouterr().err
    assert run(export_chaos.main, "-i", predictions, tmp_path / "nothing", "-o", tmp_path / "out", *data) == 2
    assert "nothing: folder not found; give the folder that holds the label maps" in capsys.readouterr().err
    shutil.copytree(predictions, tmp_path / "again")
    assert run(export_chaos.main, "-i", predictions, tmp_path / "again", "-o", tmp_path / "out", *data) == 2
    assert "a second label map of chaos_02_t1, beside" in capsys.readouterr().err
    assert run(export_chaos.main, "-i", predictions, "-o", tmp_path / "out", "--data", tmp_path) == 2
    assert "-d Dataset008_CHAOS: dataset not found" in capsys.readouterr().err
    (tmp_path / "raw/Other/imagesTr").mkdir(parents=True)
    assert run(export_chaos.main, "-i", predictions, "-o", tmp_path / "out", "-d", "Other", "--data", tmp_path) == 2
    assert (
        "Other/chaos_slices.json: not found; write the dataset with spadunet_convert_chaos" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_files_of_other_names_are_left_out_and_told(converted, predictions, tmp_path: Path, run, caplog):
    shutil.copy(predictions / "chaos_11_t1.nii.gz", predictions / "chaos_99_t1.nii.gz")
    data = ("--data", converted, "-d", "CHAOS", "9")
    assert run(export_chaos.main, "-i", predictions, "-o", tmp_path / "out", *data) == 0
    assert "chaos_99_t1.nii.gz: has no name of a CHAOS case; it is left out" in caplog.text
    assert not (tmp_path / "out/Task5/MR/99").exists()
