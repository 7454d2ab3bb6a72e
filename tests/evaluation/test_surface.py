"""Surface distances: masks that can be measured with a ruler, then equality with MedPy and MONAI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import spadunet
from spadunet.evaluation.surface import SurfaceDistances, assd_mm, border, hd_mm, surface_distances_mm
from spadunet.image import read_label_map
from spadunet.spacing import Spacing

DEMO_LABELS = Path(spadunet.__file__).parent / "demo/data/Dataset004_Hippocampus/labelsTs"
ANISOTROPIC: Spacing = (5.0, 0.7, 0.8)


def voxel_at(position: tuple[int, int, int], shape: tuple[int, int, int] = (4, 5, 6)) -> np.ndarray:
    """A bool mask of one voxel."""
    mask = np.zeros(shape, bool)
    mask[position] = True
    return mask


def ball(shape: tuple[int, int, int], centre_mm: Spacing, radius_mm: float, spacing_mm: Spacing) -> np.ndarray:
    """Voxels whose centre lies within the radius."""
    steps = [np.arange(size) * step - centre for size, step, centre in zip(shape, spacing_mm, centre_mm, strict=True)]
    d, h, w = np.meshgrid(*steps, indexing="ij")
    return d**2 + h**2 + w**2 <= radius_mm**2


def blob(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> np.ndarray:
    """Smooth random islands that cover a share of the array and touch its faces."""
    noise = gaussian_filter(rng.normal(size=shape), 1.5)
    return noise >= np.quantile(noise, 1 - share)


# --- by hand


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


def test_border_of_a_cube_is_all_but_its_core():
    cube = np.zeros((5, 5, 5), bool)
    cube[1:4, 1:4, 1:4] = True
    expected = cube.copy()
    expected[2, 2, 2] = False
    assert np.array_equal(border(cube), expected)


def test_beyond_the_array_is_outside_the_mask():
    expected = np.ones((3, 3, 3), bool)
    expected[1, 1, 1] = False
    assert np.array_equal(border(np.ones((3, 3, 3), bool)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_border_of_one_slice_is_its_contour(axis: int):
    contour = np.ones((4, 4), bool)
    contour[1:3, 1:3] = False
    mask = np.expand_dims(np.ones((4, 4), bool), axis)
    assert np.array_equal(border(mask), np.expand_dims(contour, axis))


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


# --- MedPy and MONAI


def pairs_of_masks() -> Iterator[tuple[str, np.ndarray, np.ndarray, Spacing]]:
    """Name, prediction, reference and spacing of masks that make trouble elsewhere."""
    rng = np.random.default_rng(4)
    for number, spacing_mm in enumerate([(1.0, 1.0, 1.0), ANISOTROPIC, (0.3, 2.5, 1.1)]):
        yield f"blobs {number}", blob(rng, (12, 17, 15), 0.3), blob(rng, (12, 17, 15), 0.4), spacing_mm
        yield f"dust {number}", rng.random((9, 8, 7)) < 0.05, rng.random((9, 8, 7)) < 0.1, spacing_mm
    shape, spacing_mm = (6, 7, 8), ANISOTROPIC
    yield "one voxel each", voxel_at((0, 0, 0), shape), voxel_at((5, 6, 7), shape), spacing_mm
    yield "one voxel in a full array", voxel_at((3, 3, 3), shape), np.ones(shape, bool), spacing_mm
    half = np.zeros(shape, bool)
    half[:3] = True
    yield "touching the faces, disjoint", half, ~half, spacing_mm
    yield "identical", half, half, spacing_mm


def real_pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray, Spacing]]:
    """The hippocampi of one person against those of the next, and against themselves shifted by a voxel."""
    arrays = [read_label_map(path).array for path in sorted(DEMO_LABELS.glob("*.nii.gz"))[:4]]
    shape = tuple(min(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    crops = [array[tuple(slice(size) for size in shape)] for array in arrays]
    for label in (1, 2):
        for index, crop in enumerate(crops):
            mask = crop == label
            yield f"people {index}, label {label}", mask, crops[index - 1] == label, (1.0, 1.0, 1.0)
            yield f"shift {index}, label {label}", mask, np.roll(mask, 1, axis=1), ANISOTROPIC


ALL_PAIRS = [*pairs_of_masks(), *real_pairs()]
IDS = [name for name, *_ in ALL_PAIRS]


def medpy_values(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """ASSD and HD by MedPy."""
    binary = pytest.importorskip("medpy.metric.binary")
    return binary.assd(prediction, reference, spacing_mm), binary.hd(prediction, reference, spacing_mm)


def monai_values(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """ASSD and HD by MONAI, which computes in float32."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_distance import compute_average_surface_distance

    masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]  # (1, 1, D, H, W)
    options = {"include_background": True, "spacing": spacing_mm}
    assd = compute_average_surface_distance(*masks, symmetric=True, **options)
    return float(assd), float(compute_hausdorff_distance(*masks, **options))


