"""Surface metrics under each definition equal the values of the tool that it is named after."""

from __future__ import annotations

import numpy as np
import pytest
from mask_pairs import ALL_PAIRS, NAMES, MaskPair
from scipy.spatial.distance import cdist

from spadunet.evaluation.definitions import DEFINITIONS
from spadunet.evaluation.surface import surface_scores

TOLERANCES_MM = (0.7, 1.0, 2.1)
NSD = tuple(f"nsd_{tolerance_mm:g}mm" for tolerance_mm in TOLERANCES_MM)

pytestmark = pytest.mark.parametrize("pair", ALL_PAIRS, ids=NAMES)


def ours(pair: MaskPair, definition: str, *metrics: str) -> dict[str, float | None]:
    """Our values under a definition."""
    return surface_scores(pair.prediction, pair.reference, pair.spacing_mm, metrics, DEFINITIONS[definition])


def as_tools_take_it(pair: MaskPair) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Masks and spacing; an image of one slice in two dimensions."""
    if pair.prediction.shape[0] > 1:
        return pair.prediction, pair.reference, pair.spacing_mm
    return pair.prediction[0], pair.reference[0], pair.spacing_mm[1:]


def test_medpy(pair: MaskPair):
    binary = pytest.importorskip("medpy.metric.binary")
    masks = as_tools_take_it(pair)
    prediction, reference, spacing_mm = masks
    there, back = binary.asd(*masks), binary.asd(reference, prediction, spacing_mm)
    expected = {
        "assd_mm": binary.assd(*masks),
        "asd_mm": there,
        "masd_mm": (there + back) / 2,
        "hd_mm": binary.hd(*masks),
        "hd95_mm": binary.hd95(*masks),
    }
    assert ours(pair, "medpy", *expected) == pytest.approx(expected, rel=1e-14, abs=0)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 calls itself so
def test_monai(pair: MaskPair):
    """Under `monai` and `default`; MONAI computes in single precision, percentiles' ranks too."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    *arrays, spacing_mm = as_tools_take_it(pair)
    masks = [torch.from_numpy(np.ascontiguousarray(mask))[None, None] for mask in arrays]  # (1, 1, D, H, W)
    options = {"include_background": True, "spacing": spacing_mm}
    there = compute_average_surface_distance(*masks, **options)
    back = compute_average_surface_distance(*masks[::-1], **options)
    expected = {
        "assd_mm": compute_average_surface_distance(*masks, symmetric=True, **options),
        "masd_mm": (there + back) / 2,
        "asd_mm": there,
        "hd_mm": compute_hausdorff_distance(*masks, **options),
        "hd95_mm": compute_hausdorff_distance(*masks, percentile=95, **options),
        "hd99.5_mm": compute_hausdorff_distance(*masks, percentile=99.5, **options),
    }
    for name, tolerance_mm in zip(NSD, TOLERANCES_MM, strict=True):
        expected[name] = compute_surface_dice(*masks, class_thresholds=[tolerance_mm], **options)
    single = {name: float(value) for name, value in expected.items()}
    assert ours(pair, "monai", *expected) == pytest.approx(single, rel=1e-6, abs=1e-7)
    assert ours(pair, "default", *expected) == pytest.approx(single, rel=1e-5, abs=1e-7)


@pytest.mark.filterwarnings("ignore:Please .*scipy.ndimage. namespace:DeprecationWarning")
def test_surface_distance(pair: MaskPair):
    tool = pytest.importorskip("surface_distance.metrics")
    prediction, reference, spacing_mm = as_tools_take_it(pair)
    distances = tool.compute_surface_distances(reference, prediction, spacing_mm)
    expected = {
        "masd_mm": np.mean(tool.compute_average_surface_distance(distances)),
        "asd_mm": tool.compute_average_surface_distance(distances)[1],
        "hd_mm": tool.compute_robust_hausdorff(distances, 100),
        "hd95_mm": tool.compute_robust_hausdorff(distances, 95),
        "hd50_mm": tool.compute_robust_hausdorff(distances, 50),
    }
    for name, tolerance_mm in zip(NSD, TOLERANCES_MM, strict=True):
        expected[name] = tool.compute_surface_dice_at_tolerance(distances, tolerance_mm)
    assert ours(pair, "surface-distance", *expected) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_chaos_by_its_definition(pair: MaskPair):
    """The challenge's metrics written out: a border voxel misses one of its face neighbours within the image."""
    points = []
    for mask in (pair.prediction, pair.reference):
        missing = np.zeros_like(mask)
        for axis in range(3):
            for step in (-1, 1):
                shifted = np.roll(mask, step, axis)
                edge = [slice(None)] * 3
                edge[axis] = 0 if step == 1 else -1
                shifted[tuple(edge)] = True  # beyond the image is inside
                missing |= ~shifted
        points.append(np.argwhere(mask & missing) * np.asarray(pair.spacing_mm))
    found = ours(pair, "chaos", "assd_mm", "hd_mm")
    if not all(map(len, points)):
        assert found == {"assd_mm": None, "hd_mm": None}
        return
    between = cdist(*points)
    both = np.concatenate([between.min(axis=1), between.min(axis=0)])
    assert found == pytest.approx({"assd_mm": both.mean(), "hd_mm": both.max()}, rel=1e-12)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_all_definitions_share(pair: MaskPair, definition: str):
    """Swapped masks score the same, percentiles rise, a wide tolerance takes all, and masks stay as they are."""
    before = pair.prediction.copy(), pair.reference.copy()
    metrics = ("assd_mm", "masd_mm", "hd50_mm", "hd95_mm", "hd_mm", "nsd_0.1mm", "nsd_1000mm")
    scores = ours(pair, definition, *metrics)
    swapped = ours(pair._replace(prediction=pair.reference, reference=pair.prediction), definition, *metrics)
    assert np.array_equal(before, (pair.prediction, pair.reference))
    values = list(scores.values())
    if None in values:
        assert set(values) == {None}  # a mask that fills the image has no border in CHAOS
        assert definition == "chaos"
        assert swapped == scores
        return
    assert swapped == pytest.approx(scores, rel=1e-12, abs=1e-12)
    _, _, hd50, hd95, hd, near, wide = values
    assert hd50 <= hd95 <= hd
    assert near <= wide == 1
