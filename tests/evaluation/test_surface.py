"""Surface metrics of masks that can be measured with a ruler; test_surface_tools.py compares with other tools."""

from __future__ import annotations

import numpy as np
import pytest
from mask_pairs import ANISOTROPIC, blob, voxel_at

from spadunet.evaluation.definitions import DEFINITIONS
from spadunet.evaluation.surface import (
    SurfaceDistances,
    assd_mm,
    hd_mm,
    masd_mm,
    nsd,
    surface_distances_mm,
    surface_scores,
)
from spadunet.spacing import Spacing

METRICS = ("assd_mm", "masd_mm", "hd_mm", "hd95_mm", "nsd_2mm")
HUNDRED = SurfaceDistances(to_reference_mm=np.arange(1.0, 101.0), to_prediction_mm=np.zeros(100))
"""1 to 100 mm one way, nothing the other way."""


def ball(shape: tuple[int, int, int], centre_mm: Spacing, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Voxels whose centre lies within the radius."""
    steps = [np.arange(size) * step - centre for size, step, centre in zip(shape, spacing_mm, centre_mm, strict=True)]
    d, h, w = np.meshgrid(*steps, indexing="ij")
    return d**2 + h**2 + w**2 <= radius_mm**2


def test_two_single_voxels_are_as_far_apart_as_their_centres():
    distances = surface_distances_mm(voxel_at((0, 1, 1)), voxel_at((2, 1, 1)), ANISOTROPIC)
    assert distances.to_reference_mm.tolist() == distances.to_prediction_mm.tolist() == [10.0]  # 2 steps of 5 mm
    assert assd_mm(distances) == hd_mm(distances) == 10.0


def test_a_diagonal_is_measured_in_millimetres():
    distances = surface_distances_mm(voxel_at((0, 0, 0)), voxel_at((1, 3, 2)), (3.0, 4.0, 0.5))
    assert hd_mm(distances) == pytest.approx(np.sqrt(3**2 + 12**2 + 1**2))


def test_both_directions_are_pooled_and_not_averaged_apart():
    prediction = voxel_at((0, 0, 0))
    reference = prediction | voxel_at((0, 0, 1)) | voxel_at((0, 0, 2))
    distances = surface_distances_mm(prediction, reference, (1.0, 1.0, 1.0))
    assert distances.to_reference_mm.tolist() == [0]
    assert sorted(distances.to_prediction_mm.tolist()) == [0, 1, 2]
    assert assd_mm(distances) == 3 / 4  # the mean of the two directed means would be (0 + 1) / 2
    assert hd_mm(distances) == 2


def test_balls_with_one_centre_are_as_far_apart_as_their_radii():
    spacing_mm = (0.5, 0.5, 0.5)
    small, large = (ball((49, 49, 49), (12, 12, 12), radius_mm, spacing_mm) for radius_mm in (5, 10))
    distances = surface_distances_mm(small, large, spacing_mm)
    assert assd_mm(distances) == pytest.approx(5, abs=0.25)  # half a voxel side
    assert hd_mm(distances) == pytest.approx(5, abs=0.5)


def test_a_ball_shifted_by_a_slice_has_the_hausdorff_distance_of_the_shift():
    spacing_mm = (4.0, 1.0, 1.0)
    first, second = (ball((12, 40, 40), (centre, 20, 20), 12, spacing_mm) for centre in (20, 24))
    distances = surface_distances_mm(first, second, spacing_mm)
    assert hd_mm(distances) == 4.0
    assert 0 < (assd_mm(distances) or 0) < 4.0


def test_identical_masks_are_at_distance_zero():
    mask = blob(np.random.default_rng(0), (7, 8, 9), 0.4)
    distances = surface_distances_mm(mask, mask, ANISOTROPIC)
    assert assd_mm(distances) == hd_mm(distances) == 0


@pytest.mark.parametrize("empty", ["prediction", "reference", "both"])
def test_an_empty_mask_has_no_distances(empty: str):
    nothing, voxel = np.zeros((4, 5, 6), bool), voxel_at((1, 1, 1))
    prediction = voxel if empty == "reference" else nothing
    reference = voxel if empty == "prediction" else nothing
    distances = surface_distances_mm(prediction, reference, ANISOTROPIC)
    assert distances.to_reference_mm.size == distances.to_prediction_mm.size == 0
    assert assd_mm(distances) is None
    assert hd_mm(distances) is None


def test_a_flat_organ_in_a_volume_is_border_throughout():
    shape, far = (3, 6, 6), voxel_at((2, 5, 5), (3, 6, 6))
    flat = np.zeros(shape, bool)
    flat[1, 1:4, 1:4] = True
    assert surface_distances_mm(flat, far, (1.0, 1.0, 1.0)).to_reference_mm.size == 9
    at_the_face = np.roll(flat, -1, axis=0)
    assert surface_distances_mm(at_the_face, far, (1.0, 1.0, 1.0)).to_reference_mm.size == 9


def test_the_distance_between_contours_of_one_slice_is_measured_in_its_plane():
    outer, inner = np.zeros((2, 1, 9, 9), bool)
    outer[0, 1:8, 1:8] = True  # contour of 24 voxels
    inner[0, 3:6, 3:6] = True  # contour of 8 voxels, two steps inside
    distances = surface_distances_mm(inner, outer, (99.0, 1.0, 1.0))
    assert distances.to_reference_mm.tolist() == [2.0] * 8
    assert hd_mm(distances) == pytest.approx(np.sqrt(8))  # corner to corner


def test_an_image_of_one_voxel_has_a_border():
    voxel = np.ones((1, 1, 1), bool)
    assert hd_mm(surface_distances_mm(voxel, voxel, ANISOTROPIC)) == 0


def test_swapping_the_masks_swaps_the_directions_and_keeps_the_scores():
    rng = np.random.default_rng(2)
    prediction, reference = blob(rng, (8, 9, 10), 0.3), blob(rng, (8, 9, 10), 0.4)
    there = surface_distances_mm(prediction, reference, ANISOTROPIC)
    back = surface_distances_mm(reference, prediction, ANISOTROPIC)
    assert np.array_equal(there.to_reference_mm, back.to_prediction_mm)
    assert assd_mm(there) == pytest.approx(assd_mm(back))
    assert hd_mm(there) == hd_mm(back)


def test_permuted_axes_and_empty_room_around_change_nothing():
    rng = np.random.default_rng(3)
    prediction, reference = blob(rng, (8, 9, 10), 0.3), blob(rng, (8, 9, 10), 0.4)
    distances = surface_distances_mm(prediction, reference, (5.0, 0.7, 0.8))
    turned = surface_distances_mm(prediction.transpose(2, 0, 1), reference.transpose(2, 0, 1), (0.8, 5.0, 0.7))
    padded = surface_distances_mm(np.pad(prediction, 3), np.pad(reference, 3), (5.0, 0.7, 0.8))
    assert assd_mm(turned) == pytest.approx(assd_mm(distances))
    assert assd_mm(padded) == pytest.approx(assd_mm(distances))
    assert hd_mm(padded) == pytest.approx(hd_mm(distances))


def test_masks_of_different_shape_are_refused():
    with pytest.raises(ValueError, match=r"prediction \(4, 5, 6\), reference \(4, 5, 5\)"):
        surface_distances_mm(np.ones((4, 5, 6), bool), np.ones((4, 5, 5), bool), ANISOTROPIC)


def test_distances_are_a_frozen_value():
    distances = SurfaceDistances(to_reference_mm=np.array([1.0, 3.0]), to_prediction_mm=np.array([5.0]))
    assert (assd_mm(distances), masd_mm(distances), hd_mm(distances)) == (3.0, 3.5, 5.0)
    with pytest.raises(AttributeError):
        distances.to_reference_mm = np.zeros(1)  # type: ignore[misc]


# --- by name and definition


def test_a_percentile_is_of_both_directions_pooled_or_the_larger_of_the_two():
    assert hd_mm(HUNDRED) == hd_mm(HUNDRED, 100, DEFINITIONS["medpy"]) == 100
    assert hd_mm(HUNDRED, 95) == pytest.approx(95.05)  # rank 0.95 * 99 = 94.05 of 1 … 100
    assert hd_mm(HUNDRED, 95, DEFINITIONS["medpy"]) == pytest.approx(
        90.05
    )  # rank 0.95 * 199 = 189.05 of 0, … 0, 1 … 100
    assert hd_mm(HUNDRED, 99.5, DEFINITIONS["monai"]) == pytest.approx(99.505, rel=1e-6)


def test_surface_elements_count_by_area():
    """Two elements of 3 mm² at 1 mm and one of 2 mm² at 5 mm one way; one of 4 mm² at 0 mm the other way."""
    distances = SurfaceDistances(
        to_reference_mm=np.array([5.0, 1.0, 1.0]),
        to_prediction_mm=np.array([0.0]),
        prediction_areas=np.array([2.0, 3.0, 3.0]),
        reference_areas=np.array([4.0]),
    )
    definition = DEFINITIONS["surface-distance"]
    assert assd_mm(distances) == (5 * 2 + 1 * 6) / 12
    assert masd_mm(distances) == (16 / 8 + 0) / 2
    assert hd_mm(distances, 75, definition) == 1.0  # 6 of 8 mm² lie within 1 mm
    assert hd_mm(distances, 76, definition) == hd_mm(distances, 100, definition) == 5.0
    assert nsd(distances, 1.0) == 10 / 12


def test_nsd_counts_a_distance_of_exactly_the_tolerance():
    prediction, reference = voxel_at((0, 0, 0), (1, 1, 9)), voxel_at((0, 0, 3), (1, 1, 9))
    for step_mm in (0.1, 0.7, 1.1):  # 3 * 0.1 is 0.30000000000000004 and 3 * 0.7 is 2.0999999999999996
        tolerance = f"nsd_{3 * step_mm:.1f}mm"
        scores = surface_scores(prediction, reference, (1.0, 1.0, step_mm), [tolerance, f"nsd_{2.9 * step_mm:.2f}mm"])
        assert list(scores.values()) == [1.0, 0.0]


def test_scores_come_by_name_in_the_order_asked_for():
    prediction, reference = voxel_at((0, 1, 1)), voxel_at((2, 1, 1))
    scores = surface_scores(prediction, reference, ANISOTROPIC, ["nsd_10mm", "hd_mm", "nsd_9.9mm", "assd_mm"])
    assert scores == {"nsd_10mm": 1.0, "hd_mm": 10.0, "nsd_9.9mm": 0.0, "assd_mm": 10.0}
    assert list(scores) == ["nsd_10mm", "hd_mm", "nsd_9.9mm", "assd_mm"]


def test_voxels_are_counted_on_a_grid_of_side_one():
    prediction, reference = voxel_at((0, 1, 1)), voxel_at((2, 1, 1))
    metrics = ["hd_voxels", "hd95_voxels", "nsd_2voxels", "masd_voxels"]
    scores = surface_scores(prediction, reference, (1.0, 1.0, 1.0), metrics)
    assert list(scores.values()) == [2.0, 2.0, 1.0, 2.0]
    with pytest.raises(ValueError, match=r"voxels of side 1, not \(5.0, 0.7, 0.8\): hd_voxels"):
        surface_scores(prediction, reference, ANISOTROPIC, ["hd_voxels"])


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("empty", ["prediction", "reference", "both"])
def test_an_empty_mask_has_no_surface_metric(empty: str, definition: str):
    nothing, voxel = np.zeros((4, 5, 6), bool), voxel_at((1, 1, 1))
    prediction = voxel if empty == "reference" else nothing
    reference = voxel if empty == "prediction" else nothing
    scores = surface_scores(prediction, reference, ANISOTROPIC, METRICS, DEFINITIONS[definition])
    assert scores == dict.fromkeys(METRICS)


def test_at_the_edge_of_the_image_chaos_sees_no_border():
    """Two slabs at the image's edge, 4 and 6 slices thick: their edges at slice 3 and 5 are 2 slices apart."""
    prediction, reference = np.zeros((2, 10, 5, 5), bool)
    prediction[:4], reference[:6] = True, True
    chaos = surface_scores(prediction, reference, (3.0, 1.0, 1.0), METRICS[:3], DEFINITIONS["chaos"])
    assert set(chaos.values()) == {6.0}
    default = surface_scores(prediction, reference, (3.0, 1.0, 1.0), METRICS[:3])
    assert 0 < (default["assd_mm"] or 0) < 3  # most of the border lies on the image's edge, in both
    full = np.ones((10, 5, 5), bool)
    assert surface_scores(prediction, full, (3.0, 1.0, 1.0), METRICS, DEFINITIONS["chaos"]) == dict.fromkeys(METRICS)


def test_a_box_cut_from_the_image_scores_as_the_image():
    """What is cut off around masks does not count, whatever is beyond."""
    prediction, reference = np.zeros((2, 12, 13, 14), bool)
    prediction[3:7, 4:9, 5:9], reference[4:8, 4:9, 6:9] = True, True
    for definition in DEFINITIONS.values():
        cut = (slice(2, 9), slice(3, 10), slice(4, 10))
        scores = surface_scores(prediction, reference, ANISOTROPIC, METRICS, definition)
        assert surface_scores(prediction[cut], reference[cut], ANISOTROPIC, METRICS, definition) == scores
