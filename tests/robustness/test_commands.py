"""Commands on a dataset or folder with one damaged file: an exit code and lines, and the others are done."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from damage import damage_series, rewrite
from mutate import Rng, damage_gzipped, damage_json, damage_nifti, pick
from sources import write_dataset, write_dicom, write_model

from spadunet.cli import check, plan_and_preprocess, predict
from spadunet.image import geometry_difference, read_image, read_label_map

Main = Callable[[list[str]], None]
PLAN = ("--memory-gb", "0.03", "-np", "1")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw dataset of four cases, a model and a DICOM series."""
    folder = tmp_path_factory.mktemp("sound")
    write_dataset(folder / "Dataset001_Tiny")
    write_model(folder / "model")
    write_dicom(folder / "series")
    return folder


def call(main: Main, *words: object) -> tuple[int, str]:
    """Exit code of a command and all that it said."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("spadunet").addHandler(handler)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
    finally:
        logging.getLogger("spadunet").removeHandler(handler)
    return int(caught.value.code or 0), said.getvalue()


def assert_orderly(code: int, said: str, folder: Path, what: str) -> None:
    """One of the three exit codes, no traceback, no unexpected error, nothing half-written."""
    assert code in (0, 1, 2), f"{what}: {said}"
    assert "Traceback" not in said and "unexpected" not in said, f"{what}: {said}"
    assert not list(folder.rglob(".partial-*")), what


def damage_case(rng: Rng, path: Path) -> str:
    """One compressed NIfTI file."""
    return rewrite(path, rng, partial(damage_gzipped, inside=damage_nifti))


def check_raw(sound: Path, folder: Path, rng: Rng) -> None:
    """Check, plan and preprocess a dataset with a damaged image, label map or dataset.json."""
    raw = folder / "raw/Dataset001_Tiny"
    shutil.copytree(sound / "Dataset001_Tiny", raw)
    path = pick(rng, (raw / "imagesTr/case1_0000.nii.gz", raw / "labelsTr/case1.nii.gz", raw / "dataset.json"))
    said = rewrite(path, rng, damage_json) if path.suffix == ".json" else damage_case(rng, path)
    code, output = call(check.main, "-d", raw, "-np", 1, "--data", folder)
    assert_orderly(code, output, folder, said)
    code_of_plan, output = call(plan_and_preprocess.main, "-d", raw, *PLAN, "--data", folder)
    assert_orderly(code_of_plan, output, folder, said)
    assert (code == 0) == (code_of_plan == 0), f"{said}: {output}"
    cases = list((folder / "preprocessed/Dataset001_Tiny/cases").glob("*.json"))
    assert len(cases) == (4 if code == 0 else 0), f"{said}: {output}"


def predict_images(sound: Path, folder: Path, rng: Rng) -> None:
    """Predict three images of which one is damaged: the two others are predicted where they lie."""
    images, output = folder / "images", folder / "predictions"
    images.mkdir()
    for number in range(3):
        shutil.copy(sound / f"Dataset001_Tiny/imagesTr/case{number}_0000.nii.gz", images)
    said = damage_case(rng, images / "case1_0000.nii.gz")
    code, text = call(predict.main, "-i", images, "-o", output, "-m", sound / "model", "-device", "cpu")
    assert_orderly(code, text, folder, said)
    assert code in (0, 1)
    written = sorted(path.name for path in output.glob("*.nii.gz"))
    assert written == [f"case{number}.nii.gz" for number in ((0, 1, 2) if code == 0 else (0, 2))], f"{said}: {text}"
    for name in written:
        image = read_image([images / name.replace(".nii", "_0000.nii")])
        assert geometry_difference(image, read_label_map(output / name)) is None, said


def predict_series(sound: Path, folder: Path, rng: Rng) -> None:
    """Predict two DICOM series of which one is damaged."""
    images, output = folder / "images", folder / "predictions"
    for name in ("good", "bad"):
        shutil.copytree(sound / "series", images / name)
    said = damage_series(rng, images / "bad")
    code, text = call(predict.main, "-i", images, "-o", output, "-m", sound / "model", "-device", "cpu")
    assert_orderly(code, text, folder, said)
    good = read_image([images / "good"])
    assert geometry_difference(good, read_label_map(output / "good.nii.gz")) is None, said


def predict_with_model(sound: Path, folder: Path, rng: Rng) -> None:
    """Predict with a model of which one document is damaged."""
    images, model = folder / "images", folder / "model"
    images.mkdir()
    shutil.copy(sound / "Dataset001_Tiny/imagesTr/case0_0000.nii.gz", images)
    shutil.copytree(sound / "model", model)
    said = rewrite(pick(rng, sorted(model.rglob("*.json"))), rng, damage_json)
    code, text = call(predict.main, "-i", images, "-o", folder / "out", "-m", model, "-device", "cpu")
    assert_orderly(code, text, folder, said)
    assert (code == 0) == (folder / "out/case0.nii.gz").is_file(), said


WAYS = (check_raw, predict_images, predict_series, predict_with_model)


@pytest.mark.parametrize(("seed", "number"), [(0, 8), pytest.param(1, 100, marks=pytest.mark.slow)])
def test_a_damaged_file_stops_no_other_and_leaves_nothing_half_written(
    sound: Path, tmp_path: Path, seed: int, number: int
):
    for index in range(number):
        folder = tmp_path / str(index)
        folder.mkdir()
        WAYS[index % len(WAYS)](sound, folder, np.random.default_rng([seed, index]))
        shutil.rmtree(folder)
