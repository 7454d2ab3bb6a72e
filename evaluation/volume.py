"""How large two masks are, and how far the sizes lie apart."""

from __future__ import annotations

import math

from ..spacing import Spacing
from .overlap import VoxelCounts


def volume_ml(num_voxels: int, spacing_mm: Spacing) -> float:
    """Volume of so many voxels in millilitres; 0 of none.

    Args:
        spacing_mm: voxel size along the axes, in mm.
    """
    return num_voxels * math.prod(spacing_mm) / 1000


def ravd_percent(counts: VoxelCounts) -> float | None:
    """Relative absolute volume difference 100 · | |P| - |R| | / |R|, in per cent; None without a reference.

    As the CHAOS challenge (Kavur et al. 2021) and Heimann et al. 2009 have it. MedPy's `ravd` has the same name and
    is the signed fraction: `rvd_percent` / 100.
    """
    signed = rvd_percent(counts)
    return None if signed is None else abs(signed)


def rvd_percent(counts: VoxelCounts) -> float | None:
    """Relative volume difference 100 · (|P| - |R|) / |R|, in per cent; None without a reference.

    Below zero where the prediction is the smaller one, -100 where it is empty.
    """
    if not counts.reference:
        return None
    return 100 * (counts.prediction - counts.reference) / counts.reference
