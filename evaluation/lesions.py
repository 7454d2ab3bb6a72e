"""How many lesions are found, lesion by lesion, counted by panoptica (https://github.com/BrainLesion/panoptica)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..metrics import LESION_METRICS
from .overlap import check_masks

if TYPE_CHECKING:
    from panoptica import Panoptica_Evaluator

IOU_OF_A_MATCH = 0.5
"""Above it no lesion can match two others (Kirillov et al., CVPR 2019, section 3)."""


def lesion_scores(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float | None]:
    """`lesion_f1` and `panoptic_quality` of two masks.

    A lesion is a connected component, voxels that touch at a corner included. A predicted one is found if its IoU
    with one of the reference is above 0.5. `lesion_f1` is 2 TP / (2 TP + FP + FN) over lesions, also called
    recognition quality; `panoptic_quality` is that times the mean IoU of the lesions found (Kirillov et al. 2019).

    0 if just one mask is empty, None if both are.

    Args:
        prediction: bool mask (D, H, W).
        reference: bool mask (D, H, W).

    Raises:
        ValueError: if the masks are not bool, not 3D or of different shapes.
        InputError: if panoptica is not installed.
    """
    check_masks(prediction, reference)
    if not prediction.any() and not reference.any():
        return dict.fromkeys(LESION_METRICS)
    if not prediction.any() or not reference.any():
        return dict.fromkeys(LESION_METRICS, 0.0)
    result = evaluator().evaluate(prediction.astype(np.uint8), reference.astype(np.uint8))["ungrouped"]
    if result.tp == 0:
        return dict.fromkeys(LESION_METRICS, 0.0)
    return {"lesion_f1": float(result.rq), "panoptic_quality": float(result.pq)}


def require_panoptica(metrics: Iterable[str]) -> None:
    """Raise InputError if one of the metrics needs panoptica and it is not installed."""
    wanted = [name for name in metrics if name in LESION_METRICS]
    if wanted and importlib.util.find_spec("panoptica") is None:
        raise InputError(f"{', '.join(wanted)}: needs panoptica; pip install 'spadunet[lesions]'")


@functools.cache
def evaluator() -> Panoptica_Evaluator:
    """Panoptica, told how lesions are made of masks and matched."""
    require_panoptica(LESION_METRICS)
    from panoptica import (
        CCABackend,
        ConnectedComponentsInstanceApproximator,
        InputType,
        Metric,
        NaiveThresholdMatching,
        Panoptica_Evaluator,
        disable_citation_reminder,
    )

    disable_citation_reminder()  # docs/evaluation.md has it
    return Panoptica_Evaluator(
        expected_input=InputType.SEMANTIC,
        instance_approximator=ConnectedComponentsInstanceApproximator(cca_backend=CCABackend.cc3d),
        instance_matcher=NaiveThresholdMatching(
            matching_metric=Metric.IOU, matching_threshold=IOU_OF_A_MATCH, strict_threshold=True
        ),
        instance_metrics=[Metric.IOU],
        global_metrics=[],
    )
