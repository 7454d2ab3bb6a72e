"""Names, ids and class numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from spadunet.labels import LabelSet

CHAOS = LabelSet(names=("background", "liver", "left kidney"), ids=(0, 63, 252))
SHUFFLED = LabelSet(names=("background", "spleen", "liver"), ids=(0, 6, 2))


def test_ids_with_gaps_become_class_numbers_in_their_order():
    np.testing.assert_array_equal(CHAOS.to_classes(np.array([[252, 0], [63, 63]])), [[2, 0], [1, 1]])
    np.testing.assert_array_equal(SHUFFLED.to_classes(np.array([2, 6, 0])), [2, 1, 0])
    assert (CHAOS.num_classes, CHAOS.foreground_names) == (3, ("liver", "left kidney"))


@pytest.mark.parametrize("labels", [CHAOS, SHUFFLED])
def test_class_numbers_and_ids_undo_each_other(labels: LabelSet):
    classes = np.array([[[0, 1, 2], [2, 1, 0]]], np.uint8)
    np.testing.assert_array_equal(labels.to_classes(labels.to_ids(classes)), classes)


def test_types_are_the_smallest_that_hold_the_values():
    assert CHAOS.to_classes(np.array([0])).dtype == np.uint8
    assert CHAOS.to_ids(np.array([0])).dtype == np.uint8
    many = LabelSet(names=("background", *(f"tooth {number}" for number in range(1, 301))), ids=tuple(range(301)))
    assert many.to_classes(np.array([300])).dtype == np.uint16
    assert many.to_ids(np.array([300])).tolist() == [300]
    assert many.to_ids(np.array([300])).dtype == np.uint16


def test_an_array_without_voxels_stays_without():
    assert CHAOS.to_classes(np.zeros((0, 3), np.int64)).shape == (0, 3)
    assert CHAOS.unknown_ids(np.zeros(0, np.int64)) == []


def test_values_that_are_no_label_are_listed():
    array = np.array([300, 0, 7, 7, -1])
    assert CHAOS.unknown_ids(array) == [-1, 7, 300]
    with pytest.raises(ValueError, match=r"^label values \[-1, 7, 300\] are not among \[0, 63, 252\]$"):
        CHAOS.to_classes(array)


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        (("background", "liver"), (0,), "2 names but 1 ids"),
        (("liver", "background"), (1, 0), r"the first id must be 0, the background, not 1"),
        ((), (), r"the first id must be 0, the background, not missing"),
        (("background",), (0,), "at least one label beside background is needed"),
        (("background", "liver"), (0, -1), "ids must not be negative: -1"),
        (("background", "a", "b"), (0, 1, 1), r"names and ids must be unique, not {'background': 0, 'a': 1, 'b': 1}"),
        (("background", "a", "a"), (0, 1, 2), r"names and ids must be unique, not .*"),
    ],
)
def test_a_label_set_that_cannot_be_is_refused(names: tuple[str, ...], ids: tuple[int, ...], message: str):
    with pytest.raises(ValidationError, match=f"Value error, {message} \\["):
        LabelSet(names=names, ids=ids)


def test_json_gives_the_same_label_set_back():
    assert LabelSet.from_json(SHUFFLED.to_json()) == SHUFFLED
