"""`spadunet_evaluate --protocol chaos` on a tree in the release's layout, against the challenge's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chaos_release import write_release
from moved_labels import write_moved
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from spadunet.cli import convert_chaos, evaluate
from spadunet.errors import InputError
from spadunet.evaluation.protocols.chaos import notes, tables
from spadunet.evaluation.protocols.report import ProtocolReport
from spadunet.evaluation.protocols.runs import ProtocolRun
from spadunet.formats import read_channels, write_array
from spadunet.preprocessing.converters import chaos_submission
from spadunet.preprocessing.converters.chaos_submission import check_export
from spadunet.scores import Scores

ORGANS = ("liver", "right kidney", "left kidney", "spleen")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, volume, organs, run) -> Path:
    """The release, converted, to be read only: four image sets with labels."""
    data = tmp_path_factory.mktemp("data")
    four = np.array([0, *[1] * 4, *[2] * 3, *[3] * 3, *[4] * 3], np.uint8)[organs]
    write_release(data / "CHAOS", volume[0], four)
    assert run(convert_chaos.main, data / "CHAOS", "--data", data) == 0
    return data / "raw/Dataset008_CHAOS"


@pytest.fixture
def predictions(dataset: Path, tmp_path: Path) -> Path:
    """Of the image sets that have labels."""
    write_moved((dataset / "labelsTr").iterdir(), tmp_path / "predictions")
    return tmp_path / "predictions"


def official(prediction: np.ndarray, reference: np.ndarray, spacing_mm: np.ndarray) -> list[float]:
    """Dice, RAVD, ASSD and MSSD, their points and the mean of these, as CHAOS-evaluation computes them.

    A border is the mask without its erosion by a 6-neighbourhood, beyond the image counting as mask.
    """
    points = [np.argwhere(mask ^ binary_erosion(mask, border_value=1)) * spacing_mm for mask in (prediction, reference)]
    there, back = cKDTree(points[1]).query(points[0])[0], cKDTree(points[0]).query(points[1])[0]
    assd, mssd = np.concatenate([there, back]).mean(), max(there.max(), back.max())
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    ravd = 100 * abs(int(prediction.sum()) - int(reference.sum())) / reference.sum()
    scores = [100 * dice * (dice > 0.8)]
    scores += [max(0, 100 * (1 - value / most)) for value, most in ((ravd, 5), (assd, 15), (mssd, 60))]
    return [dice, ravd, assd, mssd, *scores, sum(scores) / 4]


def official_means(predictions: Path, references: Path, ending: str) -> list[float]:
    """Over image sets and organs."""
    found = []
    for path in sorted(predictions.glob(f"*{ending}.nii.gz")):
        (prediction, _), (reference, affine) = (
            read_channels(folder / path.name) for folder in (predictions, references)
        )
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        found += [official(prediction[0] == organ, reference[0] == organ, sides) for organ in (1, 2, 3, 4)]
    assert found
    return np.mean(found, axis=0).tolist()


def test_both_sequences_apart_and_together_have_the_challenges_values_and_points(
    dataset: Path, predictions: Path, run, capsys: pytest.CaptureFixture[str]
):
    references = dataset / "labelsTr"
    assert run(evaluate.main, "-p", predictions, "-r", references, "-np", 1, "--protocol", "chaos") == 0
    report = ProtocolReport.from_json((predictions / "protocol.json").read_text())
    means, points, organs = report.tables
    for name, ending, number in (("T1-DUAL", "t1", 2), ("T2-SPIR", "t2", 2), ("together", "", 4)):
        wanted = official_means(predictions, references, ending)
        (row,) = [row for row in means.rows if row.name == name]
        assert row.values["cases"] == number
        found = [row.values[key] for key in ("dice", "ravd_percent", "assd_mm", "hd_mm", "chaos_score")]
        assert found == pytest.approx([*wanted[:4], wanted[8]])
        (row,) = [row for row in points.rows if row.name == name]
        assert [row.values[key] for key in ("dice", "ravd", "assd", "mssd", "mean")] == pytest.approx(wanted[4:])
    assert tuple(row.name for row in organs.rows) == ORGANS
    together = [row.values["together"] for row in organs.rows]
    assert np.mean(together) == pytest.approx(official_means(predictions, references, "")[8])
    assert [column.key for column in organs.columns] == ["T1-DUAL", "T2-SPIR", "together"]
    shown = capsys.readouterr().out
    assert "published: SPAD-ViT pre-trained (Ours)  0.9209       -     1.54  19.85" in shown
    exported = "submission to CHAOS: 4 label maps exported and read back, voxel for voxel; test cases without one: "
    assert exported + "chaos_11_t1, chaos_11_t2\n" in shown
    assert Scores.from_json((predictions / "scores.json").read_text()).definition == "chaos"


def test_a_missed_organ_has_no_points(dataset: Path, predictions: Path, run):
    path = predictions / "chaos_02_t1.nii.gz"
    array, affine = read_channels(path)
    write_array(path, np.where(array[0] == 4, 0, array[0]), affine)
    command = ("-p", predictions, "-r", dataset / "labelsTr", "-np", 1, "--protocol", "chaos")
    assert run(evaluate.main, *command) == 0
    means, points, organs = ProtocolReport.from_json((predictions / "protocol.json").read_text()).tables
    scores = Scores.from_json((predictions / "scores.json").read_text())
    spleen = [case.classes["spleen"].values["chaos_score"] for case in scores.cases]
    assert min(spleen) == 0
    assert organs.rows[3].values["together"] == pytest.approx(np.mean(spleen))
    assert points.rows[2].values["mean"] == pytest.approx(means.rows[2].values["chaos_score"])
    assert means.rows[2].values["missed"] == 1
    left_out = scores.model_copy(update={"missing": "nan"})
    runs = [(ProtocolRun(predictions=predictions, pairs=[], groups={}), left_out)]
    means, points, organs = tables(runs)
    assert organs.rows[3].values["together"] == pytest.approx(np.mean(sorted(spleen)[1:]))
    assert points.rows[0].values["mean"] == pytest.approx(means.rows[0].values["chaos_score"])
    assert notes(runs)[-1] == "points: Kavur et al. 2021; a missed organ is left out (--missing nan)"


def test_without_any_prediction_there_is_no_submission_to_speak_of(
    dataset: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "none").mkdir()
    command = ("-p", tmp_path / "none", "-r", dataset / "labelsTr", "-np", 1, "--protocol", "chaos")
    assert run(evaluate.main, *command) == 2
    error = capsys.readouterr().err
    assert "none: no prediction for 4 of 4 references" in error
    assert "submission" not in error


def test_what_the_server_would_not_take_is_told_before_scoring(
    dataset: Path, predictions: Path, run, capsys: pytest.CaptureFixture[str]
):
    path = predictions / "chaos_21_t2.nii.gz"
    array, affine = read_channels(path)
    write_array(path, np.pad(array[0], 1), affine)
    (predictions / "chaos_02_t1.nii.gz").write_bytes(b"")
    assert run(evaluate.main, "-p", predictions, "-r", dataset / "labelsTr", "-np", 1, "--protocol", "chaos") == 2
    error = capsys.readouterr().err
    assert f"as a submission to CHAOS: {predictions}/chaos_02_t1.nii.gz: the file is empty" in error
    assert f"{path}: does not lie on the grid of its image" in error
    assert f"{path}: does not lie on the grid of {dataset}/labelsTr/chaos_21_t2.nii.gz" in error
    assert not (predictions / "scores.json").exists()


@pytest.mark.slow
def test_pictures_that_show_something_else_are_found(dataset: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch):
    assert check_export([predictions], dataset) == (4, ["chaos_11_t1", "chaos_11_t2"])
    real = chaos_submission.write_array
    monkeypatch.setattr(
        chaos_submission, "write_array", lambda path, plane, affine: real(path, plane[:, ::-1].copy(), affine)
    )
    with pytest.raises(InputError, match="chaos_02_t1.nii.gz: its pictures do not show it"):
        check_export([predictions], dataset)


def test_names_without_a_sequence_are_told_and_other_places_have_no_submission(
    dataset: Path, predictions: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
):
    elsewhere = tmp_path / "references"
    write_moved((dataset / "labelsTr").iterdir(), elsewhere)
    assert run(evaluate.main, "-p", predictions, "-r", elsewhere, "-np", 1, "--protocol", "chaos") == 0
    assert (
        f"submission to CHAOS: not checked, since {tmp_path}/chaos_slices.json is not there" in capsys.readouterr().out
    )
    (elsewhere / "chaos_02_t1.nii.gz").rename(elsewhere / "patient_2.nii.gz")
    assert run(evaluate.main, "-p", predictions, "-r", elsewhere, "-np", 1, "--protocol", "chaos") == 2
    assert "patient_2: expected names that end in _t1 or _t2" in capsys.readouterr().err
