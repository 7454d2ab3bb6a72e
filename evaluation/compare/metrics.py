"""Which metrics tell that one model is better, and which are tested together."""

from __future__ import annotations

import re
from typing import Literal

from ...errors import InputError
from ...metrics import LESION_METRICS, Metric, metric_of

Family = Literal["overlap", "surface", "volume", "instances", "points"]
"""Metrics of one family say much the same, and are corrected for together."""


def comparable(name: str) -> Metric | None:
    """The metric of a name; None if it does not tell which model is better, as a volume."""
    metric = metric_of(name)
    return None if metric.is_higher_better is None else metric


def family_of(metric: Metric) -> Family:
    """The sort of metric that it is tested with."""
    if metric.surface:
        return "surface"
    if metric.name in LESION_METRICS:
        return "instances"
    return metric.kind if metric.kind in ("overlap", "points") else "volume"


def is_surface(name: str) -> bool:
    """Whether its definition differs between tools; False of what is no metric."""
    try:
        return bool(metric_of(name).surface)
    except InputError:
        return False


def without_unit(name: str) -> str:
    """A metric's name but for its unit of length."""
    return re.sub("_?(mm|voxels)$", "", name)
