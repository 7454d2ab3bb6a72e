"""summary.json: nnU-Net's keys and its arithmetic, written out here as in its evaluate_predictions.py (v2.8)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import spadunet
from spadunet.description import DatasetDescription
from spadunet.evaluation.evaluate import evaluate_case
from spadunet.evaluation.scoring import Scoring, gather_scores
from spadunet.evaluation.summary_json import summary_json
from spadunet.image import LabelMap, read_label_map
from spadunet.labels import LabelSet, Region
from spadunet.scores import CaseScore, ClassScore, Scores

DEMO_LABELS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/labelsTs"
LABELS = LabelSet(names=("background", "liver", "gall bladder, cyst"), ids=(0, 1, 2))
NNUNET_KEYS = {"Dice", "IoU", "TP", "FP", "FN", "TN", "n_pred", "n_ref"}


def nnunet_metrics(reference: np.ndarray, prediction: np.ndarray, ignored: np.ndarray | None) -> dict[str, float]:
    """Of one class: counts where nothing is ignored, and NaN where a ratio has nothing to divide by."""
    use = np.ones_like(reference) if ignored is None else ~ignored
    tp = np.sum((reference & prediction) & use)
    fp = np.sum(((~reference) & prediction) & use)
    fn = np.sum((reference & (~prediction)) & use)
    tn = np.sum(((~reference) & (~prediction)) & use)
    is_empty = tp + fp + fn == 0
    return {
        "Dice": np.nan if is_empty else 2 * tp / (2 * tp + fp + fn),
        "IoU": np.nan if is_empty else tp / (tp + fp + fn),
        "FP": fp,
        "TP": tp,
        "FN": fn,
        "TN": tn,
        "n_pred": fp + tp,
        "n_ref": fn + tp,
    }


def nnunet_summary(pairs: list[tuple[np.ndarray, np.ndarray]], ids: list[int], ignore: int | None) -> dict[str, object]:
    """Per case, its nanmean over cases by class, and the nanmean of those over classes."""
    cases = [
        {
            id_: nnunet_metrics(reference == id_, prediction == id_, None if ignore is None else reference == ignore)
            for id_ in ids
        }
        for prediction, reference in pairs
    ]
    keys = list(cases[0][ids[0]])
    means = {id_: {key: np.nanmean([case[id_][key] for case in cases]) for key in keys} for id_ in ids}
    foreground = {key: np.mean([means[id_][key] for id_ in ids]) for key in keys}
    return {"cases": cases, "mean": means, "foreground_mean": foreground}


def random_pairs(ignore: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Prediction and reference: random, a class missed, a false alarm, neither, 2D, identical, disjoint, one voxel."""
    rng = np.random.default_rng(0)
    values = [0, 1, 2] if ignore is None else [0, 1, 2, ignore]
    for shape in ((6, 7, 8), (1, 9, 8)):
        prediction, reference = rng.integers(0, 3, shape), rng.choice(values, shape)
        yield prediction, reference
        yield np.where(prediction == 1, 0, prediction), reference
        yield prediction, np.where(reference == 2, 0, reference)
        yield np.where(prediction == 2, 0, prediction), np.where(reference == 2, 0, reference)
        yield np.where(reference == ignore, 0, reference), reference
        yield np.where(reference == 1, 2, 1), reference
        voxel = np.zeros(shape, int)
        voxel[0, 1, 1] = 1
        yield voxel, reference


