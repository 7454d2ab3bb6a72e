"""Learning rate over a run."""

from __future__ import annotations

import math

WARM_UP = 0.03
"""Share of the run in which the rate rises to its peak."""


def learning_rate(progress: float, peak: float) -> float:
    """Linear warm-up, then a cosine to zero; `progress` runs from 0 to 1 (steps or minutes, whichever is further)."""
    if progress < WARM_UP:
        return peak * (progress + 1e-3) / (WARM_UP + 1e-3)
    return peak * 0.5 * (1 + math.cos(math.pi * min((progress - WARM_UP) / (1 - WARM_UP), 1)))
