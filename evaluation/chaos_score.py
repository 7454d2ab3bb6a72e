"""The CHAOS challenge's points: four metrics of one organ, each worth 0 to 100.

Kavur et al. 2021, CHAOS Challenge, Medical Image Analysis 69:101950, doi:10.1016/j.media.2020.101950: a value beyond
its threshold is worth nothing; within it, Dice counts in per cent and the others fall linearly from 100 for none to 0
at the threshold. The mean of the four is the score of the organ; a case that is not there scores 0.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_DICE = 0.8
MAX_RAVD_PERCENT = 5.0
MAX_ASSD_MM = 15.0
MAX_MSSD_MM = 60.0


@dataclass(frozen=True, kw_only=True)
class ChaosScore:
    """Points from 0 to 100."""

    dice: float
    ravd: float
    assd: float
    mssd: float

    @property
    def mean(self) -> float:
        """The score of the organ."""
        return (self.dice + self.ravd + self.assd + self.mssd) / 4


def chaos_score(
    *, dice: float | None, ravd_percent: float | None, assd_mm: float | None, mssd_mm: float | None
) -> ChaosScore:
    """Points of one organ; a value that is not defined (None), because a mask is empty, is worth nothing.

    Args:
        dice: 0 to 1.
        ravd_percent: relative volume difference 100 (P - R) / R, or its absolute value; the sign does not count.
        assd_mm: average symmetric surface distance, under the definition `chaos`.
        mssd_mm: maximum symmetric surface distance, that is HD.
    """
    return ChaosScore(
        dice=100 * dice if dice is not None and dice > MIN_DICE else 0.0,
        ravd=points_below(ravd_percent, MAX_RAVD_PERCENT),
        assd=points_below(assd_mm, MAX_ASSD_MM),
        mssd=points_below(mssd_mm, MAX_MSSD_MM),
    )


def points_below(value: float | None, threshold: float) -> float:
    """100 for 0, 0 from the threshold on."""
    return 0.0 if value is None else max(0.0, 100 * (1 - abs(value) / threshold))
