"""Post-processing is chosen where it helps held-out cases by more than noise."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.errors import InputError
from spadunet.evaluation.pairs import Pair
from spadunet.image import LabelMap, write_label_map
from spadunet.inference.choose_rules import MIN_CASES, Effect, Step, choose_rules, worth_taking
from spadunet.labels import LabelSet

LABELS = LabelSet(names=("background", "liver", "spleen"), ids=(0, 1, 2))
STEP = Step(structure="liver", action="keep largest")


def ball(shape, centre, radius) -> np.ndarray:
    """Bool."""
    grid = np.indices(shape) - np.array(centre)[:, None, None, None]
    return np.square(grid).sum(0) <= radius**2


def write_pairs(folder, num_cases: int, spoil) -> list[Pair]:
    """References of two balls, and predictions that `spoil(array, number)` changed."""
    pairs = []
    for number in range(num_cases):
        reference = np.zeros((20, 24, 28), np.uint8)
        reference[ball(reference.shape, (8, 9, 9), 6)] = 1
        reference[ball(reference.shape, (10, 14, 20), 4)] = 2
        prediction = reference.copy()
        spoil(prediction, number)
        paths = [folder / kind / f"case_{number}.nii.gz" for kind in ("predictions", "references")]
        for path, array in zip(paths, (prediction, reference), strict=True):
            path.parent.mkdir(exist_ok=True)
            write_label_map(path, LabelMap(array=array, affine=np.diag([1.0, 1.0, 1.0, 1.0])))
        pairs.append(Pair(f"case_{number}", *paths))
    return pairs


def chosen(pairs) -> list[str]:
    """The rules in words."""
    return [str(rule) for rule in choose_rules(pairs, LABELS).rules]


def test_islands_and_holes_are_found_by_what_they_cost(tmp_path):
    def spoil(array, number):
        array[ball(array.shape, (10, 14, 20), 1)] = 0  # a hole in the spleen
        array[17:19, 20 : 22 + number % 2, 1:3] = 1  # a second liver

    found = choose_rules(write_pairs(tmp_path, 6, spoil), LABELS)
    assert [str(rule) for rule in found.rules] == ["liver: keep the largest component", "spleen: fill holes"]
    for rule in found.rules:
        assert rule.dice[1] == 1 > rule.dice[0]
        assert rule.hd95_mm[1] == 0 <= rule.hd95_mm[0]
        assert rule.num_cases == 6
    assert found.num_cases == 6


def test_perfect_predictions_need_nothing(tmp_path):
    assert chosen(write_pairs(tmp_path, 6, lambda array, number: None)) == []


def test_two_true_parts_are_not_taken_away_and_dust_is(tmp_path):
    pairs = write_pairs(tmp_path, 6, lambda array, number: None)
    for pair in pairs:  # a liver of two lobes, in truth
        array = np.zeros((20, 24, 28), np.uint8)
        array[2:8, 2:8, 2:8], array[2:8, 12:18, 2:8] = 1, 1
        write_label_map(pair.reference, LabelMap(array=array, affine=np.eye(4)))
        array = array.copy()
        array[15:17, 20:22, 20:22] = 1
        write_label_map(pair.prediction, LabelMap(array=array, affine=np.eye(4)))
    assert chosen(pairs) == ["liver: remove small components (below 10 mm³)"]


def test_what_only_lies_apart_from_all_else_is_removed_from_all_foreground(tmp_path):
    pairs = write_pairs(tmp_path, 6, lambda array, number: None)
    for pair in pairs:
        array = np.zeros((20, 24, 28), np.uint8)
        array[2:12, 2:12, 2:12], array[2:12, 2:12, 12:18] = 1, 2
        array[4:6, 4:6, 18:20] = 1  # a true part of the liver beyond the spleen, no larger than the dust
        write_label_map(pair.reference, LabelMap(array=array, affine=np.eye(4)))
        array = array.copy()
        array[8:10, 20:22, 20:22] = 1
        write_label_map(pair.prediction, LabelMap(array=array, affine=np.eye(4)))
    (rule,) = choose_rules(pairs, LABELS).rules
    assert str(rule) == "all foreground: keep the largest component"
    assert rule.dice[1] == 1


def test_a_false_alarm_that_is_removed_counts(tmp_path):
    pairs = write_pairs(tmp_path, 6, lambda array, number: None)
    for pair in pairs:
        array = np.zeros((20, 24, 28), np.uint8)
        array[2:12, 2:12, 2:12] = 1
        write_label_map(pair.reference, LabelMap(array=array, affine=np.eye(4)))
        array = array.copy()
        array[15, 20, 20] = 2
        write_label_map(pair.prediction, LabelMap(array=array, affine=np.eye(4)))
    (rule,) = choose_rules(pairs, LABELS).rules
    assert str(rule) == "spleen: remove small components (below 10 mm³)"
    assert rule.dice == (0.0, 1.0)


def test_few_cases_small_gains_and_noise_choose_nothing():
    def effects(*gains, hd95=(5.0, 4.0)):
        return [Effect(dice=(0.5, 0.5 + gain), hd95_mm=hd95) for gain in gains]

    assert worth_taking(STEP, effects(*[0.1] * MIN_CASES)) is not None
    assert worth_taking(STEP, effects(*[0.1] * (MIN_CASES - 1))) is None
    assert worth_taking(STEP, effects(*[0.0001] * 50)) is None
    assert worth_taking(STEP, effects(*[0.1, -0.09] * 10)) is None  # mean 0.005, standard error 0.02
    assert worth_taking(STEP, effects(*[0.1] * 10, hd95=(4.0, 4.1))) is None
    (rule,) = [worth_taking(STEP, effects(*[0.1, 0.0] * 5))]
    assert (rule.num_cases, rule.hd95_mm) == (10, (5.0, 4.0))
    assert rule.dice == pytest.approx((0.5, 0.55))


def test_cases_that_cannot_be_read_are_all_named(tmp_path):
    pairs = write_pairs(tmp_path, 6, lambda array, number: None)
    for pair in pairs[:2]:
        pair.prediction.write_bytes(b"")
    with pytest.raises(InputError, match=r"case_0.nii.gz: the file is empty(.|\n)*case_1.nii.gz: the file is empty"):
        choose_rules(pairs, LABELS)