def real_pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Hippocampi against themselves shifted by a voxel."""
    for path in sorted(DEMO_LABELS.glob("*.nii.gz"))[:4]:
        reference = read_label_map(path).array
        yield np.roll(reference, 1, axis=1), reference


@pytest.mark.parametrize(
    ("pairs", "ignore"),
    [(list(random_pairs(None)), None), (list(random_pairs(7)), 7), (list(real_pairs()), None)],
    ids=["random", "ignored", "real"],
)
def test_nnunets_numbers_to_the_last_digit(pairs: list[tuple[np.ndarray, np.ndarray]], ignore: int | None):
    labels = LABELS.model_copy(update={"ignore_id": ignore})
    cases = [
        evaluate_case(f"{number:02}", *(LabelMap(array=it, affine=np.eye(4)) for it in pair), labels)
        for number, pair in enumerate(pairs)
    ]
    found = json.loads(summary_json(gather_scores(cases), labels))
    expected = nnunet_summary(pairs, [1, 2], ignore)
    for case, metrics in zip(found["metric_per_case"], expected["cases"], strict=True):
        for id_, values in metrics.items():
            own = case["metrics"][str(id_)]
            assert {key: np.nan if own[key] is None else own[key] for key in NNUNET_KEYS} == pytest.approx(
                values, rel=0, abs=0, nan_ok=True
            )
    for id_, values in expected["mean"].items():
        assert {key: found["mean"][str(id_)][key] for key in NNUNET_KEYS} == pytest.approx(values, rel=1e-15)
    foreground = {key: found["foreground_mean"][key] for key in NNUNET_KEYS}
    assert foreground == pytest.approx(expected["foreground_mean"], rel=1e-15)


def test_a_class_that_is_nowhere_has_no_mean_and_takes_nnunets_foreground_mean_with_it():
    reference = np.zeros((3, 4, 5), int)
    reference[1, 1:3, 1:4] = 1
    prediction = np.roll(reference, 1, axis=2)
    case = evaluate_case("a", *(LabelMap(array=it, affine=np.eye(4)) for it in (prediction, reference)), LABELS)
    found = json.loads(summary_json(gather_scores([case]), LABELS))
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):
        expected = nnunet_summary([(prediction, reference)], [1, 2], None)
    assert np.isnan(expected["mean"][2]["Dice"])
    assert np.isnan(expected["foreground_mean"]["Dice"])
    assert found["mean"]["2"]["Dice"] is None
    assert found["foreground_mean"]["Dice"] == found["mean"]["1"]["Dice"] == expected["mean"][1]["Dice"]


def scores_of(*cases: dict[str, ClassScore]) -> Scores:
    """Cases a, b, … of 3 x 4 x 12 voxels of 1 mm, scored by Dice and HD95."""
    extent = {"shape_voxels": (3, 4, 12), "spacing_mm": (1.0, 1.0, 1.0)}
    found = [
        CaseScore.model_validate({"case": name, "classes": classes, **extent})
        for name, classes in zip("ab", cases, strict=False)
    ]
    return gather_scores(found, Scoring(metrics=("dice", "hd95_mm", "nsd_2mm", "ravd_percent")))


def score_of(counts: tuple[int, int, int], dice: float | None, *others: float | None) -> ClassScore:
    """Of a class with so many voxels in the prediction, the reference and both."""
    return ClassScore(
        values=dict(zip(("dice", "hd95_mm", "nsd_2mm", "ravd_percent"), (dice, *others), strict=True)),
        num_prediction_voxels=counts[0],
        num_reference_voxels=counts[1],
        num_common_voxels=counts[2],
    )


GOOD = score_of((3, 5, 3), 0.75, 12.5, 0.5, 40.0)
MISSED = score_of((0, 5, 0), 0.0, None, None, 100.0)
ABSENT = score_of((0, 0, 0), None, None, None, None)
SCORES = scores_of({"liver": GOOD, "gall bladder, cyst": MISSED}, {"liver": GOOD, "gall bladder, cyst": ABSENT})


def test_other_metrics_are_called_in_nnunets_manner_and_means_follow_the_policy():
    summary = json.loads(summary_json(SCORES, LABELS))
    case = summary["metric_per_case"][0]
    assert case["case"] == "a"
    assert case["metrics"]["1"] == {
        "Dice": 0.75,
        "IoU": 0.6,
        "HD95_mm": 12.5,
        "NSD_2mm": 0.5,
        "ravd_percent": 40.0,
        "TP": 3,
        "FP": 0,
        "FN": 2,
        "TN": 139,
        "n_pred": 3,
        "n_ref": 5,
    }
    assert case["metrics"]["2"]["HD95_mm"] is None  # as the metric defines it
    missed = summary["mean"]["2"]
    assert (missed["Dice"], missed["IoU"], missed["HD95_mm"], missed["NSD_2mm"]) == (0, 0, 13, 0)  # diagonal 13 mm
    assert missed["ravd_percent"] == 100 * (144 - 5) / 5
    assert summary["foreground_mean"]["HD95_mm"] == (12.5 + 13) / 2


def test_beside_the_means_stand_the_counts_and_what_they_mean():
    summary = json.loads(summary_json(SCORES, LABELS))
    counts = ("num_cases", "num_valid", "num_missed", "num_false_alarms")
    assert [summary["mean"]["1"][count] for count in counts] == [2, 2, 0, 0]
    assert [summary["mean"]["2"][count] for count in counts] == [2, 0, 1, 0]
    assert summary["mean"]["2"]["num_counted"]["HD95_mm"] == 1
    assert (summary["definition"], summary["missing"]) == ("default", "worst")
    assert summary["definitions"] == SCORES.definitions
    assert set(summary["definitions"]) == {*SCORES.metrics, "missing", "mean"}


def test_regions_are_named_by_all_their_ids():
    regions = (
        Region(name="liver", ids=(1, 2), painted_id=1),
        Region(name="gall bladder, cyst", ids=(2,), painted_id=2),
    )
    summary = json.loads(summary_json(SCORES, LABELS.model_copy(update={"regions": regions})))
    assert summary["labels"] == {"(1, 2)": "liver", "2": "gall bladder, cyst"}
    assert summary["mean"]["(1, 2)"]["Dice"] == 0.75


@pytest.mark.parametrize(("enhancing", "key"), [([3], "(3,)"), (3, "3")])
def test_a_region_of_one_id_is_named_as_nnunet_names_it(enhancing: object, key: str):
    """Its BraTS datasets have the list; str(tuple(ids)) of a list, str(id) of a number."""
    description = DatasetDescription.model_validate(
        {
            "channel_names": {"0": "MR"},
            "labels": {"background": 0, "whole tumor": [1, 2, 3], "enhancing tumor": enhancing},
            "regions_class_order": [1, 3],
            "numTraining": 1,
            "file_ending": ".nii.gz",
        }
    )
    labels = LabelSet.from_json(description.label_set().to_json())  # as labels.json keeps it
    scores = scores_of({"whole tumor": GOOD, "enhancing tumor": MISSED})
    summary = json.loads(summary_json(scores, labels))
    assert list(summary["mean"]) == list(summary["metric_per_case"][0]["metrics"]) == ["(1, 2, 3)", key]


def test_no_cases_have_no_means():
    summary = json.loads(summary_json(Scores(cases=()), LABELS))
    assert summary["mean"] == {}
    assert set(summary["foreground_mean"].values()) == {None}
