"""Learning rate over a run."""

from __future__ import annotations

import math

WARM_UP = 0.03
"""Share of the run in which the rate rises to its peak."""


def learning_rate(progress: float, peak: float, *, warm_up: float = WARM_UP, lowest: float = 0.0) -> float:
    """Linear warm-up, then a cosine down to the lowest rate.

    Args:
        progress: 0 to 1, of steps or minutes, whichever is further.
        warm_up: share of the run in which the rate rises.
        lowest: at the end; a lower peak stays as it is.
    """
    if progress < warm_up:
        return peak * (progress + 1e-3) / (warm_up + 1e-3)
    lowest = min(lowest, peak)
    share = min((progress - warm_up) / (1 - warm_up), 1)
    return lowest + (peak - lowest) * 0.5 * (1 + math.cos(math.pi * share))
