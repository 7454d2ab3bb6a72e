"""Which cases and values of several models are compared."""

from __future__ import annotations

import numpy as np
import pytest
from made_scores import absent, false_alarm, found, liver_model, missed, model_of

from spadunet.errors import InputError
from spadunet.evaluation.compare.comparison import compare
from spadunet.evaluation.compare.model_scores import ClassValues
from spadunet.evaluation.compare.paired import Paired, pair_models

NAN = np.nan
NOT_ANNOTATED = ClassValues(values={}, num_prediction_voxels=None, num_reference_voxels=None)


def by_patient(paired: Paired) -> list:
    """The first metric's values (M, P, K), None where left out."""
    values = paired.metrics[0].by_patient
    return np.where(np.isnan(values), None, values).tolist()


def livers(name: str, *classes: ClassValues):
    """A model with a liver in cases a, b, c, …"""
    return model_of(name, {"abcdef"[number]: {"liver": it} for number, it in enumerate(classes)})


def test_values_of_shared_cases_stand_side_by_side_and_the_others_are_told():
    first = model_of("A", {"x": {"liver": found(dice=0.5)}, "y": {"liver": found(dice=0.6)}})
    second = model_of("B", {"y": {"liver": found(dice=0.9)}, "z": {"liver": found(dice=0.7)}})
    paired = pair_models([first, second])
    assert paired.cases == ("y",)
    assert by_patient(paired) == [[[0.6]], [[0.9]]]
    assert paired.notes == (
        "cases that others have and A lacks: 1 (z)",
        "cases that others have and B lacks: 1 (x)",
    )


def test_classes_go_by_name_in_whatever_order():
    first = model_of("A", {"x": {"liver": found(dice=0.5), "spleen": found(dice=0.6)}})
    second = model_of("B", {"x": {"spleen": found(dice=0.8), "liver": found(dice=0.7)}})
    assert by_patient(pair_models([first, second])) == [[[0.5, 0.6]], [[0.7, 0.8]]]


def test_a_missed_class_counts_as_the_worst_distance_that_any_model_has():
    first = livers("A", found(hd_mm=4.0), missed(hd_mm=None), found(hd_mm=6.0))
    second = livers("B", found(hd_mm=9.0), found(hd_mm=3.0), found(hd_mm=2.0))
    paired = pair_models([first, second])
    assert by_patient(paired) == [[[4], [9], [6]], [[9], [3], [2]]]
    assert paired.metrics[0].num_filled.tolist() == [[1], [0]]


def test_a_missed_class_counts_as_0_of_what_is_better_when_higher():
    """As it does where the policy of the scores leaves out what was missed."""
    first = livers("A", missed(dice=None), found(dice=0.8))
    second = livers("B", found(dice=0.4), found(dice=0.8))
    assert by_patient(pair_models([first, second])) == [[[0], [0.8]], [[0.4], [0.8]]]


def test_what_the_policy_of_the_scores_counts_is_taken_as_it_is():
    first = livers("A", missed(hd_mm=300.0), found(hd_mm=6.0))
    second = livers("B", found(hd_mm=3.0), found(hd_mm=2.0))
    paired = pair_models([first, second])
    assert by_patient(paired) == [[[300], [6]], [[3], [2]]]
    assert not paired.metrics[0].num_filled.any()


def test_a_false_alarm_is_worse_than_to_find_nothing_where_nothing_is():
    first = livers("A", false_alarm(dice=0.0), found(dice=0.5))
    second = livers("B", absent("dice"), found(dice=0.5))
    assert by_patient(pair_models([first, second])) == [[[0], [0.5]], [[1], [0.5]]]
    first = livers("A", false_alarm(hd_mm=None), found(hd_mm=7.0))
    second = livers("B", absent("hd_mm"), found(hd_mm=5.0))
    assert by_patient(pair_models([first, second])) == [[[7], [7]], [[0], [5]]]


