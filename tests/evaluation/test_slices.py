"""Which slices of a case are shown, how large, which side is which, and in how many bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from spadunet.evaluation.slices import DETAILS, choose_slices, crop, draw_stacks
from spadunet.labels import LabelSet
from spadunet.overlay import Overlay

LABELS = LabelSet(names=("background", "organ", "other"), ids=(0, 1, 2), ignore_id=9)
ENDS = (("S", "I"), ("A", "P"), ("R", "L"))


def overlay_of(reference: np.ndarray, prediction: np.ndarray | None = None, **more) -> Overlay:
    """A volume of noise with these label maps."""
    return Overlay(
        volume=np.random.default_rng(0).normal(size=reference.shape).astype(np.float32),
        reference=reference,
        prediction=reference if prediction is None else prediction,
        labels=LABELS,
        **{"spacing_mm": (1.0, 1.0, 1.0)} | more,
    )


def stacks_of(overlay: Overlay, *, has_image: bool = True, max_bytes: int = 500_000):
    cropped, begins = crop(overlay)
    structures = dict(enumerate(LABELS.structures))
    shape = overlay.reference.shape
    return draw_stacks(cropped, begins, shape, structures, has_image=has_image, max_bytes=max_bytes)


def strip_of(stack) -> np.ndarray:
    """The picture of a stack, (slices × h, w)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(stack.strip.partition(",")[2]))).convert("L"))


def block(shape=(30, 60, 50)) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[10:20, 25:35, 20:30] = 1
    return array


def test_planes_are_named_and_their_sides_are_those_of_the_patient():
    axial, coronal, sagittal = stacks_of(overlay_of(block(), ends=ENDS))
    assert (axial.name, coronal.name, sagittal.name) == ("axial", "coronal", "sagittal")
    assert axial.sides == ("R", "L", "A", "P")  # left, right, top, bottom: the patient's left is on the right
    assert coronal.sides == ("R", "L", "S", "I")
    assert sagittal.sides == ("A", "P", "S", "I")


def test_without_orientation_no_side_is_told_and_an_oblique_plane_says_so():
    assert [(stack.name, stack.sides) for stack in stacks_of(overlay_of(block()))] == [
        ("image plane", None),
        ("across rows", None),
        ("across columns", None),
    ]
    oblique = (("SA", "IP"), ("AI", "PS"), ("R", "L"))
    assert stacks_of(overlay_of(block(), ends=oblique))[0].name == "axial (oblique)"


def test_a_sagittal_stack_is_shown_as_upright_as_an_axial_one():
    """Depth to the left, height to the back, width to the feet: each plane as radiologists hang it."""
    array = block()
    sagittal, coronal, axial = stacks_of(overlay_of(array, ends=(("R", "L"), ("A", "P"), ("S", "I"))))
    assert (axial.name, axial.axes, axial.sides) == ("axial", (1, 0), ("R", "L", "A", "P"))
    assert (coronal.name, coronal.axes, coronal.sides) == ("coronal", (2, 0), ("R", "L", "S", "I"))
    assert (sagittal.name, sagittal.axes, sagittal.sides) == ("sagittal", (2, 1), ("A", "P", "S", "I"))
    # With 12 voxels around it, the block's height takes 34 rows, and its depth 30 columns, cut at both ends.
    assert axial.shape_pixels == (34, 30) and strip_of(axial).shape[1] == 30


def test_slices_are_numbered_as_in_the_file():
    overlay = overlay_of(block(), flips=(True, False, False))
    axial, coronal, _ = stacks_of(overlay)
    assert (axial.num_in_file, axial.numbers) == (30, tuple(range(20, 10, -1)))  # 10 … 19 of 30 from the other end
    assert (coronal.num_in_file, coronal.numbers) == (60, tuple(range(26, 36)))


def test_voxels_keep_their_proportions_and_strips_hold_a_tile_a_slice():
    overlay = overlay_of(block(), spacing_mm=(5.0, 0.5, 0.5))
    axial, coronal, _ = stacks_of(overlay)
    # A margin of 12 mm: 24 voxels in plane, cut at the upper edge (25) and the lower (35 + 24 = 59), 3 slices across.
    assert axial.shape_pixels == (58, 50) and axial.size_mm == (29.0, 25.0)
    assert coronal.shape_pixels == (16, 50) and coronal.size_mm == (80.0, 25.0)
    for stack in (axial, coronal):
        height, width = stack.shape_pixels
        assert strip_of(stack).shape == (height * len(stack.numbers), width)


def test_it_opens_at_the_slice_with_the_largest_error():
    reference = np.zeros((100, 20, 20), np.uint8)
    reference[10:90, 5:10, 5:10] = 1
    prediction = reference.copy()
    prediction[37, 5:10, 5:8] = 0
    cropped, begins = crop(overlay_of(reference, prediction))
    chosen, worst = choose_slices(cropped, 0, 24)
    assert worst + begins[0] == 37 and worst in chosen
    assert len(chosen) == 24
    assert (chosen[0] + begins[0], chosen[-1] + begins[0]) == (10, 89)


