"""How far apart the surfaces of two masks lie.

Letters: P, R numbers of border voxels, or of surface elements, of prediction and reference. `definitions.py` says what
a metric means in each tool, `borders.py` where surfaces run, `nearest.py` how the distances are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import Metric, metric_of
from ..spacing import Spacing
from .borders import border, box_around, surface_elements
from .definitions import DEFAULT, Definition
from .nearest import nearest_mm
from .overlap import check_masks


@dataclass(frozen=True, kw_only=True)
class SurfaceDistances:
    """Distance in mm from each border voxel of one mask to the nearest border voxel of the other, float64.

    `to_reference_mm` (P,) starts at the prediction's border, `to_prediction_mm` (R,) at the reference's. Both are
    empty if either mask is. Surface elements have areas (P,) and (R,), by which they count; border voxels count one
    each.
    """

    to_reference_mm: np.ndarray
    to_prediction_mm: np.ndarray
    prediction_areas: np.ndarray | None = None
    reference_areas: np.ndarray | None = None


def surface_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Spacing,
    metrics: Sequence[str],
    definition: Definition = DEFAULT,
) -> dict[str, float | None]:
    """Surface metrics of two masks by name; None where a mask is empty, or fills the image and has no border.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).
        spacing_mm: voxel size along the masks' axes; (1, 1, 1) for metrics in voxels.
        metrics: names as in `definitions.py`, all in mm or all in voxels.
        definition: whose metrics these are.

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes, or if metrics are in voxels and a voxel's
            side is not 1.
        InputError: if a metric is not known.
    """
    wanted = {name: metric_of(name) for name in metrics}
    if any(metric.length_unit == "voxels" for metric in wanted.values()) and tuple(spacing_mm) != (1, 1, 1):
        raise ValueError(f"metrics in voxels take voxels of side 1, not {tuple(spacing_mm)}: {', '.join(wanted)}")
    distances = surface_distances_mm(prediction, reference, spacing_mm, definition)
    return {name: score(distances, metric, definition) for name, metric in wanted.items()}


def score(distances: SurfaceDistances, metric: Metric, definition: Definition) -> float | None:
    """One surface metric; None if either mask is empty."""
    if metric.surface == "assd":
        return assd_mm(distances)
    if metric.surface == "masd":
        return masd_mm(distances)
    if metric.surface == "asd":
        return asd_mm(distances)
    assert metric.number is not None
    if metric.surface == "hd":
        return hd_mm(distances, metric.number, definition)
    return nsd(distances, metric.number)


def surface_distances_mm(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing, definition: Definition = DEFAULT
) -> SurfaceDistances:
    """Distances between the surfaces of two masks, in both directions.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).
        spacing_mm: voxel size along the masks' axes.
        definition: whose borders.

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
    """
    check_masks(prediction, reference)
    nothing = SurfaceDistances(to_reference_mm=np.zeros(0), to_prediction_mm=np.zeros(0))
    if not prediction.any() or not reference.any():
        return nothing
    box = box_around(prediction | reference)
    prediction, reference = prediction[box], reference[box]
    areas: list[np.ndarray | None] = [None, None]
    if definition.is_area_weighted:
        (start, areas[0]), (goal, areas[1]) = (surface_elements(it, spacing_mm) for it in (prediction, reference))
    else:
        edge = definition.image_edge_is_border
        start, goal = (border(it, image_edge_is_border=edge) for it in (prediction, reference))
        if not start.any() or not goal.any():
            return nothing
    return SurfaceDistances(
        to_reference_mm=nearest_mm(start, goal, spacing_mm),
        to_prediction_mm=nearest_mm(goal, start, spacing_mm),
        prediction_areas=areas[0],
        reference_areas=areas[1],
    )


def assd_mm(distances: SurfaceDistances) -> float | None:
    """Average symmetric surface distance: the mean over the border voxels of both masks; None if either is empty.

    Pooled, as in Heimann et al. 2009, MONAI, and MedPy since 0.5. The mean of the two directed means is MASD.
    """
    pooled = np.concatenate([distances.to_reference_mm, distances.to_prediction_mm])
    return float(np.average(pooled, weights=pooled_areas(distances))) if pooled.size else None


def masd_mm(distances: SurfaceDistances) -> float | None:
    """Mean average surface distance: the mean of the two directed means; None if either mask is empty.

    Beneš and Zitová 2015, and Metrics Reloaded (Maier-Hein et al. 2024). MedPy up to 0.4 called it ASSD
    (https://github.com/loli/medpy/issues/108); a voxel of the smaller border has more weight.
    """
    if not distances.to_reference_mm.size:
        return None
    return float(np.mean([np.average(values, weights=areas) for values, areas in directions(distances)]))


def asd_mm(distances: SurfaceDistances) -> float | None:
    """Average surface distance from the prediction to the reference alone; None if either mask is empty.

    MedPy's `asd(prediction, reference)`. It does not see what of the reference is missing: exchange the masks for that.
    """
    if not distances.to_reference_mm.size:
        return None
    return float(np.average(distances.to_reference_mm, weights=distances.prediction_areas))


def hd_mm(distances: SurfaceDistances, percent: float = 100, definition: Definition = DEFAULT) -> float | None:
    """Hausdorff distance, the largest distance in either direction, or a percentile of it; None if a mask is empty.

    Args:
        distances: between two masks.
        percent: above 0, at most 100 (the largest).
        definition: whose percentiles.
    """
    if not distances.to_reference_mm.size:
        return None
    if definition.pools_percentiles:
        return percentile(np.concatenate([values for values, _ in directions(distances)]), percent, definition)
    return max(
        percentile(values, percent, definition) if areas is None else percentile_by_area(values, areas, percent)
        for values, areas in directions(distances)
    )


def percentile(values: np.ndarray, percent: float, definition: Definition) -> float:
    """A percentile of distances (N,), interpolated linearly."""
    share, last = percent / 100, len(values) - 1
    if definition.rounds_ranks and last:
        share = min(float(np.float32(share) * np.float32(last)) / last, 1.0)
    return float(np.quantile(values, share))


def percentile_by_area(values: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """Smallest of the values (N,) up to which these per cent of the areas (N,) lie, as in surface-distance.

    The sums are taken in its order, by value and then by area, so that rounding cannot lead elsewhere.
    """
    order = np.lexsort((areas, values))
    shares = np.cumsum(areas[order]) / np.sum(areas[order])
    index = min(int(np.searchsorted(shares, percent / 100)), len(values) - 1)
    return float(values[order[index]])


def nsd(distances: SurfaceDistances, tolerance_mm: float) -> float | None:
    """Normalised surface distance, or surface Dice: the share of both surfaces within the tolerance of the other.

    Nikolov et al. 2021, doi:10.2196/26151. None if either mask is empty. Distances between border voxels are compared
    in single precision, as MONAI does: one of exactly the tolerance counts however it was rounded.
    """
    if not distances.to_reference_mm.size:
        return None
    pooled = np.concatenate([distances.to_reference_mm, distances.to_prediction_mm])
    areas = pooled_areas(distances)
    if areas is None:
        return float(np.mean(pooled.astype(np.float32) <= np.float32(tolerance_mm)))
    return float(areas[pooled <= tolerance_mm].sum() / areas.sum())


def directions(distances: SurfaceDistances) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Distances in either direction, with the areas of the elements that they start at."""
    return [
        (distances.to_reference_mm, distances.prediction_areas),
        (distances.to_prediction_mm, distances.reference_areas),
    ]


def pooled_areas(distances: SurfaceDistances) -> np.ndarray | None:
    """Areas of the prediction's elements, then of the reference's (P + R,); None for border voxels."""
    if distances.prediction_areas is None or distances.reference_areas is None:
        return None
    return np.concatenate([distances.prediction_areas, distances.reference_areas])
