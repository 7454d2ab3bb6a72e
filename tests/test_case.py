"""Geometry of a preprocessed case, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from spadunet.case import Case, Geometry
from spadunet.spacing import MAX_DA

GEOMETRY = Geometry(
    stored_shape=(20, 30, 6),
    stored_affine=((0, 0, 4.5, -7.25), (0, 0.7, 0, 1 / 3), (-0.7, 0, 0, 12.5), (0, 0, 0, 1)),
    axes=(2, 0, 1),
    flips=(False, True, False),
    crop=((1, 5), (2, 18), (0, 30)),
    shape=(4, 11, 21),
    spacing_mm=(4.5, 1.0, 1.0),
)


def test_shapes_follow_from_what_was_done():
    assert GEOMETRY.oriented_shape == (6, 20, 30)
    assert GEOMETRY.cropped_shape == (4, 16, 30)
    assert GEOMETRY.da == 2


def test_a_single_slice_is_of_the_largest_degree():
    assert GEOMETRY.model_copy(update={"shape": (1, 11, 21)}).da == MAX_DA


def test_json_gives_the_same_geometry_back_to_the_last_digit():
    assert Geometry.from_json(GEOMETRY.to_json()) == GEOMETRY


def test_arrays_of_another_shape_are_refused():
    image = np.zeros((1, *GEOMETRY.shape), np.float32)
    classes = np.zeros(GEOMETRY.shape, np.uint8)
    Case(name="a", image=image, classes=classes, geometry=GEOMETRY)
    with pytest.raises(ValueError, match=r"^case a: image \(1, 3, 11, 21\) does not have shape \(4, 11, 21\)$"):
        Case(name="a", image=image[:, 1:], classes=classes, geometry=GEOMETRY)
    with pytest.raises(ValueError, match=r"^case a: classes \(3, 11, 21\) do not have shape \(4, 11, 21\)$"):
        Case(name="a", image=image, classes=classes[1:], geometry=GEOMETRY)
