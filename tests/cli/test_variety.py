"""Mixed spacings, channels in another order, and mirrors, through all commands."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from spadunet.cli import plan_and_preprocess, predict, train
from spadunet.image import Image, LabelMap, read_label_map
from spadunet.inference.estimate import num_windows
from spadunet.inference.predict import Engine
from spadunet.model import load_model, save_model
from spadunet.network.heads import SegmentationNetwork
from spadunet.plan import Plan
from spadunet.preprocessing.store import open_case
from spadunet.training.curves import read_rows

HIPPOCAMPUS = "Dataset004_Hippocampus"
SCRIPT = Path(__file__).parents[2] / "benchmarks/da_boundary.py"
MERGED = (1, 1, 2, 4)
"""Slices of each case that become one."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("da_boundary", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPT.parent))
        spec.loader.exec_module(module)
    return module


def thicken(path: Path, num_merged: int, *, is_label: bool) -> None:
    """Make slices of a NIfTI file as many times thicker."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    parts = array[: len(array) // num_merged * num_merged].reshape(-1, num_merged, *array.shape[1:])
    thick = sitk.GetImageFromArray(parts[:, num_merged // 2] if is_label else parts.mean(1, dtype=np.float32))
    thick.SetDirection(image.GetDirection())
    thick.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((0, 0, (num_merged - 1) / 2)))
    thick.SetSpacing((*image.GetSpacing()[:2], image.GetSpacing()[2] * num_merged))
    sitk.WriteImage(thick, str(path))


@pytest.fixture(scope="module")
def native_model(tmp_path_factory: pytest.TempPathFactory, copy_demo, run, quick) -> Path:
    """A workspace with a model of cases with 1, 1, 2 and 4 mm slices, planned and trained at their own spacing."""
    data = tmp_path_factory.mktemp("native")
    raw = copy_demo(HIPPOCAMPUS, data / "raw" / HIPPOCAMPUS, num_cases=len(MERGED), size=(20, 24, 24))
    for path, num_merged in zip(sorted((raw / "labelsTr").iterdir()), MERGED, strict=True):
        thicken(path, num_merged, is_label=True)
        thicken(raw / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"), num_merged, is_label=False)
    command = ("-d", 4, "--spacing", "native", "--memory-gb", 0.03, "-np", 1, "--data", data)
    assert run(plan_and_preprocess.main, *command) == 0
    options = (*quick, "--batch-size", 2, "--slice-merging", 0.5, "--data", data)
    assert run(train.main, "-d", 4, "-f", "all", "--max-steps", 12, *options) == 0
    return data


def test_cases_of_mixed_spacing_train_at_their_own_and_at_others(native_model: Path):
    preprocessed = native_model / "preprocessed" / HIPPOCAMPUS
    plan = Plan.from_json((preprocessed / "plan.json").read_text())
    assert plan.is_native
    names = sorted(path.stem for path in (preprocessed / "cases").glob("*.json"))
    own = [open_case(preprocessed / "cases", name).da for name in names]
    assert sorted(own) == [0, 0, 1, 2]
    depths = [plan.patch_sizes_voxels[da][0] for da in range(4)]
    assert depths == [16, 12, 6, 3]  # what memory leaves of 24, the whole of 12 and 6 slices, and half of that
    folder = native_model / "results" / HIPPOCAMPUS / "spad_unet_tiny/fold_all"
    seen = {int(row["da"]) for row in read_rows(folder / "curves.csv")}
    assert {0, 1, 2} <= seen
    log = (folder / "training.log").read_text()
    assert f"patches of {HIPPOCAMPUS}: 50% have merged slices; 30% have pixels of another size" in log


def test_a_native_model_predicts_every_spacing_on_its_own_grid(native_model: Path, run, tmp_path: Path):
    images = native_model / "raw" / HIPPOCAMPUS / "imagesTr"
    command = ("-i", images, "-o", tmp_path, "-device", "cpu", "--mirror", "all", "--data", native_model)
    assert run(predict.main, *command) == 0
    for path in sorted(images.iterdir()):
        label_map = read_label_map(tmp_path / path.name.replace("_0000", ""))
        assert label_map.shape == sitk.GetArrayFromImage(sitk.ReadImage(str(path))).shape
    log = (tmp_path / "spadunet_predict.log").read_text()
    assert "not mirrored across anterior-posterior: labels name its ends" in log
    assert "mirrored across left-right (no label names a side)" in log


def test_pictures_and_volumes_go_through_one_model_by_one_command(native_model: Path, run, tmp_path: Path):
    """A model that has seen volumes alone takes slices of them as 2D pictures, which know no spacing."""
    volumes = native_model / "raw" / HIPPOCAMPUS / "imagesTr"
    path = sorted(volumes.iterdir())[0]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    scaled = (255.0 * array / array.max()).astype("uint8")
    for number in (10, 15):
        sitk.WriteImage(sitk.GetImageFromArray(scaled[number]), str(pictures / f"slice{number}_0000.png"))
    command = ("-device", "cpu", "--spacing", "native", "--data", native_model)
    for folder in (pictures, volumes):
        assert (
            run(predict.main, "-i", folder, "-o", tmp_path / f"{folder.name} out", *command, "--format", "input") == 0
        )
    for number in (10, 15):
        found = read_label_map(tmp_path / "pictures out" / f"slice{number}.png")
        assert found.array.shape == (1, *array.shape[1:])
    assert len(list((tmp_path / "imagesTr out").glob("*.nii.gz"))) == len(list(volumes.iterdir()))


def test_an_image_on_either_side_of_the_boundary_is_scored_on_its_own_grid(
    native_model: Path, script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[float, ...]] = []
    predict_image = script.predict_image

    def note(image, engine: Engine):
        assert engine.spacing == "native"
        seen.append(image.spacing_mm)
        return predict_image(image, engine)

    monkeypatch.setattr(script, "predict_image", note)
    model = native_model / "results" / HIPPOCAMPUS / "spad_unet_tiny/fold_all"
    raw = native_model / "raw" / HIPPOCAMPUS
    monkeypatch.setattr(sys, "argv", ["da_boundary", str(model), "-d", str(raw), "--cases", "1", "--device", "cpu"])
    script.main()
    lines = capsys.readouterr().out.splitlines()
    assert [round(max(spacing), 4) for spacing in seen] == [1.9, 2.1]
    assert lines[1].split() == ["Dice", "DA", "0", "DA", "1", "change"]
    values = [float(word) for word in lines[-1].split()[1:]]
    assert lines[-1].split()[0] == "mean"
    assert values[2] == pytest.approx(values[1] - values[0], abs=2e-4)


def test_slices_made_thicker_hold_the_mean_of_what_they_cover_and_labels_find_back(script: ModuleType):
    array = np.zeros((1, 8, 2, 2), np.float32)
    array[0, 4:] = 1
    image = Image(array=array, affine=np.diag([1.0, 1, 1, 1]))
    change = script.Thicker(axis=0, factor=2.5, num_old=8)
    thick = change.image(image)
    # Covered: 0 to 2.5, 2.5 to 5 (of which 4 to 5 is bright), 5 to 7.5.
    np.testing.assert_allclose(thick.array[0, :, 0, 0], [0, 0.4, 1], atol=1e-6)
    assert thick.spacing_mm == (2.5, 1, 1)
    assert thick.affine[0, 3] == pytest.approx(0.75)  # the middle of 0 to 2.5 is 1.25, half a voxel beyond 0.5
    label_map = LabelMap(array=np.arange(3)[:, None, None] * np.ones((3, 2, 2), int), affine=thick.affine)
    back = change.back(label_map, image.affine)
    assert back.array[:, 0, 0].tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="already"):
        script.thicker(Image(array=array, affine=np.diag([8.0, 1, 1, 1])), 0.95, 2.0)
    assert script.thicker(Image(array=array, affine=np.diag([6.4, 1, 1, 1])), 0.95, None).factor * 6.4 == (
        pytest.approx(7.6)
    )


def tell_channels_apart(folder: Path) -> None:
    """Give a model a channel map and a head by which its predictions depend on the channels and differ by place."""
    model = load_model(folder)
    [(name, task)] = model.tasks.items()
    state = dict(task.state)
    generator = torch.Generator().manual_seed(0)
    state["channel_map.weight"] = torch.tensor([[3.0, 0.0]]).expand(3, 2).clone()
    state["heads.0.weight"] = torch.randn(state["heads.0.weight"].shape, generator=generator)
    save_model(folder, replace(model, tasks={name: replace(task, state=state)}))


def test_channels_in_another_order_give_the_same_logits(
    copy_demo, tmp_path: Path, run, quick, monkeypatch: pytest.MonkeyPatch
):
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {"plain": lambda x: x, "dark": lambda x: 500 - x}
    raw = copy_demo(HIPPOCAMPUS, tmp_path / "raw" / HIPPOCAMPUS, num_cases=1, size=(20, 24, 16))
    other = tmp_path / "other"
    shutil.copytree(raw, other)
    for folder, names in ((raw, list(changes)), (other, list(changes)[::-1])):
        description = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(description | {"channel_names": dict(enumerate(names))}))
        for path in sorted((folder / "imagesTr").iterdir()):
            image = sitk.ReadImage(str(path))
            for number, name in enumerate(names):
                channel = sitk.GetImageFromArray(changes[name](sitk.GetArrayFromImage(image).astype(np.float32)))
                channel.CopyInformation(image)
                sitk.WriteImage(channel, str(path).replace("_0000", f"_{number:04}"))
    data = ("--data", tmp_path)
    assert run(plan_and_preprocess.main, "-d", 4, "--memory-gb", 0.03, "-np", 1, *data) == 0
    assert run(train.main, "-d", 4, "-f", "all", "--max-steps", 1, *quick, *data) == 0
    tell_channels_apart(next(tmp_path.glob("results/**/model.json")).parent)
    logits: dict[str, list[torch.Tensor]] = {"a": [], "b": [], "c": []}
    forward = SegmentationNetwork.forward
    for name, folder, more in (("a", raw, ()), ("b", other, ()), ("c", other, ("--channels", "plain", "dark"))):

        def keep(network, x, da, found=logits[name]):
            found.append(forward(network, x, da))
            return found[-1]

        monkeypatch.setattr(SegmentationNetwork, "forward", keep)
        assert run(predict.main, "-i", folder / "imagesTr", "-o", tmp_path / name, *more, "-device", "cpu", *data) == 0
    maps = {
        name: np.concatenate([read_label_map(path).array for path in sorted((tmp_path / name).glob("*.nii.gz"))])
        for name in "abc"
    }
    assert logits["a"]
    for one, two, wrong in zip(logits["a"], logits["b"], logits["c"], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)
        assert (one - wrong).abs().max() > 0.1
    assert np.array_equal(maps["a"], maps["b"])
    assert not np.array_equal(maps["a"], maps["c"])  # where the user says that the files are in another order


@pytest.mark.slow
def test_a_dry_run_counts_mirrors_and_spacings(native_model: Path, run, capsys: pytest.CaptureFixture[str], tmp_path):
    preprocessed = native_model / "preprocessed" / HIPPOCAMPUS
    patches = Plan.from_json((preprocessed / "plan.json").read_text()).patch_sizes_voxels
    cases = [open_case(preprocessed / "cases", path.stem) for path in (preprocessed / "cases").glob("*.json")]
    count = sum(num_windows(case.header.geometry.shape, patches[case.da], 0.5) for case in cases)
    images = native_model / "raw" / HIPPOCAMPUS / "imagesTr"
    command = ("-i", images, "-o", tmp_path / "x", "--spacing", "native", "-device", "cpu", "--data", native_model)
    assert run(predict.main, *command, "--mirror", "left-right", "superior-inferior", "--dry-run") == 0
    assert f"{4 * count} windows of " in capsys.readouterr().out


def test_contradictory_mirrors_are_refused(native_model: Path, run, capsys: pytest.CaptureFixture[str]):
    assert (
        run(train.main, "-d", 4, "--mirror", "none", "left-right", "--data", native_model, "-o", "x", "--dry-run") == 2
    )
    assert "--mirror none left-right: all and none stand alone" in capsys.readouterr().err
