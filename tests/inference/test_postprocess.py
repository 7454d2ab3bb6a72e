"""Largest components, small components, holes: on masks whose answer is plain."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.image import LabelMap
from spadunet.inference.postprocess import applicable, clean
from spadunet.labels import LabelSet, Region
from spadunet.postprocessing import FOREGROUND, Rule

LABELS = LabelSet(names=("background", "liver", "spleen"), ids=(0, 3, 8))
NESTED = LabelSet(
    names=("background", "oedema", "core"),
    ids=(0, 1, 2),
    regions=(Region(name="whole", ids=(1, 2), painted_id=1), Region(name="core", ids=(2,), painted_id=2)),
)


def rule(structure: str, action, min_mm3: float | None = None) -> Rule:
    """Whatever it was worth."""
    return Rule(structure=structure, action=action, min_mm3=min_mm3, num_cases=5, dice=(0, 1), hd95_mm=(1, 0))


def cleaned(array: np.ndarray, *rules: Rule, labels: LabelSet = LABELS, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    """The array after the rules; what was given is not written over."""
    before = array.copy()
    found = clean(LabelMap(array=array, affine=np.diag([*spacing, 1.0])), labels, rules).array
    assert np.array_equal(array, before)
    assert found.dtype == array.dtype
    return found


def two_parts() -> np.ndarray:
    """A liver of 27 voxels, another of 8, and a spleen of 1."""
    array = np.zeros((8, 8, 8), np.uint8)
    array[:3, :3, :3], array[5:7, 5:7, 5:7], array[0, 7, 0] = 3, 3, 8
    return array


def test_the_largest_component_of_a_class_is_kept_and_others_stay():
    array = two_parts()
    found = cleaned(array, rule("liver", "keep largest"))
    expected = array.copy()
    expected[5:7, 5:7, 5:7] = 0
    assert np.array_equal(found, expected)
    of_all = cleaned(array, rule(FOREGROUND, "keep largest"))
    expected[0, 7, 0] = 0
    assert np.array_equal(of_all, expected)


def test_what_touches_by_a_corner_is_one_component():
    array = np.zeros((4, 4, 4), np.uint8)
    array[0, 0, 0] = array[1, 1, 1] = array[3, 3, 3] = 3
    found = cleaned(array, rule("liver", "keep largest"))
    assert found[0, 0, 0] == found[1, 1, 1] == 3
    assert found[3, 3, 3] == 0


@pytest.mark.parametrize(
    ("spacing", "min_mm3", "is_kept"),
    [((1, 1, 1), 8, True), ((1, 1, 1), 9, False), ((2, 1, 0.5), 9, False), ((2, 2, 2), 64, True)],
)
def test_small_means_less_volume_in_mm(spacing, min_mm3, is_kept):
    found = cleaned(two_parts(), rule("liver", "remove small", min_mm3), spacing=spacing)
    assert bool(found[5, 5, 5]) == is_kept
    assert (found[:3, :3, :3] == 3).all()
    assert found[0, 7, 0] == 8


def test_holes_are_filled_where_they_are_background_and_enclosed():
    array = np.full((5, 6, 7), 3, np.uint8)
    array[2, 2, 2], array[2, 3, 3] = 0, 8  # another class within stays
    array[0, 3, 3] = 0  # open to the outside
    found = cleaned(array, rule("liver", "fill holes"))
    expected = array.copy()
    expected[2, 2, 2] = 3
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_in_a_single_slice_holes_are_two_dimensional(axis):
    flat = np.full((5, 5), 3, np.uint8)
    flat[2, 2] = 0
    found = cleaned(np.expand_dims(flat, axis), rule("liver", "fill holes"))
    assert (found == 3).all()


def test_rules_are_applied_in_their_order():
    array = np.zeros((9, 9, 9), np.uint8)
    array[:7, :7, :7] = 3
    array[1:6, 1:6, 1:6] = 0
    array[3, 3, 3] = 3  # an island in the hole
    holes, small = rule("liver", "fill holes"), rule("liver", "remove small", 5)
    assert (cleaned(array, small, holes) == 3).sum() == (cleaned(array, holes, small) == 3).sum() == 343
    assert (cleaned(array, small) == 3).sum() == 343 - 125


def test_what_leaves_a_region_stays_in_the_one_around_it():
    array = np.zeros((10, 10, 10), np.uint8)
    array[:6, :6, :6] = 1
    array[1:4, 1:4, 1:4], array[5, 5, 5] = 2, 2  # a second core, in the oedema
    array[8, 8, 8] = 2  # and a third outside
    found = cleaned(array, rule("core", "keep largest"), labels=NESTED)
    assert found[5, 5, 5] == 1
    assert found[8, 8, 8] == 1
    assert (found == 2).sum() == 27
    found = cleaned(array, rule("whole", "keep largest"), labels=NESTED)
    assert found[8, 8, 8] == 0
    assert found[5, 5, 5] == 2


@pytest.mark.parametrize("action", ["keep largest", "fill holes"])
def test_nothing_there_stays_nothing(action):
    assert not cleaned(np.zeros((3, 4, 5), np.uint8), rule("liver", action)).any()
    assert not cleaned(np.zeros((1, 1, 1), np.uint8), rule("liver", action)).any()
    one = np.full((1, 1, 1), 3, np.uint8)
    assert cleaned(one, rule("liver", action)).item() == 3


def test_without_rules_nothing_is_copied():
    label_map = LabelMap(array=two_parts(), affine=np.eye(4))
    assert clean(label_map, LABELS, ()) is label_map


def test_of_a_subset_only_its_own_rules_count():
    rules = (rule(FOREGROUND, "keep largest"), rule("liver", "fill holes"), rule("spleen", "fill holes"))
    assert applicable(rules, LABELS) == rules
    assert applicable(rules, LABELS.subset(["liver"]), is_subset=True) == rules[1:2]


@pytest.mark.parametrize(
    "wrong", [("liver", "remove small", None), ("liver", "keep largest", 5.0), (FOREGROUND, "fill holes", None)]
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        rule(*wrong)


def test_rules_are_told_in_words():
    assert str(rule("liver", "remove small", 300)) == "liver: remove small components (below 300 mm³)"
    assert rule("liver", "keep largest").gain == "Dice 0.0000 → 1.0000, HD95 1.00 → 0.00 mm, 5 cases"
