"""Maps of surface errors: the distances are those of the borders, where the borders are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from spadunet.evaluation.error_maps import ErrorMaps, draw_error_maps, round_up
from spadunet.evaluation.evaluate import evaluate_case
from spadunet.image import LabelMap
from spadunet.labels import LabelSet
from spadunet.overlay import Overlay

LABELS = LabelSet(names=("background", "organ", "other"), ids=(0, 1, 2))


def maps_of(prediction: np.ndarray, reference: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> ErrorMaps:
    overlay = Overlay(
        volume=np.zeros(reference.shape),
        reference=reference,
        prediction=prediction,
        labels=LABELS,
        spacing_mm=spacing_mm,
    )
    return draw_error_maps(overlay, LABELS.structures, reference.shape)


def numbers_of(picture: bytes) -> np.ndarray:
    """Palette numbers (h, w): 0 nothing, 1 to 254 no distance to the whole scale, 255 no other border."""
    return np.asarray(Image.open(io.BytesIO(picture)))


def cube(at: int, label: int = 1) -> np.ndarray:
    array = np.zeros((20, 20, 20), np.uint8)
    array[5:12, 5:12, at : at + 5] = label
    return array


def test_distances_are_in_mm_and_seen_where_they_are():
    maps = maps_of(cube(8), cube(5), spacing_mm=(1.0, 1.0, 2.0))
    assert (maps.largest_mm, maps.scale_mm, maps.has_no_other) == (6.0, 10.0, False)  # 3 voxels of 2 mm
    coronal = numbers_of(maps.predictions[1])  # rows are depth, columns are width
    assert set(np.flatnonzero(coronal.any(axis=0))) == set(range(8, 13))
    assert set(np.flatnonzero(coronal.any(axis=1))) == set(range(5, 12))
    assert (coronal[5:12, 12] == 1 + int(0.6 * 253)).all()  # its far side: 6 of 10 mm
    assert coronal[8, 9] < coronal[8, 12]


def test_the_largest_distance_is_the_hausdorff_distance():
    generator = np.random.default_rng(1)
    prediction, reference = ((generator.random((9, 12, 14)) < 0.2).astype(np.uint8) for _ in range(2))
    affine = np.diag([2.5, 1.0, 0.7, 1.0])
    labels = LabelSet(names=("background", "organ"), ids=(0, 1))
    score = evaluate_case(
        "a", LabelMap(array=prediction, affine=affine), LabelMap(array=reference, affine=affine), labels
    )
    maps = maps_of(prediction, reference, spacing_mm=(2.5, 1.0, 0.7))
    assert maps.largest_mm == pytest.approx(score.classes["organ"].hd_mm)


def test_a_missed_class_and_a_false_alarm_have_a_colour_of_their_own():
    maps = maps_of(cube(5, label=1), cube(5, label=2))
    assert (maps.largest_mm, maps.has_no_other) == (None, True)
    for picture in (*maps.predictions, *maps.references):
        assert set(np.unique(numbers_of(picture))) == {0, 255}


def test_without_a_border_there_is_no_map():
    nothing = np.zeros((20, 20, 20), np.uint8)
    missed = maps_of(nothing, cube(5))
    assert missed.predictions == () and len(missed.references) == 3
    empty = maps_of(nothing, nothing)
    assert (empty.predictions, empty.references, empty.largest_mm, empty.has_no_other) == ((), (), None, False)


def test_a_perfect_prediction_has_no_distance_anywhere():
    maps = maps_of(cube(5), cube(5))
    assert maps.largest_mm == 0 and set(np.unique(numbers_of(maps.predictions[0]))) == {0, 1}


def test_a_picture_has_one_direction_and_a_contour():
    plane = np.zeros((1, 30, 30), np.uint8)
    plane[0, 5:20, 5:20] = 1
    maps = maps_of(plane, plane)
    (picture,) = maps.predictions
    assert numbers_of(picture)[10, 10] == 0 and numbers_of(picture)[5, 10] == 1


def test_large_maps_are_drawn_smaller():
    large = np.zeros((4, 900, 500), np.uint8)
    large[:, 100:800, 100:400] = 1
    assert numbers_of(maps_of(large, large).predictions[0]).shape == (180, 167)


def test_scales_are_round():
    assert [round_up(it) for it in (0, 0.3, 1, 1.2, 2, 4.9, 5.1, 10, 11, 99, 101)] == [
        1, 1, 1, 2, 2, 5, 10, 10, 20, 100, 200
    ]  # fmt: skip


def test_maps_are_turned_as_the_slices_are():
    plane = np.zeros((5, 10, 20), np.uint8)
    plane[1:4, 2:8, 4:16] = 1
    overlay = Overlay(
        volume=np.zeros(plane.shape),
        reference=plane,
        prediction=plane,
        labels=LABELS,
        spacing_mm=(1.0, 1.0, 1.0),
        ends=(("R", "L"), ("A", "P"), ("S", "I")),
    )
    maps = draw_error_maps(overlay, LABELS.structures, plane.shape)
    assert [numbers_of(it).shape for it in maps.references] == [(20, 10), (20, 5), (10, 5)]
