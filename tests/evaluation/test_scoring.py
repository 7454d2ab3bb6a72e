"""All metrics of a class together, what is said of them, and what missing a class does to their means."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from spadunet.evaluation.definitions import DEFINITIONS
from spadunet.evaluation.scoring import SENTENCES, Scoring, gather_scores, score_class
from spadunet.metrics import FIXED, LESION_METRICS, metric_of
from spadunet.missing import POLICIES
from spadunet.scores import CaseScore, ClassScore

SURFACE = ("assd_mm", "masd_mm", "hd_mm", "hd95_mm", "nsd_2mm", "assd_voxels", "hd95_voxels", "nsd_1voxels")
HAS_PANOPTICA = importlib.util.find_spec("panoptica") is not None
METRICS = tuple(name for name in (*FIXED, *SURFACE) if HAS_PANOPTICA or name not in LESION_METRICS)
SHAPE, SPACING_MM = (6, 8, 9), (3.0, 1.0, 0.5)


def score_of(prediction: np.ndarray, reference: np.ndarray, scoring: Scoring) -> ClassScore:
    """Of masks on the grid of this file."""
    return score_class(prediction, reference, SPACING_MM, scoring)


def case_of(name: str, score: ClassScore) -> CaseScore:
    """A case with one class."""
    return CaseScore(case=name, classes={"organ": score}, shape_voxels=SHAPE, spacing_mm=SPACING_MM)


def box(*sides: tuple[int, int]) -> np.ndarray:
    """A mask of a box."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def test_every_metric_has_a_value_in_its_unit():
    reference, prediction = box((1, 4), (2, 6), (2, 7)), box((2, 5), (2, 6), (2, 7))  # moved by a slice of 3 mm
    values = score_of(prediction, reference, Scoring(metrics=METRICS, definition="chaos")).values
    assert list(values) == list(METRICS)
    expected = {
        "dice": 2 / 3,
        "iou": 1 / 2,
        "sensitivity": 2 / 3,
        "precision": 2 / 3,
        "ravd_percent": 0,
        "volume_ml": 60 * 1.5 / 1000,
        "reference_volume_ml": 60 * 1.5 / 1000,
        "chaos_score": (0 + 100 + 100 * (1 - (values["assd_mm"] or 0) / 15) + 100 * (1 - 3 / 60)) / 4,
        "hd_mm": 3.0,
        "hd95_voxels": 1.0,
        "nsd_1voxels": 1.0,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert 0 < (values["nsd_2mm"] or 0) < 1


def test_every_metric_and_the_policy_are_told_in_a_sentence_each():
    assert set(SENTENCES) == set(FIXED)
    for policy in POLICIES:
        told = Scoring(metrics=(*FIXED, *SURFACE), definition="chaos", missing=policy).sentences()
        assert list(told) == [*FIXED, *SURFACE, "missing", "mean"]
        assert all(len(sentence) > 30 for sentence in told.values())
        assert POLICIES[policy] in told["missing"]
    assert all(word in told["hd95_mm"] for word in ("border", "percentile", "mm"))


# --- missing a class


def masks_to_predict(rng: np.random.Generator) -> list[np.ndarray]:
    """Predictions from very good to as bad as can be: one far voxel, the whole image."""
    far = box((5, 6), (7, 8), (8, 9))
    return [*(rng.random((4, *SHAPE)) < rng.random((4, 1, 1, 1))), far, np.ones(SHAPE, bool)]


REFERENCES = [
    box((0, 1), (0, 1), (0, 1)),
    box((1, 4), (2, 6), (2, 7)),
    box((0, 6), (0, 8), (0, 8)),
    box((2, 3), (1, 7), (4, 5)),
]


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_by_default_missing_a_class_improves_no_mean_of_any_metric(definition: str):
    rng = np.random.default_rng(0)
    metrics = [name for name in METRICS if name != "chaos_score" or definition == "chaos"]
    scoring = Scoring(metrics=tuple(metrics), definition=definition)
    assert scoring.missing == "worst"
    nothing = np.zeros(SHAPE, bool)
    other = case_of("other", score_of(box((1, 4), (2, 6), (2, 7)), box((1, 4), (2, 6), (3, 7)), scoring))
    num_compared = 0
    for reference in REFERENCES:
        missed = gather_scores([other, case_of("a", score_of(nothing, reference, scoring))], scoring)
        for prediction in masks_to_predict(rng):
            if not prediction.any():
                continue
            found = gather_scores([other, case_of("a", score_of(prediction, reference, scoring))], scoring)
            for metric in metrics:
                better = metric_of(metric).is_higher_better
                if better is None:
                    continue
                worse, value = missed.mean(metric), found.mean(metric)
                assert worse is not None
                assert value is not None
                assert worse <= value + 1e-9 if better else worse >= value - 1e-9, metric
                assert missed.summary()["organ"].num_counted[metric] == 2
                assert found.summary()["organ"].num_counted[metric] == 2
                num_compared += 1
    assert num_compared > 300


@pytest.mark.parametrize("metric", [name for name in METRICS if metric_of(name).kind != "volume"])
def test_by_default_a_false_alarm_improves_no_mean_either(metric: str):
    scoring = Scoring(metrics=(metric,), definition="chaos" if metric == "chaos_score" else "default")
    nothing = np.zeros(SHAPE, bool)
    other = case_of("other", score_of(box((1, 4), (2, 6), (2, 7)), box((1, 4), (2, 6), (3, 7)), scoring))
    absent = gather_scores([other, case_of("a", score_of(nothing, nothing, scoring))], scoring).mean(metric)
    alarm = gather_scores([other, case_of("a", score_of(REFERENCES[1], nothing, scoring))], scoring).mean(metric)
    assert absent is not None
    assert alarm is not None
    if metric_of(metric).needs_reference:
        assert alarm == absent  # it cannot tell
    else:
        assert alarm < absent if metric_of(metric).is_higher_better else alarm > absent


def test_the_other_policies_can_be_improved_by_missing_a_class_as_they_say():
    nothing, reference, bad = np.zeros(SHAPE, bool), REFERENCES[0], box((5, 6), (7, 8), (8, 9))
    good = case_of("good", score_of(reference, reference, Scoring(metrics=("dice", "hd_mm"))))
    means = {}
    for policy in ("zero", "nan"):
        scoring = Scoring(metrics=("dice", "hd_mm"), missing=policy)  # type: ignore[arg-type]
        for word, mask in (("missed", nothing), ("bad", bad)):
            scores = gather_scores([good, case_of("x", score_of(mask, reference, scoring))], scoring)
            means[policy, word] = (scores.mean("dice"), scores.mean("hd_mm"))
    assert means["zero", "missed"] == (0.5, 0)
    assert means["nan", "missed"] == (1, 0)
    assert means["zero", "bad"][0] == means["nan", "bad"][0] == 0.5
    assert (means["zero", "bad"][1] or 0) > 5
