"""What is said of differences that are known."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from made_scores import absent, false_alarm, found, liver_model, missed, model_of, some_dices
from scipy import stats

from spadunet.evaluation.compare.comparison import MEAN_OVER_CLASSES, Comparison, Difference, compare
from spadunet.evaluation.compare.model_scores import ModelScores
from spadunet.evaluation.compare.paired import pair_models
from spadunet.evaluation.compare.plots import pictures_of_differences
from spadunet.evaluation.compare.tables import comparison_text, csv_text, short_meaning


def compared(models: Sequence[ModelScores], patients: Mapping[str, str] | None = None) -> Comparison:
    """With few resamples."""
    return compare(pair_models(models, known_patients=patients), resamples=400, seed=0)


def only(comparison: Comparison, class_name: str = "liver") -> Difference:
    """The single difference of a class."""
    (difference,) = (it for it in comparison.differences if it.class_name == class_name)
    return difference


def test_equal_models_are_within_noise():
    dices = some_dices(20)
    comparison = compared([liver_model("A", dices), liver_model("B", dices)])
    liver = only(comparison)
    assert (liver.verdict, liver.winner, liver.mean, liver.p_holm, liver.num_equal) == ("within noise", None, 0, 1, 20)
    assert liver.mean_interval == (0, 0)
    assert "Dice, mean over classes: the difference is within noise: +0.0000" in comparison_text(comparison)


def test_equal_models_with_noise_are_seldom_told_apart():
    """Each of 100 pairs has a chance of 5 % at most; 12 or more have one of 0.4 %."""
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(100):
        dices = rng.uniform(0.7, 0.9, (2, 15))
        verdicts.append(only(compared([liver_model("A", dices[0]), liver_model("B", dices[1])])).verdict)
    assert 100 - verdicts.count("within noise") < 12


@pytest.mark.parametrize(("metric", "winner"), [("dice", "B"), ("hd_mm", "A")])
def test_a_clearly_better_model_is_found_whichever_way_the_metric_goes(metric: str, winner: str):
    first = some_dices(20)
    second = first + np.random.default_rng(3).uniform(0.01, 0.04, 20)
    comparison = compared([liver_model("A", first, metric), liver_model("B", second, metric)])
    liver = only(comparison)
    assert (liver.verdict, liver.winner) == ("better", winner)
    assert liver.mean == pytest.approx((second - first).mean())
    assert liver.median == pytest.approx(np.median(second - first))
    assert liver.p == pytest.approx(stats.wilcoxon(second - first).pvalue)
    assert liver.mean_interval.low < liver.mean < liver.mean_interval.high
    assert (liver.num_first_better, liver.num_second_better) == ((0, 20) if winner == "B" else (20, 0))
    assert comparison.rankings[0].models[0] == winner
    assert f"{winner} is better than" in comparison_text(comparison)


def test_tests_are_corrected_within_families():
    """Two classes, three pairs of models and two distances are 12 tests of one family; Dice has 6 of its own."""
    rng = np.random.default_rng(1)
    models = [
        model_of(
            name,
            {
                f"c{number}": {
                    structure: found(dice=rng.uniform(), assd_mm=rng.uniform(), hd_mm=rng.uniform())
                    for structure in ("liver", "spleen")
                }
                for number in range(10)
            },
        )
        for name in "ABC"
    ]
    num_tests = {(it.family, it.class_name): it.num_tests for it in compared(models).differences}
    assert num_tests == {
        ("overlap", "liver"): 6,
        ("overlap", "spleen"): 6,
        ("overlap", MEAN_OVER_CLASSES): 3,
        ("surface", "liver"): 12,
        ("surface", "spleen"): 12,
        ("surface", MEAN_OVER_CLASSES): 6,
    }


def test_correction_can_turn_a_difference_into_noise():
    """Six patients of seven agree: p is 0.03 alone, and 0.06 of two tests."""
    better = some_dices(7)
    differences = np.array([0.01, -0.02, 0.03, 0.04, 0.05, 0.06, 0.07])
    alone = only(compared([liver_model("A", better), liver_model("B", better + differences)]))
    assert alone.p == alone.p_holm == pytest.approx(2 * 3 / 2**7)
    assert alone.verdict == "better"
    models = [
        model_of(
            name,
            {
                f"c{number}": {"liver": found(dice=value), "spleen": found(dice=0.5 + number % 2 * shift)}
                for number, value in enumerate(dices)
            },
        )
        for name, dices, shift in (("A", better, 0.1), ("B", better + differences, 0.2))
    ]
    both = only(compared(models))
    assert both.p == pytest.approx(2 * 3 / 2**7)
    assert (both.p_holm, both.verdict) == (pytest.approx(4 * 3 / 2**7), "within noise")


@pytest.mark.parametrize("num_patients", [1, 2, 5])
def test_too_few_patients_are_told_however_clear_they_are(num_patients: int):
    comparison = compared([liver_model("A", [0.1] * num_patients), liver_model("B", [0.9] * num_patients)])
    liver = only(comparison)
    assert (liver.verdict, liver.winner) == ("too few patients", None)
    assert liver.smallest_p_holm == pytest.approx(2.0 ** (1 - num_patients))
    assert f"{num_patients} patients are too few: whatever they showed, p would be at" in comparison_text(comparison)


@pytest.mark.parametrize(("num_equal", "num_differing"), [(12, 4), (15, 5)])
def test_many_equal_patients_are_no_evidence(num_equal: int, num_differing: int):
    dices = some_dices(num_equal + num_differing)
    gains = np.array([0.0] * num_equal + [0.02] * num_differing)
    comparison = compared([liver_model("A", dices), liver_model("B", dices + gains)])
    liver = only(comparison)
    assert (liver.verdict, liver.winner, liver.p) == (
        "too few patients",
        None,
        pytest.approx(2.0 ** (1 - num_differing)),
    )
    text = comparison_text(comparison)
    assert f"only {num_differing} of {num_equal + num_differing} patients differ, which are too few: whatever" in text


def test_six_patients_are_enough_for_one_test_and_too_few_for_two():
    values = {f"c{number}": {"liver": found(dice=0.1 + number / 100)} for number in range(6)}
    better = {case: {"liver": found(dice=0.9)} for case in values}
    assert only(compared([model_of("A", values), model_of("B", better)])).verdict == "better"
    values, better = ({case: it | {"spleen": it["liver"]} for case, it in table.items()} for table in (values, better))
    assert only(compared([model_of("A", values), model_of("B", better)])).verdict == "too few patients"


def test_cases_of_few_patients_are_too_few():
    """Twenty cases that all agree, but of four patients."""
    dices = some_dices(20)
    models = [liver_model("A", dices), liver_model("B", dices + 0.02)]
    assert only(compared(models)).verdict == "better"
    patients = {f"case{number:02}": f"patient{number % 4}" for number in range(20)}
    liver = only(compared(models, patients))
    assert (liver.verdict, liver.num_patients, liver.num_cases) == ("too few patients", 4, 20)


def test_intervals_are_over_patients():
    """Cases of a patient are alike: drawn one by one they would seem far surer than they are."""
    rng = np.random.default_rng(5)
    gains = np.repeat(rng.normal(0, 0.05, 8), 5)
    dices = some_dices(40)
    models = [liver_model("A", dices), liver_model("B", dices + gains)]
    patients = {f"case{number:02}": f"patient{number // 5}" for number in range(40)}
    by_case, by_patient = only(compared(models)).mean_interval, only(compared(models, patients)).mean_interval
    assert by_patient.high - by_patient.low > 1.5 * (by_case.high - by_case.low)


def test_a_few_large_differences_against_many_small_ones_are_mixed():
    dices = some_dices(20)
    gains = np.full(20, 0.01)
    gains[:2] = -0.5
    liver = only(compared([liver_model("A", dices), liver_model("B", dices + gains)]))
    assert liver.p_holm < 0.05
    assert (liver.verdict, liver.winner) == ("mixed", None)


def test_a_model_that_misses_a_class_gains_nothing_by_it():
    """Each of 20 distances is a little smaller, but in one case the class is not found at all."""
    numbers = range(20)
    first = model_of("A", {f"c{number}": {"liver": found(hd_mm=5.0 + number / 10)} for number in numbers})
    found_all = model_of("B", {f"c{number}": {"liver": found(hd_mm=4.0 + number / 10)} for number in numbers})
    assert only(compared([first, found_all])).winner == "B"
    cases = {**found_all.cases, "c19": {"liver": missed(hd_mm=None)}}
    liver = only(compared([first, model_of("B", cases)]))
    assert (liver.num_filled_first, liver.num_filled_second) == (0, 1)
    assert liver.mean_second == pytest.approx(np.mean([4.0 + number / 10 for number in range(19)] + [6.9]))
    assert (liver.verdict, liver.winner) == ("mixed", None)


def test_values_that_count_as_the_best_are_told_since_they_depend_on_the_other_model():
    """A has no liver in c0 either way; only beside B, which finds one there, does that count."""
    cases = {"c0": {"liver": absent("dice")}} | {f"c{number}": {"liver": found(dice=0.5)} for number in range(1, 4)}
    first = model_of("A", cases)
    alarmed = model_of("B", {**cases, "c0": {"liver": false_alarm(dice=0.0)}})
    beside_itself = compared([first, model_of("A2", cases)])
    beside_alarm = compared([first, alarmed])
    alone, beside = only(beside_itself), only(beside_alarm)
    assert (alone.mean_first, alone.num_best_first, alone.num_best_second) == (0.5, 0, 0)
    assert (beside.mean_first, beside.num_best_first, beside.num_best_second) == (pytest.approx(2.5 / 4), 1, 0)
    line = "A: values that count as the best, for a class rightly not found where another model finds it: 1; no mean"
    assert line in comparison_text(beside_alarm)
    assert "count as the best" not in comparison_text(beside_itself)


def test_a_class_that_is_nowhere_has_nothing_to_compare():
    models = [
        model_of(name, {f"c{number}": {"liver": found(dice=dice), "spleen": absent("dice")} for number in range(7)})
        for name, dice in (("A", 0.5), ("B", 0.6))
    ]
    comparison = compared(models)
    spleen = only(comparison, "spleen")
    assert (spleen.verdict, spleen.p, spleen.mean, spleen.num_tests) == ("nothing to compare", None, None, 0)
    assert only(comparison).num_tests == 1
    assert only(comparison, MEAN_OVER_CLASSES).mean == pytest.approx(0.1)
    assert "nothing to compare" in comparison_text(comparison)


def test_mean_over_classes_is_the_mean_of_the_classes_means():
    """One case has no spleen; the class weighs as much as the other nonetheless."""
    models = [
        model_of(
            name,
            {
                "a": {"liver": found(dice=liver), "spleen": found(dice=spleen)},
                "b": {"liver": found(dice=liver), "spleen": absent("dice")},
            },
        )
        for name, liver, spleen in (("A", 0.5, 0.1), ("B", 0.6, 0.5))
    ]
    total = only(compared(models), MEAN_OVER_CLASSES)
    assert (total.mean_first, total.mean_second) == (pytest.approx(0.3), pytest.approx(0.55))
    assert total.mean == pytest.approx((0.1 + 0.4) / 2)
    assert total.median == pytest.approx((0.25 + 0.1) / 2)  # of each patient's own mean


def test_same_seed_same_comparison_and_json_gives_it_back():
    models = [liver_model("A", some_dices(9, 1)), liver_model("B", some_dices(9, 2))]
    first, again = (compared(models) for _ in range(2))
    assert first == again == Comparison.from_json(first.to_json())
    other = compare(pair_models(models), resamples=400, seed=1)
    assert only(other).mean_interval != only(first).mean_interval


def test_every_output_says_what_its_numbers_mean():
    cases = {f"c{number}": {"liver": found(dice=0.5, hd_mm=number)} for number in range(6)}
    stated = {"definition": "medpy", "missing": "worst", "dice": "twice the common", "hd_mm": "largest, of both"}
    paired = pair_models([model_of(name, cases, stated) for name in "AB"])
    comparison = compare(paired, resamples=50, seed=0)
    assert comparison_text(comparison).splitlines()[-3:] == [
        "surface metrics as defined by: medpy; missing classes: worst",
        "dice: twice the common",
        "hd_mm: largest, of both",
    ]
    rows = list(csv.DictReader(io.StringIO(csv_text(comparison))))
    assert {(row["metric"], row["definition"], row["missing"]) for row in rows} == {
        ("dice", "twice the common", "worst"),
        ("hd_mm", "largest, of both", "worst"),
    }
    assert short_meaning(comparison, "dice") == "missing classes: worst"
    figure = next(pictures_of_differences(paired.metrics[1], comparison, paired))
    assert figure.get_supxlabel().endswith("\nsurface metrics as defined by: medpy; missing classes: worst")
    told_nothing = compared([liver_model(name, [0.5] * 6) for name in "AB"])
    assert comparison_text(told_nothing).endswith("the scores do not say what they mean\n")


@pytest.mark.slow
def test_pictures_of_many_models_and_classes_stay_small():
    """Five models are ten pairs, two pictures; of 35 classes the last 30 differ most clearly."""
    rng = np.random.default_rng(0)
    models = [
        model_of(
            f"M{model}",
            {
                f"c{case}": {
                    f"organ{organ:02}": found(dice=0.5 + (rng.uniform(0.01, 0.02) * model if organ >= 5 else 0.0))
                    for organ in range(35)
                }
                for case in range(6)
            },
        )
        for model in range(5)
    ]
    paired = pair_models(models)
    figures = list(pictures_of_differences(paired.metrics[0], compare(paired, resamples=20, seed=0), paired))
    assert [len(figure.axes) for figure in figures] == [6, 4]
    assert max(figure.get_size_inches()[1] for figure in figures) < 60
    for axes in figures[0].axes:
        names = [label.get_text().partition(" (")[0] for label in axes.get_yticklabels()]
        assert names == [*(f"organ{organ:02}" for organ in range(5, 35)), MEAN_OVER_CLASSES]
    assert "of 35 classes the 30 with the smallest p; compare.csv has all" in figures[0].get_supxlabel()


def test_csv_has_a_row_a_difference_and_empty_cells_where_undefined():
    models = [liver_model("A", [0.5]), liver_model("B", [0.75])]
    lines = csv_text(compared(models)).splitlines()
    assert len(lines) == 1 + 2
    row = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert (row["class_name"], row["mean"], row["mean_interval_low"], row["p"]) == ("liver", "0.25", "", "1.0")
    assert row["verdict"] == "too few patients"
