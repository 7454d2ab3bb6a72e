"""Scores: counts and means worked out by hand, and the way to JSON and back."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from spadunet.errors import InputError
from spadunet.metrics import DEFAULT_METRICS
from spadunet.record import NewerFormatError
from spadunet.scores import NOT_ANNOTATED, CaseScore, ClassScore, Scores

METRICS = ("dice", "assd_mm", "hd_mm")


def score_of(dice: float | None, assd_mm: float | None, hd_mm: float | None, *counts: int) -> ClassScore:
    """Of a class with so many voxels in the prediction, the reference and both."""
    prediction, reference, common = counts
    return ClassScore(
        values={"dice": dice, "assd_mm": assd_mm, "hd_mm": hd_mm},
        num_prediction_voxels=prediction,
        num_reference_voxels=reference,
        num_common_voxels=common,
    )


BOTH = score_of(0.5, 1.5, 4.0, 3, 5, 2)
EQUAL = score_of(1.0, 0.0, 0.0, 5, 5, 5)
MISSED = score_of(0.0, None, None, 0, 5, 0)
FALSE_ALARM = score_of(0.0, None, None, 3, 0, 0)
ABSENT = score_of(None, None, None, 0, 0, 0)
DIAGONAL_MM = 13.0  # of 3 x 4 x 12 voxels of 1 mm


def scores_of(*livers: ClassScore, spleens: tuple[ClassScore, ...] = ()) -> Scores:
    """Cases a, b, c, … with a liver, and a spleen where given."""
    cases = []
    for index, liver in enumerate(livers):
        classes = {"liver": liver} | ({"spleen": spleens[index]} if spleens else {})
        extent = {"shape_voxels": (3, 4, 12), "spacing_mm": (1.0, 1.0, 1.0)}
        cases.append(CaseScore.model_validate({"case": "abcdef"[index], "classes": classes, **extent}))
    return Scores(metrics=METRICS, cases=tuple(cases))


def test_an_empty_prediction_is_missed_and_an_empty_reference_is_a_false_alarm():
    flags = {
        name: (score.is_missed, score.is_false_alarm)
        for name, score in {"both": BOTH, "missed": MISSED, "false": FALSE_ALARM, "absent": ABSENT}.items()
    }
    assert flags == {
        "both": (False, False),
        "missed": (True, False),
        "false": (False, True),
        "absent": (False, False),
    }


@pytest.mark.parametrize(
    ("missing", "dice", "hd_mm"),
    [
        ("worst", [0.5, 1, 0, 0], [4, 0, DIAGONAL_MM, DIAGONAL_MM]),
        ("zero", [0.5, 1, 0, 0], [4, 0]),
        ("nan", [0.5, 1], [4, 0]),
    ],
)
def test_means_count_missing_classes_by_the_policy(missing: str, dice: list[float], hd_mm: list[float]):
    scores = scores_of(BOTH, EQUAL, MISSED, FALSE_ALARM, ABSENT).model_copy(update={"missing": missing})
    liver = scores.summary()["liver"]
    assert liver.dice == pytest.approx(sum(dice) / len(dice))  # the absent one never counts
    assert liver.hd_mm == pytest.approx(sum(hd_mm) / len(hd_mm))
    assert liver.num_counted == {"dice": len(dice), "assd_mm": len(hd_mm), "hd_mm": len(hd_mm)}
    assert scores.counted("liver", "dice") == dict(zip("abcd", dice, strict=False))


def test_the_cases_of_a_class_are_counted_by_how_they_came_out():
    liver = scores_of(BOTH, EQUAL, MISSED, FALSE_ALARM, ABSENT, NOT_ANNOTATED).summary()["liver"]
    assert (liver.num_cases, liver.num_valid, liver.num_missed, liver.num_false_alarms) == (5, 2, 1, 1)


def test_mean_weighs_classes_equally_whatever_their_number_of_defined_cases():
    scores = scores_of(BOTH, BOTH, spleens=(EQUAL, ABSENT))
    assert scores.mean("dice") == pytest.approx((0.5 + 1.0) / 2)
    assert scores.mean("hd_mm") == pytest.approx((4.0 + 0.0) / 2)


def test_a_class_without_a_defined_value_has_no_mean_and_does_not_enter_the_mean():
    scores = scores_of(BOTH, spleens=(ABSENT,))
    assert scores.summary()["spleen"].dice is None
    assert scores.mean("dice") == 0.5
    assert scores_of(ABSENT).mean("dice") is None


def test_no_cases_have_no_summary():
    scores = Scores(cases=())
    assert scores.summary() == {}
    assert scores.metrics == DEFAULT_METRICS
    assert all(scores.mean(metric) is None for metric in scores.metrics)


def test_json_gives_the_same_scores_back():
    scores = scores_of(BOTH, MISSED, spleens=(ABSENT, FALSE_ALARM)).model_copy(update={"not_predicted": ("z",)})
    assert Scores.from_json(scores.to_json()) == scores


def test_a_document_of_the_first_format_is_read_with_the_means_that_it_had():
    annotated = {"num_prediction_voxels": 0, "num_reference_voxels": 5}
    valid = annotated | {"num_prediction_voxels": 3}
    unknown = dict.fromkeys(("dice", "assd_mm", "hd_mm", *annotated))
    document = {
        "format_version": 1,
        "definitions": {"dice": "2 |P and R| / (|P| + |R|)"},
        "cases": [
            {"case": "a", "classes": {"liver": {"dice": 0.0, "assd_mm": None, "hd_mm": None, **annotated}}},
            {"case": "b", "classes": {"liver": {"dice": 0.5, "assd_mm": 1.5, "hd_mm": 4.0, **valid}}},
            {"case": "c", "classes": {"liver": unknown}},
        ],
        "not_predicted": ["z"],
        "failed": [],
    }
    scores = Scores.from_json(json.dumps(document))
    assert (scores.metrics, scores.missing, scores.definition) == (METRICS, "zero", "default")
    assert (scores.mean("dice"), scores.mean("hd_mm")) == (0.25, 4.0)
    assert (scores.summary()["liver"].num_cases, scores.not_predicted) == (2, ("z",))
    assert scores.cases[2].classes["liver"] == NOT_ANNOTATED
    assert Scores.from_json(scores.to_json()) == scores


@pytest.mark.parametrize("broken", [{"cases": [{"case": "a"}]}, {"cases": 3}, {}, {"cases": [{"classes": {"a": 1}}]}])
def test_a_damaged_document_of_the_first_format_is_an_error(broken: dict[str, object]):
    with pytest.raises(InputError, match=r"^old\.json: field 'format_version': Input should be 2 \(found 1\)"):
        Scores.from_json(json.dumps({"format_version": 1, **broken}), source="old.json")


def test_a_newer_format_is_told_by_both_versions():
    text = scores_of(BOTH).to_json().replace('"format_version": 2', '"format_version": 3')
    with pytest.raises(NewerFormatError, match=r"scores\.json: format version 3 is newer than 2"):
        Scores.from_json(text, source="scores.json")


@pytest.mark.parametrize(("metrics", "unit"), [(("dice",), ""), (("hd95_mm",), "mm"), (("nsd_2voxels",), "voxels")])
def test_the_unit_is_that_of_the_metrics(metrics: tuple[str, ...], unit: str):
    assert Scores(metrics=metrics, cases=()).unit == unit


def test_an_unknown_metric_is_named():
    text = scores_of(BOTH).to_json().replace('"hd_mm": 4.0', '"hd": 4.0')
    with pytest.raises(
        InputError, match=r"field 'cases\.0\.classes\.liver\.values': 'hd' is no metric; known are dice"
    ):
        Scores.from_json(text, source="scores.json")


def test_values_of_other_metrics_than_the_scores_are_of_are_refused():
    cases = scores_of(BOTH).cases
    with pytest.raises(
        ValidationError, match=r"a, liver: has values of \['dice', 'assd_mm', 'hd_mm'\], but the metrics"
    ):
        Scores(metrics=("dice",), cases=cases)


def test_the_worst_of_an_image_of_unknown_size_is_not_guessed():
    case = CaseScore(case="a", classes={"liver": MISSED})
    with pytest.raises(ValidationError, match="the worst ASSD mm of a missing class needs the image's size"):
        Scores(metrics=METRICS, cases=(case,))
    assert Scores(metrics=METRICS, missing="zero", cases=(case,)).mean("dice") == 0


def test_the_same_case_twice_is_refused():
    case = CaseScore(case="a", classes={"liver": BOTH})
    with pytest.raises(ValidationError, match=r"each case may appear once, not \['a', 'a'\]"):
        Scores(metrics=METRICS, cases=(case, case))


def test_cases_with_different_classes_are_refused():
    liver, spleen = (CaseScore(case=name, classes={name: BOTH}) for name in ("liver", "spleen"))
    with pytest.raises(ValidationError, match=r"case spleen has the classes \['spleen'\], but liver has \['liver'\]"):
        Scores(metrics=METRICS, cases=(liver, spleen))


def test_only_signed_differences_lie_below_zero():
    score = ClassScore(values={"rvd_percent": -40.0}, num_prediction_voxels=3, num_reference_voxels=5)
    assert score.values == {"rvd_percent": -40.0}
    with pytest.raises(ValidationError, match="ravd_percent is not below 0, as -40.0 is"):
        ClassScore(values={"ravd_percent": -40.0}, num_prediction_voxels=3, num_reference_voxels=5)


@pytest.mark.parametrize(
    "wrong", [{"dice": -0.1}, {"dice": 1.1}, {"hd_mm": -1.0}, {"assd_mm": float("nan")}, {"hd_mm": float("inf")}]
)
def test_impossible_values_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValidationError):
        ClassScore.model_validate({**BOTH.model_dump(), "values": wrong})