@pytest.mark.parametrize(("name", "prediction", "reference", "spacing_mm"), ALL_PAIRS, ids=IDS)
def test_assd_and_hd_equal_medpy(name: str, prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing):
    distances = surface_distances_mm(prediction, reference, spacing_mm)
    assd, hd = medpy_values(prediction, reference, spacing_mm)
    assert assd_mm(distances) == pytest.approx(assd, rel=1e-12, abs=1e-12)
    assert hd_mm(distances) == pytest.approx(hd, rel=1e-12, abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 calls itself so
@pytest.mark.parametrize(("name", "prediction", "reference", "spacing_mm"), ALL_PAIRS, ids=IDS)
def test_assd_and_hd_equal_monai(name: str, prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing):
    distances = surface_distances_mm(prediction, reference, spacing_mm)
    assd, hd = monai_values(prediction, reference, spacing_mm)
    assert assd_mm(distances) == pytest.approx(assd, rel=1e-6, abs=1e-6)
    assert hd_mm(distances) == pytest.approx(hd, rel=1e-6, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_one_slice_equals_medpy_and_monai_in_two_dimensions():
    rng = np.random.default_rng(5)
    for _ in range(5):
        prediction, reference = blob(rng, (20, 30), 0.3), blob(rng, (20, 30), 0.4)
        distances = surface_distances_mm(prediction[None], reference[None], (8.0, 0.7, 1.3))
        for values, tolerance in ((medpy_values, 1e-12), (monai_values, 1e-6)):
            assd, hd = values(prediction, reference, (0.7, 1.3))
            assert assd_mm(distances) == pytest.approx(assd, rel=tolerance)
            assert hd_mm(distances) == pytest.approx(hd, rel=tolerance)


def test_directed_means_equal_medpy_so_that_older_versions_can_be_reproduced():
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(6)
    prediction, reference = blob(rng, (12, 13, 14), 0.1), blob(rng, (12, 13, 14), 0.5)
    distances = surface_distances_mm(prediction, reference, ANISOTROPIC)
    directed = [distances.to_reference_mm.mean(), distances.to_prediction_mm.mean()]
    expected = [binary.asd(prediction, reference, ANISOTROPIC), binary.asd(reference, prediction, ANISOTROPIC)]
    assert directed == pytest.approx(expected, rel=1e-12)
    assert assd_mm(distances) != pytest.approx(np.mean(expected), rel=1e-3)  # MedPy up to 0.4


def test_distances_are_a_frozen_value():
    distances = SurfaceDistances(to_reference_mm=np.array([1.0, 3.0]), to_prediction_mm=np.array([5.0]))
    assert (assd_mm(distances), hd_mm(distances)) == (3.0, 5.0)
    with pytest.raises(AttributeError):
        distances.to_reference_mm = np.zeros(1)  # type: ignore[misc]
