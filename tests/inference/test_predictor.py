"""`from spadunet import Predictor`: arrays and files in, arrays out, in threads too."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import write_series
from random_models import CLASSES, hippocampus, plan_of, write_model

import spadunet
from spadunet import Predictor
from spadunet.errors import InputError
from spadunet.image import Image, read_image
from spadunet.inference.predict import predict_image
from spadunet.inference.sources import build_engine, open_sources
from spadunet.model_changes import set_postprocessing
from spadunet.postprocessing import Postprocessing, Rule

GUIDE = Path(__file__).parent.parent.parent / "docs/python.md"
SPACING = (1.5, 1.0, 0.8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders."""
    plan = plan_of(depth=12).model_copy(
        update={"patch_sizes_voxels": {da: (12 if da < 6 else 1, 16, 16) for da in range(7)}}
    )
    return [write_model(tmp_path_factory.mktemp(f"model_{seed}") / "model", seed, plan) for seed in (0, 1)]


@pytest.fixture(scope="module")
def predictor(models: list[Path]) -> Predictor:
    """Of one model, on the processor."""
    return Predictor(models[0], device="cpu", precision="float32", overlap=0.25)


def parts(num: int) -> list[np.ndarray]:
    """Different pieces of a real image, (1, 14, 18, 20)."""
    array = hippocampus().array
    return [array[:, n : n + 14, 10 + n : 28 + n, 8:28] for n in range(num)]


