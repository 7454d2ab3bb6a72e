"""What is measured of each class, by whose definition, and what the numbers mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..metrics import CHAOS_METRICS, DEFAULT_METRICS, LESION_METRICS, metric_of
from ..missing import DEFAULT_MISSING, EVERYWHERE, POLICIES, Missing
from ..scores import CaseScore, ClassScore, Scores
from ..spacing import Spacing
from .centreline import cldice
from .chaos_score import MAX_ASSD_MM, MAX_MSSD_MM, MAX_RAVD_PERCENT, MIN_DICE, chaos_score
from .definitions import DEFINITIONS
from .lesions import lesion_scores
from .overlap import VoxelCounts, count_overlap, dice, iou, precision, sensitivity
from .surface import surface_scores
from .volume import ravd_percent, rvd_percent, volume_ml

OF_COUNTS = {
    "dice": dice,
    "iou": iou,
    "sensitivity": sensitivity,
    "precision": precision,
    "ravd_percent": ravd_percent,
    "rvd_percent": rvd_percent,
}
UNIT_SPACING: Spacing = (1.0, 1.0, 1.0)

SENTENCES = {
    "dice": "2 |P and R| / (|P| + |R|), P and R the voxels of prediction and reference; 0 if one of them is empty, not "
    "defined if both are",
    "iou": "|P and R| / |P or R|, P and R the voxels of prediction and reference; 0 if one of them is empty, not "
    "defined if both are",
    "sensitivity": "|P and R| / |R|, P and R the voxels of prediction and reference; not defined if R is empty",
    "precision": "|P and R| / |P|, P and R the voxels of prediction and reference; not defined if P is empty",
    "cldice": "harmonic mean of the share of the prediction's skeleton inside the reference and of the reference's "
    "skeleton inside the prediction, in voxels (Shit et al. 2021); not defined if one is empty",
    "lesion_f1": "2 TP / (2 TP + FP + FN) over lesions: components connected by faces, edges or corners, matched where "
    "their IoU is above 0.5 (by panoptica); 0 if one mask is empty, not defined if both are",
    "panoptic_quality": "lesion F1 times the mean IoU of the matched lesions (Kirillov et al. 2019, by panoptica); "
    "0 if one mask is empty, not defined if both are",
    "ravd_percent": "100 | |P| - |R| | / |R|, per cent without sign, P and R the voxels of prediction and reference; "
    "not defined if R is empty",
    "chaos_score": "the CHAOS challenge's score, 0 to 100: mean of the points of Dice (100 Dice above "
    f"{MIN_DICE:g}, else 0) and of RAVD, ASSD and MSSD, which is HD (100 for 0, falling to 0 at "
    f"{MAX_RAVD_PERCENT:g} %, {MAX_ASSD_MM:g} mm and {MAX_MSSD_MM:g} mm); 0 if one mask is empty, not defined if both "
    "are",
    "rvd_percent": "100 (|P| - |R|) / |R|, per cent, below 0 where the prediction is the smaller one, P and R the "
    "voxels of prediction and reference; not defined if R is empty",
    "volume_ml": "volume of the prediction in ml, by the voxel size in the reference's header",
    "reference_volume_ml": "volume of the reference in ml, by the voxel size in its header",
}
MEANS = (
    "of a class over the cases that count, then over the classes that have a mean; a class that was not annotated in a "
    "case counts for nothing there"
)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is measured, by whose definition, and what a missing class counts."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    definition: str = "default"
    """Name in DEFINITIONS."""
    missing: Missing = DEFAULT_MISSING

    def __post_init__(self) -> None:
        if "chaos_score" in self.metrics and self.definition != "chaos":
            raise InputError(
                f"chaos_score: is of the surface metrics that CHAOS defines, not {self.definition}; "
                "give --definition chaos"
            )

    def sentences(self) -> dict[str, str]:
        """What each metric means, and how means are taken."""
        definition = DEFINITIONS[self.definition]
        told = {name: SENTENCES.get(name) or definition.describe(name) for name in self.metrics}
        return told | {"missing": f"{POLICIES[self.missing]}; {EVERYWHERE}", "mean": MEANS}


DEFAULT_SCORING = Scoring()


def score_class(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Spacing, scoring: Scoring = DEFAULT_SCORING
) -> ClassScore:
    """All metrics of one class.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).
        spacing_mm: voxel size along the masks' axes.

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
        InputError: if a metric needs a library that is not installed.
    """
    counts = count_overlap(prediction, reference)
    values: dict[str, float | None] = {}
    values |= {name: metric(counts) for name, metric in OF_COUNTS.items() if name in scoring.metrics}
    values |= {"volume_ml": volume_ml(counts.prediction, spacing_mm)}
    values |= {"reference_volume_ml": volume_ml(counts.reference, spacing_mm)}
    wanted = dict.fromkeys((*scoring.metrics, *(CHAOS_METRICS if "chaos_score" in scoring.metrics else ())))
    for unit, sides in (("mm", spacing_mm), ("voxels", UNIT_SPACING)):
        names = [name for name in wanted if metric_of(name).length_unit == unit]
        if names:
            values |= surface_scores(prediction, reference, sides, names, DEFINITIONS[scoring.definition])
    if "chaos_score" in scoring.metrics:
        values["chaos_score"] = chaos_points(counts, values["assd_mm"], values["hd_mm"])
    if "cldice" in scoring.metrics:
        values["cldice"] = cldice(prediction, reference)
    if not LESION_METRICS.isdisjoint(scoring.metrics):
        values |= lesion_scores(prediction, reference)
    return ClassScore(
        values={name: values[name] for name in scoring.metrics},
        num_prediction_voxels=counts.prediction,
        num_reference_voxels=counts.reference,
        num_common_voxels=counts.common,
    )


def chaos_points(counts: VoxelCounts, assd_mm: float | None, mssd_mm: float | None) -> float | None:
    """CHAOS's score of a class, 0 to 100; None where there was nothing to find and nothing was found."""
    if not counts.prediction and not counts.reference:
        return None
    found = chaos_score(dice=dice(counts), ravd_percent=ravd_percent(counts), assd_mm=assd_mm, mssd_mm=mssd_mm)
    return found.mean


def gather_scores(
    cases: Iterable[CaseScore],
    scoring: Scoring = DEFAULT_SCORING,
    *,
    not_predicted: Sequence[str] = (),
    failed: Iterable[str] = (),
) -> Scores:
    """Scores of cases, sorted by name, that say what they mean."""
    return Scores(
        metrics=scoring.metrics,
        definition=scoring.definition,
        missing=scoring.missing,
        definitions=scoring.sentences(),
        cases=tuple(sorted(cases, key=lambda case: case.case)),
        not_predicted=tuple(not_predicted),
        failed=tuple(sorted(failed)),
    )