def test_a_class_that_is_nowhere_or_was_not_annotated_is_left_out():
    first = livers("A", absent("dice"), found(dice=0.5), NOT_ANNOTATED)
    second = livers("B", absent("dice"), found(dice=0.6), NOT_ANNOTATED)
    # The first case tells which metrics there are.
    paired = pair_models([first, second])
    assert by_patient(paired) == [[[None], [0.5], [None]], [[None], [0.6], [None]]]
    assert paired.metrics[0].num_cases.tolist() == [1]


def test_a_metric_that_needs_the_reference_leaves_out_false_alarms():
    first = livers("A", false_alarm(sensitivity=None), found(sensitivity=0.5))
    second = livers("B", absent("sensitivity"), found(sensitivity=0.6))
    assert by_patient(pair_models([first, second])) == [[[None], [0.5]], [[None], [0.6]]]


def test_a_class_that_all_models_missed_is_a_tie_and_one_without_any_distance_is_left_out():
    first = livers("A", missed(hd_mm=None), found(hd_mm=1.0))
    second = livers("B", missed(hd_mm=None), found(hd_mm=2.0))
    assert by_patient(pair_models([first, second])) == [[[2], [1]], [[2], [2]]]
    first, second = livers("A", missed(hd_mm=None)), livers("B", missed(hd_mm=None))
    assert by_patient(pair_models([first, second])) == [[[None]], [[None]]]


def test_cases_of_one_patient_are_one_value():
    names = ("P1_visit1", "P1_visit2", "P2_visit1")
    models = [
        model_of(name, {case: {"liver": found(dice=dice)} for case, dice in zip(names, dices, strict=True)})
        for name, dices in (("A", (0.2, 0.4, 0.5)), ("B", (0.6, 0.8, 0.9)))
    ]
    paired = pair_models(models)
    assert paired.patients == ("P1", "P2")
    assert by_patient(paired) == [[[pytest.approx(0.3)], [0.5]], [[pytest.approx(0.7)], [0.9]]]
    apart = pair_models(models, known_patients={case: case for case in names})
    assert len(apart.patients) == 3
    joined = pair_models(models, known_patients={"P1": "P1", "P2": "P1"})
    assert len(joined.patients) == 1


def test_metrics_that_not_all_have_are_told_and_volumes_say_nothing():
    first = livers("A", found(dice=0.5, hd_mm=1.0, volume_ml=3.0))
    second = livers("B", found(dice=0.5, iou=0.3, volume_ml=3.0))
    paired = pair_models([first, second])
    assert [it.metric.name for it in paired.metrics] == ["dice"]
    assert paired.notes == (
        "not compared, since not all models have them: hd_mm of A",
        "not compared, since not all models have them: iou of B",
    )


def test_chosen_metrics_only():
    models = [livers(name, found(dice=0.5, hd_mm=1.0)) for name in "AB"]
    for words in (["hd_mm"], ["hd"], ["hd100", "hd", "hd_mm"]):
        assert [it.metric.name for it in pair_models(models, metrics=words).metrics] == ["hd_mm"]


def test_metrics_are_named_as_in_scoring_in_the_unit_of_the_scores():
    models = [livers(name, found(hd95_voxels=1.0, nsd_2voxels=0.5, dice=0.5)) for name in "AB"]
    paired = pair_models(models, metrics=["nsd_2.0", "hd95", "dice"])
    assert [it.metric.name for it in paired.metrics] == ["nsd_2voxels", "hd95_voxels", "dice"]
    both = [livers(name, found(hd95_voxels=1.0, hd95_mm=0.5)) for name in "AB"]
    assert [it.metric.name for it in pair_models(both, metrics=["hd95"]).metrics] == ["hd95_mm"]
    with pytest.raises(
        InputError, match=r"--metrics hd95_mm volume: metrics that can be compared are hd95_voxels, nsd"
    ):
        pair_models(models, metrics=["hd95_mm", "dice", "volume"])