def write_scan(path: Path, array: np.ndarray) -> Path:
    """As a file of identity direction."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1][: array.ndim] if array.ndim == 3 else SPACING[:0:-1])
    sitk.WriteImage(image, str(path))
    return path


def test_arrays_and_files_give_what_the_command_gives(predictor: Predictor, models, tmp_path: Path):
    (array,) = parts(1)
    path = write_scan(tmp_path / "scan_0000.nii.gz", array[0])
    found = predictor.predict(array, SPACING)
    assert found.shape == array.shape[1:]
    assert set(np.unique(found).tolist()) <= set(CLASSES.ids)
    assert len(np.unique(found)) > 1
    assert np.array_equal(predictor.predict_file(path), found)
    assert np.array_equal(predictor.predict_file([str(path)]), found)
    image = read_image([path])
    assert np.array_equal(predictor.predict_image(image).array, found)
    assert np.array_equal(predict_image(image, predictor._engine).array, found)


def test_an_array_of_two_axes_is_a_2d_image(predictor: Predictor, tmp_path: Path):
    array = parts(1)[0][0, 5]
    path = write_scan(tmp_path / "flat_0000.nii.gz", array)
    found = predictor.predict(array[None], SPACING[1:])
    assert found.shape == array.shape
    assert np.array_equal(predictor.predict_file(path)[0], found)


@pytest.mark.slow
def test_threads_get_what_they_would_get_one_after_the_other(predictor: Predictor):
    arrays = parts(4)
    expected = [predictor.predict(array, SPACING) for array in arrays]
    assert not np.array_equal(expected[0], expected[1])
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda array: predictor.predict(array, SPACING), arrays * 2))
    for one, other in zip(found, expected * 2, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_threads_may_read_files_of_any_format(predictor: Predictor, tmp_path: Path):
    paths = []
    for number, array in enumerate(parts(4)):
        for ending in (".nii.gz", ".mha", ".nrrd"):
            paths.append(write_scan(tmp_path / f"{number}{ending}", array[0]))
        write_series(tmp_path / f"{number}", np.rint(array[0] * 100).astype(np.int16))
        paths.append(tmp_path / f"{number}")
    expected = [predictor.predict_file(path) for path in paths]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(predictor.predict_file, paths * 3))
    for one, other in zip(found, expected * 3, strict=True):
        assert np.array_equal(one, other)


def test_probabilities_of_an_array_have_the_label_maps_grid(predictor: Predictor):
    (array,) = parts(1)
    found = predictor.predict_probabilities(array, SPACING)
    assert found.dtype == np.float16
    assert found.shape == (len(CLASSES.names), *array.shape[1:])
    assert np.array_equal(CLASSES.to_ids(found.argmax(axis=0)), predictor.predict(array, SPACING))
    flat = predictor.predict_probabilities(array[:, 5], SPACING[1:])
    assert flat.shape == (len(CLASSES.names), *array.shape[2:])
    with pytest.raises(InputError, match="three spacings"):
        predictor.predict_probabilities(array, SPACING[1:])


def test_an_image_is_judged_and_its_label_map_stays_the_same(predictor: Predictor, tmp_path: Path):
    array = parts(1)[0]
    image = read_image([write_scan(tmp_path / "scan_0000.nii.gz", array[0])])
    label_map, rows = predictor.judge_image(image)
    assert np.array_equal(label_map.array, predictor.predict_image(image).array)
    assert list(rows) == [*CLASSES.names[1:], "mean"]
    voxel_ml = float(np.prod(image.spacing_mm)) / 1000
    for name, label_id in zip(CLASSES.names[1:], CLASSES.ids[1:], strict=True):
        assert rows[name].volume_ml == pytest.approx(voxel_ml * (label_map.array == label_id).sum())
        assert 0 <= rows[name].confidence <= 1
    assert rows["mean"].expected_dice is None
    with pytest.raises(InputError, match="NaN or infinite"):
        predictor.judge_image(Image(array=np.full((1, 4, 4, 4), np.nan), affine=np.eye(4)))


def test_what_is_given_is_not_changed(predictor: Predictor):
    (array,) = parts(1)
    before = array.copy()
    predictor.predict(array, SPACING)
    assert np.array_equal(array, before)


@pytest.mark.slow
def test_options_do_what_they_say(models: list[Path], predictor: Predictor):
    import torch

    (array,) = parts(1)
    cpu = {"device": "cpu", "precision": "float32", "overlap": 0.25}
    few = Predictor(models[0], **cpu, roi_subset=["c", "a"])
    assert few.labels.names == ("background", "a", "c")
    assert set(np.unique(few.predict(array, SPACING)).tolist()) <= {0, 1, 5}
    both = Predictor(models, "Dataset001_A", **cpu)
    assert not np.array_equal(both.predict(array, SPACING), predictor.predict(array, SPACING))
    engine = build_engine(
        open_sources(models, None, "plan"),
        device=torch.device("cpu"),
        precision=torch.float32,
        overlap=0.25,
        spacing="plan",
        mirror=(),
        chosen=(),
        rules=(),
        memory_gb=None,
        folder=None,
    )
    image = Image(array=array, affine=np.eye(4)[[2, 1, 0, 3]] * np.array([*SPACING, 1]))
    assert np.array_equal(both.predict(array, SPACING), predict_image(image, engine).array)


@pytest.mark.slow
def test_post_processing_of_the_model_is_applied_unless_left_out(tmp_path: Path, predictor: Predictor):
    (array,) = parts(1)
    plan = predictor._engine.plan
    folder = write_model(tmp_path / "model", 0, plan)
    names = [
        name
        for name, label_id in zip(CLASSES.names, CLASSES.ids, strict=True)
        if (predictor.predict(array, SPACING) == label_id).any() and label_id
    ]
    rules = tuple(
        Rule(structure=name, action="remove small", min_mm3=1e6, num_cases=5, dice=(0, 1), hd95_mm=(1, 0))
        for name in names
    )
    set_postprocessing(folder, plan.dataset_name, Postprocessing(rules=rules, num_cases=1))
    cleaned, left = (
        Predictor(folder, device="cpu", precision="float32", overlap=0.25, postprocessing=wanted).predict(
            array, SPACING
        )
        for wanted in (True, False)
    )
    assert not cleaned.any()
    assert left.any()


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((14, 18), SPACING, r"array of shape \(14, 18\)"),
        ((1, 14, 18, 20), (1, 1), "three spacings"),
        ((1, 14, 18, 0), SPACING, "array of shape"),
        ((2, 4, 4, 4), SPACING, "the image has 2 channels, the model 1: MRI"),
        ((1, 4, 4, 4), (1, 1, 0), "each must be above zero"),
    ],
)
def test_what_does_not_fit_is_told(predictor: Predictor, shape, spacing, message: str):
    with pytest.raises(InputError, match=message):
        predictor.predict(np.ones(shape, np.float32), spacing)


def test_values_that_are_no_numbers_are_told(predictor: Predictor):
    array = parts(1)[0].astype(np.float32)
    array[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        predictor.predict(array, SPACING)
    with pytest.raises(InputError, match="expected real numbers"):
        predictor.predict(np.full((1, 4, 4, 4), "a"), SPACING)
    with pytest.raises(InputError, match="holds bool; expected real numbers"):
        predictor.predict(array > 0, SPACING)
    array = array.astype(np.float64)
    array[0, 0, 0, 0] = -1e300
    with pytest.raises(InputError, match=r"the image holds values from -1e\+300 to .*more than float32 holds"):
        predictor.predict(array, SPACING)
    with pytest.raises(InputError, match="no path"):
        predictor.predict_file([])


def test_wrong_models_and_options_are_told(models: list[Path], tmp_path: Path):
    with pytest.raises(InputError, match="model.json: not found"):
        Predictor(tmp_path)
    with pytest.raises(InputError, match="serves Dataset001_A"):
        Predictor(models[0], "Liver")
    with pytest.raises(ValueError, match="device"):
        Predictor(models[0], device="tpu9")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("roi_subset", ["a", "lung"], "roi_subset 'lung': is none of a, b, c, d"),
        ("roi_subset", "ab", "roi_subset 'ab': is none of a, b, c, d"),
        ("spacing", "foo", "spacing 'foo': is none of plan, native"),
        ("precision", "fp16", "precision 'fp16': is none of auto, bf16, float32"),
        ("mirror", ["left-right", "foo"], "mirror 'foo': is none of left-right, anterior-posterior, superior-inferior"),
        ("mirror", "leftright", "mirror 'leftright': is none of"),
        ("overlap", 1.5, "overlap 1.5 is not a share"),
        ("memory_gb", 0, "memory_gb 0 is not a number above 0"),
        ("memory_gb", -1, "memory_gb -1 is not"),
        ("memory_gb", float("nan"), "memory_gb nan is not"),
        ("memory_gb", float("inf"), "memory_gb inf is not"),
    ],
)
def test_a_value_that_an_option_does_not_have_is_told(models: list[Path], option: str, value: object, message: str):
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        Predictor(models[0], device="cpu", **{option: value})


def test_one_name_stands_for_itself(models: list[Path]):
    one = Predictor(models[0], device="cpu", mirror="superior-inferior", roi_subset="c")
    assert one._engine.mirror == ("superior-inferior",)
    assert one.labels.names == ("background", "c")


def test_the_guides_example_runs_as_it_stands(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    code, *_ = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert 5 <= len([line for line in code.splitlines() if line.strip()]) <= 10
    (tmp_path / "model").symlink_to(models[0])
    (array,) = parts(1)
    write_scan(tmp_path / "scan_0000.nii.gz", array[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, str(GUIDE), "exec"), names)
    assert np.array_equal(names["labels"], Predictor("model").predict(array, SPACING))
    assert "a" in capsys.readouterr().out


def test_importing_the_package_stays_light():
    code = "import sys, spadunet; print(len({'torch', 'numpy', 'pydantic', 'SimpleITK'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    with pytest.raises(AttributeError, match="no attribute 'Oracle'"):
        _ = spadunet.Oracle
