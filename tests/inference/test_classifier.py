"""`from spadunet import StudyClassifier`: a study's images in, probabilities by class out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from classifier_model import SIDES, write_classifier
from study_folder import AXIAL, write_study_image

from spadunet import StudyClassifier
from spadunet.class_predictions import read_predictions
from spadunet.cli.predict import main
from spadunet.errors import InputError
from spadunet.formats import write_array
from spadunet.image import read_image

GUIDE = Path(__file__).parent.parent.parent / "docs/python.md"
SPACING = (1.5, 1.0, 0.8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Left or right."""
    return write_classifier(tmp_path_factory.mktemp("model") / "model", spacing=(1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def classifier(model: Path) -> StudyClassifier:
    """On the processor."""
    return StudyClassifier(model, device="cpu", precision="float32")


def arrays(number: int) -> list[np.ndarray]:
    """Different ones, (1, 8, 10, 12)."""
    rng = np.random.default_rng(0)
    return [rng.integers(1, 200, (1, 8, 10, 12)).astype(np.uint8) for _ in range(number)]


def test_arrays_and_files_give_what_the_command_gives(classifier: StudyClassifier, model: Path, tmp_path: Path):
    views = arrays(2)
    for name, view in zip("ab", views, strict=True):
        (tmp_path / "images").mkdir(exist_ok=True)
        write_array(tmp_path / f"images/{name}.nii.gz", view[0], AXIAL * np.array([*SPACING, 1]))
    (tmp_path / "images/studies.csv").write_text("image,study\na,s\nb,s\n")
    options = ["-m", model, "-i", tmp_path / "images", "-o", tmp_path / "out", "--device", "cpu"]
    with pytest.raises(SystemExit):
        main([*map(str, options), "--precision", "float32"])
    (expected,) = read_predictions(tmp_path / "out/predictions.csv", SIDES).probabilities
    paths = [tmp_path / f"images/{name}.nii.gz" for name in "ab"]
    for found in (
        classifier.classify(*views, spacing_mm=SPACING),
        classifier.classify_file(*paths),
        classifier.classify_file(*reversed(paths)),
        classifier.classify_images([read_image([path]) for path in paths]),
    ):
        assert list(found) == ["left", "right"]
        assert np.allclose(list(found.values()), expected, atol=1e-5)
    assert classifier.classify_file(paths[0]) != classifier.classify_file(*paths)


def test_the_mean_of_several_models_counts(model: Path, tmp_path: Path):
    other = write_classifier(tmp_path / "other", seed=1, kind="attention", size=(8, 8, 8))
    (array,) = arrays(1)
    answers = [
        StudyClassifier(it, device="cpu").classify(array, spacing_mm=SPACING)["left"]
        for it in (model, other, [model, other])
    ]
    assert answers[2] == pytest.approx((answers[0] + answers[1]) / 2, abs=1e-6)


def test_what_does_not_fit_is_refused_in_one_line(classifier: StudyClassifier, model: Path):
    (array,) = arrays(1)
    with pytest.raises(InputError, match="^no image is given; a study has one view or several$"):
        classifier.classify(spacing_mm=SPACING)
    with pytest.raises(InputError, match=r"^array of shape \(8, 10, 12\) with spacing"):
        classifier.classify(array[0], spacing_mm=SPACING)
    with pytest.raises(InputError, match="^the image has 2 channels, the model 1: grey$"):
        classifier.classify(np.concatenate([array, array]), spacing_mm=SPACING)
    with pytest.raises(InputError, match="^the image "):
        classifier.classify(np.where(array > 9, np.nan, array), spacing_mm=SPACING)
    with pytest.raises(InputError, match="precision 'float16': is none of auto, bf16, float32"):
        StudyClassifier(model, precision="float16")
    with pytest.raises(InputError, match="-d other: the model .* classifies cubes; give one of these"):
        StudyClassifier(model, "other")


def test_the_lines_of_the_guide_run(model: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    code = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)[1]
    (tmp_path / "model").symlink_to(model)
    for name in ("scan_0000", "left", "right"):
        write_study_image(tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(GUIDE), "exec"), {})
    assert "left 0." in capsys.readouterr().out
