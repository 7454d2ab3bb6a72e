"""What public releases call their structures and cases: converters write it, and protocols score by it."""

from __future__ import annotations

from .labels import LabelSet

BTCV_LABELS = (
    "background",
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
BTCV_VALIDATION = (29, 30, 31, 32, 34, 36, 37, 39, 40)
"""The nine scans that Luo et al. 2024 and others validate on; the other 21 train."""
BTCV_PREFIX = "btcv_"
"""Of cases' names; the scan's four digits follow."""
CHAOS_MR_LABELS = ("background", "liver", "right kidney", "left kidney", "spleen")
CHAOS_SEQUENCES = {"t1": "T1-DUAL", "t2": "T2-SPIR"}
"""By the ending of a case's name, as chaos_01_t1."""


def label_set_of(names: tuple[str, ...]) -> LabelSet:
    """Ids as a release has them: 0, 1, 2 … in the order of the names."""
    return LabelSet(names=names, ids=tuple(range(len(names))))