@pytest.mark.parametrize("is_missed", [True, False])
def test_a_small_class_that_is_missed_or_a_false_alarm_is_outlined_in_every_plane(is_missed: bool):
    shape = (100, 90, 80)
    whole, spot = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    whole[5:95, 5:85, 5:75] = 1
    spot[:] = whole
    spot[49:51, 44:46, 39:41] = 2  # between slices that are evenly spaced
    reference, prediction = (spot, whole) if is_missed else (whole, spot)
    prediction = prediction.copy()
    prediction[20:24, 20:24, 20:24] = 0  # the largest error is elsewhere
    for stack in stacks_of(overlay_of(reference, prediction), has_image=False, max_bytes=1):
        outlines = stack.references if is_missed else stack.predictions
        assert any(number == 1 for it in outlines for number, _ in it), stack.name
        assert len(stack.numbers) == DETAILS[-1].num_slices


def test_wanted_slices_take_the_place_of_their_neighbours_as_far_as_there_is_room():
    reference = np.zeros((60, 20, 20), np.uint8)
    reference[:, 5:10, 5:10] = 1
    prediction = reference.copy()
    prediction[31, 5:10, 5:8] = 0
    overlay = overlay_of(reference, prediction)
    assert choose_slices(overlay, 0, 4) == ([0, 20, 31, 59], 31)
    assert choose_slices(overlay, 0, 4, [18, 58]) == ([0, 18, 31, 58], 31)
    chosen, worst = choose_slices(overlay, 0, 4, [2, 4, 6, 8, 10])
    assert worst == 31 and chosen == [2, 4, 6, 31]
    assert choose_slices(overlay, 0, 60, [2]) == (list(range(60)), 31)


def test_a_perfect_case_opens_where_most_is_and_an_empty_one_in_the_middle():
    reference = block()
    reference[14, 20:40, 20:40] = 1
    axial = stacks_of(overlay_of(reference))[0]
    assert axial.numbers[axial.shown_first] == 15
    nothing = np.zeros((30, 20, 20), np.uint8)
    empty = stacks_of(overlay_of(nothing))[0]
    assert empty.numbers[empty.shown_first] in (15, 16) and not any(empty.references)


def test_what_the_reference_ignores_is_not_drawn():
    reference = block()
    reference[25] = LABELS.ignore_id
    prediction = np.where(reference == LABELS.ignore_id, 1, reference).astype(np.uint8)
    axial = stacks_of(overlay_of(reference, prediction))[0]
    assert axial.numbers == tuple(range(11, 21))
    assert axial.references == axial.predictions


@pytest.mark.parametrize("shape", [(1, 40, 50), (3, 40, 50)])
def test_hardly_any_slices_are_shown_in_one_plane(shape):
    reference = np.zeros(shape, np.uint8)
    reference[:, 10:20, 10:20] = 2
    (stack,) = stacks_of(overlay_of(reference))
    assert len(stack.numbers) == shape[0]
    assert [number for number, _ in stack.references[0]] == [1]


@pytest.mark.slow
def test_a_large_case_is_drawn_coarser_until_it_fits():
    reference = np.zeros((60, 500, 500), np.uint8)
    reference[5:55, 20:480, 20:480] = 1
    fine = stacks_of(overlay_of(reference), max_bytes=10**8)
    assert max(fine[0].shape_pixels) <= DETAILS[0].longer_side_pixels and len(fine[0].numbers) == 24
    most = sum(stack.num_bytes for stack in fine) // 4
    coarse = stacks_of(overlay_of(reference), max_bytes=most)
    assert sum(stack.num_bytes for stack in coarse) <= most
    assert coarse[0].size_mm == pytest.approx(fine[0].size_mm, rel=0.02)


def test_without_an_image_there_are_outlines_alone():
    axial = stacks_of(overlay_of(block()), has_image=False)[0]
    assert axial.strip == "" and axial.references[0][0][0] == 0


def test_grey_values_follow_what_is_near_the_labels():
    volume = np.full((20, 60, 60), -1000, np.float32)
    volume[5:15, 20:40, 20:40] = 0
    volume[10:11, 25:35, 25:35] = 100
    reference = (volume == 100).astype(np.uint8)
    overlay = Overlay(volume=volume, reference=reference, prediction=reference, labels=LABELS, spacing_mm=(3.0,) * 3)
    axial = stacks_of(overlay)[0]
    tile = strip_of(axial)[: axial.shape_pixels[0]]
    assert tile.max() > 250 and tile.min() < 5


def test_organs_in_ct_are_not_drowned_by_air_and_bone_near_them():
    generator = np.random.default_rng(0)
    volume = np.full((20, 60, 60), -900.0, np.float32)
    volume[:, 30:] = 700
    volume[2:18, 15:45, 15:45] = generator.normal(100, 40, (16, 30, 30))
    reference = np.zeros(volume.shape, np.uint8)
    reference[3:17, 17:43, 17:43] = 1
    overlay = Overlay(volume=volume, reference=reference, prediction=reference, labels=LABELS, spacing_mm=(3.0,) * 3)
    axial = stacks_of(overlay)[0]
    tile = strip_of(axial)[: axial.shape_pixels[0]]
    assert tile.min() < 10 and tile.max() > 245
    middle = tile[tile.shape[0] // 2 - 5 : tile.shape[0] // 2 + 5, tile.shape[1] // 2 - 5 : tile.shape[1] // 2 + 5]
    assert 90 < middle.mean() < 165 and middle.std() > 25  # of all from -900 to 700 it would be 6
