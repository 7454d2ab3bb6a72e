"""Models that are shared, as a user types it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from spadunet import __version__
from spadunet.cli import export_model, export_onnx, import_model, predict, train
from spadunet.files import sha256_of_file
from spadunet.image import read_image
from spadunet.inference.predict import build_network
from spadunet.model import check_files, load_model
from spadunet.preprocessing.preprocess import preprocess

HIPPOCAMPUS, HEART = "Dataset004_Hippocampus", "Dataset101_SunnybrookLV"


@pytest.fixture(scope="module")
def shared(joint_model: Path, tmp_path_factory: pytest.TempPathFactory, run) -> Path:
    """The joint model in a file."""
    path = tmp_path_factory.mktemp("shared") / "two_organs.spadunet.zip"
    words = ("--licence", "CC-BY-4.0", "--intended-use", "Teaching | not <patients>.")
    assert run(export_model.main, "-m", joint_model, "-o", path, *words) == 0
    return path


def predicted(run, *words: object, images: Path, output: Path) -> dict[str, str]:
    """SHA-256 of the label maps of a command."""
    assert run(predict.main, "-i", images, "-o", output, "-device", "cpu", *words) == 0
    return {path.name: sha256_of_file(path) for path in output.glob("*.nii.gz")}


@pytest.mark.slow
def test_an_imported_model_is_found_and_predicts_the_same_to_the_bit(
    shared: Path, joint_model: Path, planned: Path, tmp_path: Path, run, caplog: pytest.LogCaptureFixture
):
    elsewhere = tmp_path / "data"
    assert run(import_model.main, shared, "--data", elsewhere) == 0
    folder = elsewhere / "results/imported/two_organs"
    assert f"spadunet_predict -m {folder} -d {HIPPOCAMPUS}" in caplog.text
    assert sha256_of_file(shared) in caplog.text
    assert check_files(folder).tasks == (HIPPOCAMPUS, HEART)
    images = planned / "raw" / HEART / "imagesTr"
    first = predicted(run, "-m", joint_model, "-d", HEART, images=images, output=tmp_path / "first")
    second = predicted(run, "-d", "SunnybrookLV", "--data", elsewhere, images=images, output=tmp_path / "second")
    assert first == second != {}


@pytest.mark.slow
def test_an_imported_model_can_be_started_from(shared: Path, planned: Path, tmp_path: Path, run, quick, caplog):
    assert run(import_model.main, shared, "-o", tmp_path / "model") == 0
    words = ("-d", 4, "-f", "all", "--max-steps", 1, "--init", tmp_path / "model", "-o", tmp_path / "run", *quick)
    assert run(train.main, *words, "--data", planned) == 0
    assert "100.0 % loaded" in caplog.text


def test_the_card_tells_of_data_use_and_licence_and_names_no_case(shared: Path, planned: Path):
    with zipfile.ZipFile(shared) as archive:
        card = archive.read("MODEL_CARD.md").decode()
        manifest = json.loads(archive.read("manifest.json"))
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert manifest["spadunet"] == __version__
    assert card.startswith("# two_organs\n")
    for text in (
        "## Licence\n\nCC-BY-4.0\n",
        "Teaching \\| not &lt;patients>.",
        "| training cases | 6 |",
        "| training cases | 5 |",
        "MRI (percentiles 0.5 to 99.5)",
        "8×1.25×1.25 mm (depth, height, width)",
        "`spad_unet`, preset `tiny`",
        "| steps | 3 |",
        "None came with the model",
    ):
        assert text in card
    secrets = [path.name.removesuffix("_0000.nii.gz") for path in planned.glob("raw/*/imagesTr/*")]
    assert len(secrets) > 5
    for secret in (*secrets, str(planned), str(Path.home())):
        assert secret.encode() not in content


@pytest.mark.slow
def test_the_card_has_the_scores_of_held_out_cases(planned: Path, tmp_path: Path, run, quick):
    words = ("-d", 4, "-f", 0, "--max-steps", 1, "-o", tmp_path / "run", *quick, "--data", planned)
    assert run(train.main, *words) == 0
    assert run(export_model.main, "-m", tmp_path / "run", "-o", tmp_path / "model.zip") == 0
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        card = archive.read("MODEL_CARD.md").decode()
    scores = json.loads((tmp_path / "run/validation" / HIPPOCAMPUS / "scores.json").read_text())
    assert f"Means over {len(scores['cases'])} held-out cases." in card
    rows = [line for line in card.splitlines() if line.startswith(("| Anterior |", "| Posterior |", "| mean |"))]
    assert len(rows) == 3
    dices = [case["classes"]["Anterior"]["values"]["dice"] for case in scores["cases"]]
    assert rows[0].startswith(f"| Anterior | {len(dices)} | {sum(dices) / len(dices):.3f} |")
    assert "Not stated. Ask who made the model" in card
    assert not any(case["case"] in card for case in scores["cases"])


def test_a_card_of_ones_own_is_kept_on_the_way(joint_model: Path, tmp_path: Path, run, capsys):
    (tmp_path / "card.md").write_text("# Mine: für dich\n", encoding="utf-8")
    assert run(export_model.main, "-m", joint_model, "-o", tmp_path / "a.zip", "--card", tmp_path / "card.md") == 0
    assert run(import_model.main, tmp_path / "a.zip", "-o", tmp_path / "model") == 0
    assert (tmp_path / "model/MODEL_CARD.md").read_text(encoding="utf-8") == "# Mine: für dich\n"
    assert run(export_model.main, "-m", tmp_path / "model", "-o", tmp_path / "b.zip") == 0
    assert sha256_of_file(tmp_path / "a.zip") == sha256_of_file(tmp_path / "b.zip")
    capsys.readouterr()
    assert run(export_model.main, "-m", tmp_path / "model", "-o", tmp_path / "c.zip", "--licence", "MIT") == 2
    assert "--licence MIT: the card" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--licence", "do what; you want"), "is no SPDX expression, such as CC-BY-4.0"),
        (("--card", "none.md"), "--card none.md: cannot be read as text in UTF-8"),
    ],
)
def test_wrong_words_are_told(joint_model: Path, tmp_path: Path, run, capsys, words, message: str):
    assert run(export_model.main, "-m", joint_model, "-o", tmp_path / "a.zip", *words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_file_is_one_line_and_exit_code_2(shared: Path, tmp_path: Path, run, capsys):
    content = bytearray(shared.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "spoilt.zip").write_bytes(content)
    assert run(import_model.main, tmp_path / "spoilt.zip", "--data", tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "refused: backbone.safetensors does not have the size and SHA-256" in error
    assert not (tmp_path / "data").exists()
    (tmp_path / "...zip").write_bytes(content)
    assert run(import_model.main, tmp_path / "...zip", "--data", tmp_path / "data") == 2
    assert "its name is none for a folder; give one with -o" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_network_as_onnx_gives_its_logits_of_a_real_image(
    joint_model: Path, planned: Path, tmp_path: Path, run, caplog
):
    words = ("-m", joint_model, "-d", "Hippocampus", "-o", tmp_path / "a.onnx")
    assert run(export_onnx.main, *words) == 0
    assert "task Dataset004_Hippocampus at a degree of anisotropy of 0" in caplog.text
    assert "onnxruntime's logits differ from torch's by at most" in caplog.text
    model = load_model(joint_model)
    plan = model.tasks[HIPPOCAMPUS].plan
    path = next(iter(sorted((planned / "raw" / HIPPOCAMPUS / "imagesTr").iterdir())))
    image = preprocess("case", read_image([path]), None, plan).image
    padding = [(0, max(wanted - size, 0)) for size, wanted in zip(image.shape[1:], plan.patch_size_voxels, strict=True)]
    depth, height, width = plan.patch_size_voxels
    patch = np.pad(image, [(0, 0), *padding], constant_values=-1)[None, :, :depth, :height, :width]
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": patch})
    with torch.no_grad():
        expected = build_network(model, HIPPOCAMPUS)(torch.from_numpy(patch), 0).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "a.zip", "-d", 4), "-o a.zip: an ONNX file ends with .onnx; name it a.onnx"),
        (("-o", "a.onnx"), "the model serves several datasets"),
        (("-o", "a.onnx", "-d", "Liver"), "-d Liver: the model"),
        (("-o", Path(__file__) / "a.onnx", "-d", 4), "cannot be written: a file of that name is in the way"),
        (("-o", "a.onnx", "-d", 4, "--da", 7), "argument --da: invalid choice: 7"),
    ],
)
def test_wrong_words_of_the_onnx_command_are_told(joint_model: Path, run, capsys, words, message: str):
    assert run(export_onnx.main, "-m", joint_model, *words) == 2
    assert message in capsys.readouterr().err
