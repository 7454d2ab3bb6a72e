"""Scores: counts and means worked out by hand, and the way to JSON and back."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from spadunet.errors import InputError
from spadunet.scores import DEFINITIONS, METRICS, CaseScore, ClassScore, Scores

BOTH = ClassScore(dice=0.5, assd_mm=1.5, hd_mm=4.0, num_prediction_voxels=3, num_reference_voxels=5)
EQUAL = ClassScore(dice=1.0, assd_mm=0.0, hd_mm=0.0, num_prediction_voxels=5, num_reference_voxels=5)
MISSED = ClassScore(dice=0.0, assd_mm=None, hd_mm=None, num_prediction_voxels=0, num_reference_voxels=5)
FALSE_ALARM = ClassScore(dice=0.0, assd_mm=None, hd_mm=None, num_prediction_voxels=3, num_reference_voxels=0)
ABSENT = ClassScore(dice=None, assd_mm=None, hd_mm=None, num_prediction_voxels=0, num_reference_voxels=0)


def scores_of(*livers: ClassScore, spleens: tuple[ClassScore, ...] = ()) -> Scores:
    """Cases a, b, c, … with a liver, and a spleen where given."""
    cases = []
    for index, liver in enumerate(livers):
        classes = {"liver": liver} | ({"spleen": spleens[index]} if spleens else {})
        cases.append(CaseScore(case="abcdef"[index], classes=classes))
    return Scores(cases=tuple(cases))


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


def test_summary_takes_means_where_defined_and_counts_the_rest():
    liver = scores_of(BOTH, EQUAL, MISSED, FALSE_ALARM, ABSENT).summary()["liver"]
    assert liver.dice == pytest.approx((0.5 + 1 + 0 + 0) / 4)  # the absent one is not defined
    assert liver.assd_mm == pytest.approx((1.5 + 0) / 2)
    assert liver.hd_mm == pytest.approx((4 + 0) / 2)
    assert (liver.num_cases, liver.num_dice, liver.num_distances) == (5, 4, 2)
    assert (liver.num_missed, liver.num_false_alarms) == (1, 1)


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
    assert all(scores.mean(metric) is None for metric in METRICS)


def test_json_gives_the_same_scores_back():
    scores = scores_of(BOTH, MISSED, spleens=(ABSENT, FALSE_ALARM)).model_copy(update={"not_predicted": ("z",)})
    assert Scores.from_json(scores.to_json()) == scores


def test_scores_say_what_the_metrics_mean():
    definitions = scores_of(BOTH).definitions
    assert set(METRICS) <= set(definitions)
    assert definitions == DEFINITIONS
    assert "pooled" in definitions["assd_mm"]


def test_an_unknown_field_is_named():
    text = scores_of(BOTH).to_json().replace('"hd_mm": 4.0', '"hd95_mm": 4.0')
    with pytest.raises(InputError, match=r"scores\.json: field 'cases\.0\.classes\.liver\.hd_mm': field required"):
        Scores.from_json(text, source="scores.json")


def test_the_same_case_twice_is_refused():
    case = CaseScore(case="a", classes={"liver": BOTH})
    with pytest.raises(ValidationError, match=r"each case may appear once, not \['a', 'a'\]"):
        Scores(cases=(case, case))


def test_cases_with_different_classes_are_refused():
    liver, spleen = (CaseScore(case=name, classes={name: BOTH}) for name in ("liver", "spleen"))
    with pytest.raises(ValidationError, match=r"case spleen has the classes \['spleen'\], but liver has \['liver'\]"):
        Scores(cases=(liver, spleen))


@pytest.mark.parametrize("wrong", [{"dice": 1.1}, {"hd_mm": -1.0}, {"assd_mm": float("nan")}, {"hd_mm": float("inf")}])
def test_impossible_values_are_refused(wrong: dict[str, float]):
    with pytest.raises(ValidationError):
        ClassScore.model_validate(BOTH.model_dump() | wrong)
