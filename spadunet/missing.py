"""What a class that was missed, or found where there is none, counts in the means.

A policy changes no value of a case, only what enters the means:

- worst: the worst that any prediction could reach in this image. Overlaps and points 0; distances the image's
  diagonal; RAVD that of a prediction of the whole image.
- zero: overlaps and points 0; else the value, where it is defined: RAVD of a missed class is 100 %, distances are left
  out.
- nan: left out.

A value that is not defined though both masks have the class counts the same: CHAOS's border of a mask that fills the
image is empty.

Whatever the policy, nothing but a volume counts where both masks are empty (there was nothing to find), nor do
sensitivity and RAVD count where the reference is: no prediction could change them. A volume is a size, of which neither
more nor less is better: under worst and zero it counts as it is, also the 0 ml where it is missed or in neither mask;
nan leaves both out. So it is with the signed RVD, -100 % where the class is missed.

Only under worst can missing a class improve no mean. Under zero it improves a mean distance, and RAVD where the class
would have been drawn more than twice as large; under nan any mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .metrics import Metric
from .spacing import Shape, Spacing

Missing = Literal["worst", "zero", "nan"]
Outcome = Literal["valid", "missed", "false alarm", "absent", "not annotated"]
"""Of a class in a case. Valid: in both masks. Absent: in neither."""

DEFAULT_MISSING: Missing = "worst"

POLICIES: dict[Missing, str] = {
    "worst": "a class that is missed or a false alarm counts the worst that the image allows: 0 for overlaps and "
    "points, the image's diagonal for distances, for RAVD what a prediction of the whole image has; volumes and RVD "
    "count as they are",
    "zero": "a class that is missed or a false alarm counts 0 for overlaps and points; its distances are left out of "
    "the means, so that missing a class can improve these; volumes, RAVD and RVD count as they are",
    "nan": "only where both masks have a class does it count in the means, so that missing a class can improve them",
}
EVERYWHERE = (
    "where both masks are empty, nothing but a volume can count; where the reference is empty, sensitivity, RAVD and "
    "RVD cannot"
)


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How large an image is; what the worst prediction in it can reach."""

    shape_voxels: Shape
    spacing_mm: Spacing
    num_voxels: int
    """That count: all but those that the reference ignores."""

    @property
    def diagonal_mm(self) -> float:
        """From corner to corner of the outermost voxels."""
        return math.hypot(*(n * s for n, s in zip(self.shape_voxels, self.spacing_mm, strict=True)))

    @property
    def diagonal_voxels(self) -> float:
        """As `diagonal_mm`, with voxels of side 1."""
        return math.hypot(*self.shape_voxels)


def counted(
    metric: Metric,
    value: float | None,
    *,
    outcome: Outcome,
    policy: Missing,
    extent: Extent | None,
    num_reference_voxels: int,
) -> float | None:
    """What a value counts in a mean; None if it is left out.

    Args:
        value: as the metric defines it; None where it does not.
        extent: of the case's image; `worst` needs it where a distance or RAVD was missed.

    Raises:
        ValueError: if it is needed and not known.
    """
    if outcome == "valid" and value is not None:
        return value
    if policy == "nan" or outcome == "not annotated":
        return None
    if outcome == "absent":
        return value
    if outcome == "false alarm" and metric.needs_reference:
        return None
    if metric.kind in ("overlap", "points"):
        return 0.0
    if metric.kind in ("volume", "signed difference") or policy == "zero":
        return value
    if extent is None:
        raise ValueError(
            f"the worst {metric.title} of a missing class needs the image's size, which is not known; score again"
        )
    if metric.kind == "distance":
        return extent.diagonal_mm if metric.unit == "mm" else extent.diagonal_voxels
    return 100.0 * max(extent.num_voxels - num_reference_voxels, num_reference_voxels) / num_reference_voxels
