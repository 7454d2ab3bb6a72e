"""Scores of label maps in memory and of folders of files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from peak_memory import peak_bytes

import spadunet
from spadunet.errors import InputError, OutputError
from spadunet.evaluation import evaluate
from spadunet.evaluation.checks import memory_to_score
from spadunet.evaluation.evaluate import evaluate_case, evaluate_folders, evaluate_pair
from spadunet.evaluation.label_names import annotated_in
from spadunet.evaluation.pairs import Pair
from spadunet.evaluation.scoring import Scoring, gather_scores
from spadunet.evaluation.tables import csv_text, table_text
from spadunet.formats import write_array
from spadunet.image import LabelMap, read_label_map, write_label_map
from spadunet.labels import LabelSet, Region
from spadunet.scores import NOT_ANNOTATED, Scores
from spadunet.workers import Workers

DEMO_LABELS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/labelsTs"
LABELS = LabelSet(names=("background", "liver", "spleen"), ids=(0, 1, 6))
HIPPOCAMPUS = LabelSet(names=("background", "Anterior", "Posterior"), ids=(0, 1, 2))


def label_map(*lines: list[int], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> LabelMap:
    """A label map of one slice a line, each a single row of voxels."""
    return LabelMap(array=np.array(lines, np.uint8)[:, None], affine=np.diag([*spacing_mm, 1.0]))


def two_folders(tmp_path: Path, num_cases: int = 2) -> tuple[Path, Path]:
    """Demo references, and as predictions the same shifted by a voxel."""
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    references.mkdir()
    for path in sorted(DEMO_LABELS.glob("*.nii.gz"))[:num_cases]:
        shutil.copy(path, references)
        reference = read_label_map(path)
        shifted = LabelMap(array=np.roll(reference.array, 1, axis=1), affine=reference.affine)
        write_label_map(predictions / path.name, shifted)
    return predictions, references


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_labels_stored_as_floats_fit_into_the_estimate(tmp_path: Path):
    array = np.zeros((64, 320, 320), np.float32)
    array[20:40, 100:200, 100:200] = 1
    for name in ("prediction", "reference"):
        write_array(tmp_path / f"{name}.nii", array, np.eye(4))
    pair = Pair(name="a", prediction=tmp_path / "prediction.nii", reference=tmp_path / "reference.nii")
    assert memory_to_score(pair) == 10 * 2 * array.size
    evaluate_pair(two_voxels(tmp_path), LABELS)  # what is imported and made once
    assert peak_bytes(lambda: evaluate_pair(pair, LABELS)) < 0.6 * memory_to_score(pair)


def two_voxels(tmp_path: Path) -> Pair:
    """The smallest of pairs."""
    path = tmp_path / "small.nii"
    write_label_map(path, label_map([1, 0]))
    return Pair(name="small", prediction=path, reference=path)


# --- one case


def test_each_class_is_scored_by_its_id_and_in_millimetres():
    spacing_mm = (5.0, 1.0, 2.0)
    reference = label_map([1, 1, 0, 0], [6, 0, 0, 0], spacing_mm=spacing_mm)
    prediction = label_map([0, 1, 1, 0], [6, 0, 0, 0], spacing_mm=spacing_mm)
    classes = evaluate_case("a", prediction, reference, LABELS).classes
    assert list(classes) == ["liver", "spleen"]
    assert classes["liver"].dice == 0.5
    assert classes["liver"].hd_mm == 2.0  # one voxel of 2 mm
    assert classes["liver"].assd_mm == 1.0  # distances 0 and 2 in both directions
    assert (classes["liver"].num_prediction_voxels, classes["liver"].num_reference_voxels) == (2, 2)
    assert (classes["spleen"].dice, classes["spleen"].hd_mm) == (1.0, 0.0)


def test_absent_missed_and_false_alarm_classes():
    nothing, liver = label_map([0, 0], [0, 0]), label_map([1, 0], [0, 0])
    missed = evaluate_case("a", nothing, liver, LABELS).classes
    assert missed["liver"].is_missed
    assert (missed["liver"].dice, missed["liver"].hd_mm) == (0.0, None)
    assert (missed["spleen"].dice, missed["spleen"].num_reference_voxels) == (None, 0)
    assert evaluate_case("a", liver, nothing, LABELS).classes["liver"].is_false_alarm


def test_class_by_class_scores_equal_whole_volume_masks():
    """Classes are looked for in boxes only; the boxes must lose nothing."""
    from spadunet.evaluation.scoring import score_class

    rng = np.random.default_rng(0)
    prediction, reference = (
        LabelMap(array=rng.choice([0, 1, 6], (5, 6, 7), p=[0.9, 0.05, 0.05]), affine=np.eye(4)) for _ in range(2)
    )
    for name, id_ in (("liver", 1), ("spleen", 6)):
        score = evaluate_case("a", prediction, reference, LABELS).classes[name]
        whole = score_class(prediction.array == id_, reference.array == id_, (1.0, 1.0, 1.0))
        assert score.values == pytest.approx(whole.values)
        assert score.model_copy(update={"values": {}}) == whole.model_copy(update={"values": {}})


def test_one_slice_is_scored_in_its_plane():
    square = np.zeros((1, 9, 9), np.uint8)
    square[0, 1:8, 1:8] = 1
    inner = np.zeros_like(square)
    inner[0, 3:6, 3:6] = 1
    affine = np.diag([9.0, 1.0, 1.0, 1.0])
    score = evaluate_case("a", LabelMap(array=inner, affine=affine), LabelMap(array=square, affine=affine), LABELS)
    assert score.classes["liver"].hd_mm == pytest.approx(np.sqrt(8))


def test_another_shape_is_refused():
    with pytest.raises(InputError, match=r"^a: prediction and reference lie on different grids: shape 2×1×1"):
        evaluate_case("a", label_map([1, 0]), label_map([1, 0, 0]), LABELS)


def test_another_place_in_the_patient_is_refused():
    moved = LabelMap(array=label_map([1, 0]).array, affine=np.diag([1.0, 1.0, 3.0, 1.0]))
    with pytest.raises(InputError, match=r"a: .* corners lie up to 2 mm apart"):
        evaluate_case("a", moved, label_map([1, 0]), LABELS)


def test_values_that_are_no_labels_are_listed():
    message = r"a: the prediction holds the values \[2, 7\], but the labels are \[0, 1, 6\]"
    with pytest.raises(InputError, match=message):
        evaluate_case("a", label_map([7, 2]), label_map([1, 0]), LABELS)
    with pytest.raises(InputError, match=r"a: the reference holds the values \[2\]"):
        evaluate_case("a", label_map([1, 0]), label_map([2, 0]), LABELS)


def test_regions_are_scored_by_name_as_the_union_of_their_ids():
    regions = (Region(name="both", ids=(1, 6), painted_id=1), Region(name="spleen", ids=(6,), painted_id=6))
    labels = LABELS.model_copy(update={"regions": regions})
    reference, prediction = label_map([1, 6, 0, 0, 0, 1]), label_map([6, 6, 1, 0, 0, 0])
    classes = evaluate_case("a", prediction, reference, labels).classes
    assert list(classes) == ["both", "spleen"]
    assert classes["both"].dice == pytest.approx(2 * 2 / (3 + 3))
    assert classes["both"].hd_mm == 3.0  # from the last voxel to the third
    assert classes["spleen"].dice == pytest.approx(2 * 1 / (2 + 1))
    nothing = evaluate_case("a", label_map([0, 0]), label_map([0, 0]), labels).classes["both"]
    assert (nothing.dice, nothing.num_reference_voxels) == (None, 0)


@pytest.mark.parametrize("has_regions", [False, True])
def test_voxels_that_the_reference_ignores_count_for_neither(has_regions: bool):
    region = Region(name="liver", ids=(1, 6), painted_id=1)
    labels = LABELS.model_copy(update={"ignore_id": 4, "regions": (region,) if has_regions else ()})
    reference, prediction = label_map([1, 4, 4, 0, 4]), label_map([1, 1, 6, 0, 1])
    liver = evaluate_case("a", prediction, reference, labels).classes["liver"]
    assert (liver.dice, liver.hd_mm) == (1.0, 0.0)
    assert (liver.num_prediction_voxels, liver.num_reference_voxels) == (1, 1)
    wholly = evaluate_case("a", label_map([1, 6]), label_map([4, 4]), labels).classes["liver"]
    assert (wholly.dice, wholly.num_prediction_voxels) == (None, 0)
    extent = evaluate_case("a", prediction, reference, labels).extent
    assert extent is not None
    assert (extent.num_voxels, extent.shape_voxels) == (2, (1, 1, 5))


# --- two folders


def test_folders_are_scored_alike_by_one_process_and_by_two(tmp_path: Path):
    predictions, references = two_folders(tmp_path)
    alone = evaluate_folders(predictions, references, HIPPOCAMPUS)
    assert evaluate_folders(predictions, references, HIPPOCAMPUS, workers=Workers(num_processes=2)) == alone
    assert [case.case for case in alone.cases] == ["hippocampus_014", "hippocampus_038"]
    assert {score.hd_mm for case in alone.cases for score in case.classes.values()} == {1.0}


def test_references_against_themselves_are_perfect():
    scores = evaluate_folders(DEMO_LABELS, DEMO_LABELS, HIPPOCAMPUS)
    assert (len(scores.cases), scores.mean("dice"), scores.mean("hd_mm")) == (10, 1.0, 0.0)


def test_a_case_that_runs_out_of_memory_is_named_and_the_others_are_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    predictions, references = two_folders(tmp_path)
    real = evaluate.evaluate_case

    def short_of_memory(case: str, *arguments, **options):
        if case == "hippocampus_014":
            raise MemoryError
        return real(case, *arguments, **options)

    monkeypatch.setattr(evaluate, "evaluate_case", short_of_memory)
    scores = evaluate_folders(predictions, references, HIPPOCAMPUS)
    assert ([case.case for case in scores.cases], scores.failed) == (["hippocampus_038"], ("hippocampus_014",))
    assert "hippocampus_014: out of memory" in caplog.text
    for path in predictions.glob("*038*"):
        path.unlink()
        (references / path.name).unlink()
    with pytest.raises(OutputError, match="none of 1 cases could be scored"):
        evaluate_folders(predictions, references, HIPPOCAMPUS)


def test_missing_predictions_count_as_missed_in_every_class_and_are_named_only_if_allowed(tmp_path: Path):
    predictions, references = two_folders(tmp_path)
    os.remove(predictions / "hippocampus_038.nii.gz")
    with pytest.raises(InputError, match="no prediction for 1 of 2 references: hippocampus_038"):
        evaluate_folders(predictions, references, HIPPOCAMPUS)
    scores = evaluate_folders(predictions, references, HIPPOCAMPUS, allow_missing=True)
    assert [case.case for case in scores.cases] == ["hippocampus_014", "hippocampus_038"]
    assert scores.not_predicted == ("hippocampus_038",)
    there, missing = (scores.cases[number].classes["Anterior"] for number in (0, 1))
    assert missing.is_missed
    reference = read_label_map(references / "hippocampus_038.nii.gz")
    assert missing.num_reference_voxels == np.count_nonzero(reference.array == 1)
    summary = scores.summary()["Anterior"]
    assert (summary.num_valid, summary.num_missed) == (1, 1)
    diagonal_mm = np.linalg.norm(np.array(reference.shape) * reference.spacing_mm)
    assert summary.hd_mm == pytest.approx(((there.hd_mm or 0) + diagonal_mm) / 2)
    assert summary.dice == pytest.approx((there.dice or 0) / 2)


def test_a_reference_that_cannot_be_read_is_told_without_a_prediction_too(tmp_path: Path):
    predictions, references = two_folders(tmp_path)
    os.remove(predictions / "hippocampus_038.nii.gz")
    (references / "hippocampus_038.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="references/hippocampus_038.nii.gz: the file is empty"):
        evaluate_folders(predictions, references, HIPPOCAMPUS, allow_missing=True)


def test_metrics_are_those_asked_for_by_every_process(tmp_path: Path):
    predictions, references = two_folders(tmp_path)
    scoring = Scoring(metrics=("iou", "hd95_voxels", "volume_ml"), missing="nan")
    scores = evaluate_folders(predictions, references, HIPPOCAMPUS, workers=Workers(num_processes=2), scoring=scoring)
    assert (scores.metrics, scores.missing, scores.unit) == (scoring.metrics, "nan", "voxels")
    assert set(scores.definitions) == {*scoring.metrics, "missing", "mean"}
    assert all(set(score.values) == set(scoring.metrics) for case in scores.cases for score in case.classes.values())
    assert scores.mean("hd95_voxels") == 1.0


# --- references that tell of some classes only


def test_a_class_that_was_not_annotated_is_not_scored_and_neither_missed_nor_a_false_alarm():
    reference, prediction = label_map([1, 1, 0, 0]), label_map([1, 1, 6, 6])
    case = evaluate_case("a", prediction, reference, LABELS, annotated=("liver",))
    assert case.classes["liver"].dice == 1
    spleen = case.classes["spleen"]
    assert spleen == NOT_ANNOTATED
    assert not spleen.is_missed
    assert not spleen.is_false_alarm
    whole = evaluate_case("b", label_map([1, 6, 6, 6]), label_map([1, 6, 6, 0]), LABELS)
    scores = gather_scores((case, whole))
    summary = scores.summary()
    assert (summary["liver"].num_cases, summary["spleen"].num_cases) == (2, 1)
    assert summary["spleen"].dice == 0.8
    assert (summary["spleen"].num_missed, summary["spleen"].num_false_alarms) == (0, 0)
    assert Scores.from_json(scores.to_json()) == scores
    assert "a,spleen,,,,,,,not annotated,default,worst" in csv_text(scores).splitlines()
    assert "leave out" not in table_text(scores)


def test_folders_are_scored_as_the_dataset_says(tmp_path: Path):
    predictions, references = two_folders(tmp_path)
    first, second = (path.name.removesuffix(".nii.gz") for path in sorted(references.iterdir()))
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
        "labelled_classes": {first: ["Posterior"]},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    annotated = annotated_in(references)
    assert annotated == {first: ("Posterior",)}
    scores = evaluate_folders(predictions, references, HIPPOCAMPUS, annotated=annotated)
    there = {case.case: [name for name, score in case.classes.items() if score.is_annotated] for case in scores.cases}
    assert there == {first: ["Posterior"], second: ["Anterior", "Posterior"]}
    labels = tmp_path / "labels.json"
    labels.write_text(HIPPOCAMPUS.to_json())
    assert annotated_in(references, labels) == {}
