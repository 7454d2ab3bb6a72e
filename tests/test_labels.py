"""Names, ids and class numbers."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from spadunet.labels import LabelSet, Region, ids_in

CHAOS = LabelSet(names=("background", "liver", "left kidney"), ids=(0, 63, 252))
SHUFFLED = LabelSet(names=("background", "spleen", "liver"), ids=(0, 6, 2))
WHOLE = Region(name="whole tumour", ids=(1, 2, 4), painted_id=1)
CORE = Region(name="tumour core", ids=(2, 4), painted_id=2)
TUMOUR = LabelSet(
    names=("background", "oedema", "necrosis", "enhancing"), ids=(0, 1, 2, 4), regions=(WHOLE, CORE), ignore_id=3
)


def test_ids_with_gaps_become_class_numbers_in_their_order():
    np.testing.assert_array_equal(CHAOS.to_classes(np.array([[252, 0], [63, 63]])), [[2, 0], [1, 1]])
    np.testing.assert_array_equal(SHUFFLED.to_classes(np.array([2, 6, 0])), [2, 1, 0])
    assert (CHAOS.num_classes, CHAOS.num_outputs, CHAOS.ignore_class) == (3, 3, None)
    assert [(it.name, it.ids) for it in CHAOS.structures] == [("liver", (63,)), ("left kidney", (252,))]


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


# --- regions and ignore


def test_regions_are_the_outputs_and_what_is_looked_for():
    assert (TUMOUR.num_classes, TUMOUR.num_outputs) == (4, 2)
    assert TUMOUR.structures == (WHOLE, CORE)
    assert TUMOUR.painted_classes == (1, 2)
    np.testing.assert_array_equal(TUMOUR.targets(), [[0, 0], [1, 0], [1, 1], [1, 1], [0, 0]])  # the last is ignored
    np.testing.assert_array_equal(CHAOS.targets(), np.eye(3))


def test_ignored_voxels_are_the_class_after_the_last_whatever_their_id():
    assert TUMOUR.ignore_class == 4
    np.testing.assert_array_equal(TUMOUR.to_classes(np.array([0, 3, 4, 1])), [0, 4, 3, 1])
    assert TUMOUR.unknown_ids(np.array([0, 3, 4, 5])) == [5]
    ignoring = LabelSet(names=CHAOS.names, ids=CHAOS.ids, ignore_id=255)
    np.testing.assert_array_equal(ignoring.to_classes(np.array([255, 252])), [3, 2])
    np.testing.assert_array_equal(ignoring.targets()[3], [0, 0, 0])
    full = LabelSet(names=tuple(f"n{number}" for number in range(256)), ids=tuple(range(256)), ignore_id=256)
    assert full.to_classes(np.array([256])).tolist() == [256]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ignore_id": 2}, r"ignore needs an id of its own, not 2; the others are \[0, 1, 2, 4\]"),
        ({"ignore_id": 0}, "ignore needs an id of its own, not 0; "),
        ({"regions": (Region(name="all", ids=(0, 1), painted_id=1),)}, "all: a region needs ids of labels beside back"),
        ({"regions": (Region(name="x", ids=(7,), painted_id=7),)}, r"x: a region needs ids of .*, not \[7\]"),
        (
            {"regions": (WHOLE, Region(name="core", ids=(2, 4), painted_id=1))},
            r"core: its id in regions_class_order, 1, is not one of its own, \[2, 4\]",
        ),
        (
            {"regions": (CORE, WHOLE)},
            "whole tumour would be painted over all of tumour core; list the larger one first",
        ),
        ({"regions": (WHOLE, WHOLE)}, "whole tumour would be painted over all of whole tumour"),
        (
            {"regions": (WHOLE.model_copy(update={"painted_id": 2}), CORE)},
            "whole tumour and tumour core have one id, 2, in regions_class_order",
        ),
    ],
)
def test_regions_that_cannot_be_painted_and_an_ignore_that_is_a_label_are_refused(change: dict, message: str):
    with pytest.raises(ValidationError, match=f"Value error, {message}"):
        LabelSet(**(TUMOUR.model_dump() | change))


def test_json_has_regions_and_ignore_only_where_there_are_any():
    assert LabelSet.from_json(TUMOUR.to_json()) == TUMOUR
    # As format version 1 began: digests of stored cases and of plans are made from it.
    assert CHAOS.model_dump_json() == (
        '{"format_version":1,"names":["background","liver","left kidney"],"ids":[0,63,252]}'
    )


@pytest.mark.parametrize(
    "array",
    [
        np.array([[[3, 0], [3, 3]], [[0, 7], [7, 0]]], np.uint8),
        np.array([[-4, 2], [2, 0]], np.int16),
        np.array([5, 4095, 4096, 60000], np.uint16),
        np.zeros((2, 0, 3), np.int32),
        np.full((1, 1, 1), 2**40, np.int64),
    ],
)
def test_the_ids_that_occur_are_found(array: np.ndarray):
    assert ids_in(array) == np.unique(array).tolist()
    assert all(type(value) is int for value in ids_in(array))
