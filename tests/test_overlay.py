"""Which planes of a case are shown, how they are cut, and that outlines are where the masks are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.image import imread

from spadunet.labels import LabelSet
from spadunet.overlay import Overlay, Plane, box_of, densest_planes, draw_planes, quartile_planes
from spadunet.page import COLOURS

LABELS = LabelSet(names=("background", "organ", "other"), ids=(0, 1, 2), ignore_id=9)
EVERYTHING = slice(None)


def overlay_of(reference: np.ndarray, prediction: np.ndarray | None = None, spacing_mm=(1.0, 1.0, 1.0)) -> Overlay:
    """A dark volume with these label maps."""
    return Overlay(
        volume=np.zeros(reference.shape, np.float32),
        reference=reference,
        prediction=np.zeros_like(reference) if prediction is None else prediction,
        labels=LABELS,
        spacing_mm=spacing_mm,
    )


def blob(shape=(10, 20, 30), label=1) -> np.ndarray:
    """A rod along width at depth 4 and height 7, thicker in the columns 12 and 13."""
    array = np.zeros(shape, np.uint8)
    array[4, 7, 5:20] = label
    array[3:6, 6:9, 12] = label
    return array


def count_colour(picture: bytes, number: int) -> int:
    """Pixels near the colour of a class."""
    colour = [int(COLOURS[number][place : place + 2], 16) for place in (1, 3, 5)]
    array = imread(io.BytesIO(picture), format="jpg").astype(int)
    return int((np.abs(array - colour).max(axis=2) < 40).sum())


def test_the_planes_shown_have_most_of_the_reference():
    planes = densest_planes(overlay_of(blob()))
    assert planes == [Plane(axis=0, index=4), Plane(axis=1, index=7), Plane(axis=2, index=12)]


def test_without_reference_they_have_most_of_the_prediction_and_of_neither_the_middle():
    nothing = np.zeros((10, 20, 30), np.uint8)
    assert densest_planes(overlay_of(nothing, blob()))[0] == Plane(axis=0, index=4)
    assert [plane.index for plane in densest_planes(overlay_of(nothing))] == [5, 10, 15]


def test_ignored_voxels_draw_no_plane_to_them():
    reference = blob()
    reference[8] = LABELS.ignore_id
    assert densest_planes(overlay_of(reference))[0] == Plane(axis=0, index=4)


def test_a_2d_image_has_one_plane():
    assert densest_planes(overlay_of(blob()[4:5])) == [Plane(axis=0, index=0)]


def test_slices_at_quarters_of_the_reference():
    reference = np.zeros((20, 4, 4), np.uint8)
    reference[4:13, 1, 1] = 1
    assert [plane.index for plane in quartile_planes(overlay_of(reference))] == [6, 8, 10]
    assert quartile_planes(overlay_of(reference[4:5])) == [Plane(axis=0, index=0)]


def test_what_is_shown_is_the_true_part_with_a_margin_in_millimetres():
    mask = np.zeros((40, 400, 400), bool)
    mask[20, 100:200, 300:399] = True
    # 12 mm are 2 slices of 8 mm; a quarter of 100 voxels is 25; the edge of the volume is the end.
    depth, height, width = box_of(mask, (8.0, 1.0, 1.0))
    assert (depth, height) == (slice(18, 23), slice(75, 225))
    assert range(400)[width] == range(275, 400)
    assert box_of(np.zeros((2, 2, 2), bool), (1, 1, 1)) == (EVERYTHING, EVERYTHING, EVERYTHING)


def test_outlines_have_the_colours_of_their_classes_and_a_perfect_prediction_hides_no_reference():
    reference = blob(label=1)
    other = np.where(reference == 1, 2, 0).astype(np.uint8)
    planes = [Plane(axis=0, index=4)]
    (both,) = draw_planes(overlay_of(reference, other), planes)
    (right,) = draw_planes(overlay_of(reference, reference), planes)
    (missed,) = draw_planes(overlay_of(reference), planes)
    assert count_colour(both, 0) > 20 and count_colour(both, 1) > 20
    assert count_colour(right, 1) == 0
    assert count_colour(right, 0) > 1.2 * count_colour(missed, 0) > 20  # solid, and dashed


def test_rows_are_numbered_from_above_and_thick_slices_are_drawn_thick():
    volume = np.zeros((4, 10, 10), np.float32)
    volume[0] = 1
    nothing = np.zeros(volume.shape, np.uint8)
    shown = Overlay(volume=volume, reference=nothing, prediction=nothing, labels=LABELS, spacing_mm=(5.0, 1.0, 1.0))
    (picture,) = draw_planes(shown, [Plane(axis=1, index=3)])
    array = imread(io.BytesIO(picture), format="jpg")
    height, width = array.shape[:2]
    assert height / width == pytest.approx(2, rel=0.02)  # 4 × 5 mm by 10 × 1 mm
    assert array[: height // 5].mean() > 200 and array[height // 2 :].mean() < 20


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 2), (40, 1, 40)])
def test_odd_volumes_are_drawn_in_bounded_size(shape):
    overlay = overlay_of(np.ones(shape, np.uint8))
    for picture in draw_planes(overlay, densest_planes(overlay)):
        assert picture.startswith(b"\xff\xd8")
        assert max(imread(io.BytesIO(picture), format="jpg").shape) <= 430