@pytest.mark.parametrize(
    ("second", "metrics", "message"),
    [
        (liver_model("B", [0.5], "assd_mm"), ["dice"], r"--metrics dice: metrics that can be compared are assd_mm"),
        (
            liver_model("B", [0.5], "assd_voxels"),
            None,
            r"units differ: A/scores.json has assd_mm; B/scores.json has ass",
        ),
        (liver_model("B", [0.5]), None, r"no metric is shared by all models: A/scores.json has assd_mm; B.* has dice"),
        (
            model_of("B", {"case00": {"spleen": found(assd_mm=1.0)}}),
            None,
            r"A/scores.json and B/scores.json: the classes differ: liver and spleen; score both with the same --labels",
        ),
        (
            model_of("B", {"other": {"liver": found(assd_mm=1.0)}}),
            None,
            r"no case is shared by all models: A/scores.json has case00; B/scores.json has other; give scores of",
        ),
        (
            model_of("B", {"case00": {"liver": false_alarm(assd_mm=1.0)}}),
            None,
            r"scored against different references: liver of case00 \(10 and 0 voxels\); score both against the same",
        ),
        (
            model_of("B", {"case00": {"liver": found(assd_mm=1.0)}}, {"definition": "medpy"}),
            None,
            r"A/scores.json and B/scores.json: definition differs: 'default' and 'medpy'; score both with the same",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(second, metrics, message: str):
    first = model_of("A", {"case00": {"liver": found(assd_mm=0.5)}}, {"definition": "default"})
    with pytest.raises(InputError, match=message):
        pair_models([first, second], metrics=metrics)


def test_rules_are_compared_beside_a_model_that_states_none():
    states_none = liver_model("nnunet", [0.5])
    first, second = (
        model_of(name, states_none.cases, {"missing": missing}) for name, missing in (("A", "worst"), ("B", "nan"))
    )
    with pytest.raises(InputError, match=r"A/scores.json and B/scores.json: missing differs: 'worst' and 'nan'"):
        pair_models([states_none, first, second])
    assert pair_models([states_none, first]).cases == ("case00",)


def test_only_the_chosen_metrics_need_the_same_definition():
    """With HD by two tools Dice is still the same."""
    cases = {"case00": {"liver": found(dice=0.5, hd_mm=1.0, assd_mm=2.0)}}
    alike = {"missing": "worst", "dice": "overlap", "assd_mm": "mean"}
    first = model_of("A", cases, alike | {"definition": "default", "hd_mm": "largest"})
    second = model_of("B", cases, alike | {"definition": "medpy", "hd_mm": "largest of MedPy"})
    paired = pair_models([first, second], metrics=["dice"])
    assert [it.metric.name for it in paired.metrics] == ["dice"]
    assert compare(paired, resamples=10, seed=0).stated == {"missing": "worst", "dice": "overlap"}
    with pytest.raises(InputError, match="definition differs: 'default' and 'medpy'") as caught:
        pair_models([first, second], metrics=["dice", "hd"])
    assert "hd_mm differs: 'largest' and" in str(caught.value)
    other_policy = model_of("C", cases, alike | {"missing": "zero", "definition": "default"})
    with pytest.raises(InputError, match="missing differs"):
        pair_models([first, other_policy], metrics=["dice"])
    other_sentence = model_of("D", cases, alike | {"dice": "another overlap"})
    with pytest.raises(InputError, match="dice differs"):
        pair_models([first, other_sentence], metrics=["dice"])


def test_all_that_differs_is_told_at_once():
    first = model_of("A", {"a": {"liver": found(dice=0.5)}}, {"missing": "worst", "dice": "overlap"})
    second = model_of("B", {"b": {"spleen": found(dice=0.5)}}, {"missing": "nan", "dice": "overlap"})
    with pytest.raises(InputError) as caught:
        pair_models([first, second])
    assert [word in str(caught.value) for word in ("classes differ", "missing differs", "no case", "dice differs")] == [
        True,
        True,
        True,
        False,
    ]
    assert len(str(caught.value).splitlines()) == 3
