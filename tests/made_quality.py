"""A calibration as it is kept with a model, made up."""

from __future__ import annotations

from spadunet.quality import FEATURES, Calibration, ClassCalibration, DiceFit, Trials, Volumes

ZEROS, ONES = (0.0,) * len(FEATURES), (1.0,) * len(FEATURES)
SURE_FIT = DiceFit(means=ZEROS, scales=ONES, weights=(1.0, *ZEROS[1:]), scores=(0.5, 1.0), dice=(0.0, 1.0))
"""Dice rises from 0 to 1 as the soft Dice rises from 0.5 to 1, and nothing else matters."""
TRIALS = Trials(
    num_cases=6,
    num_copies=2,
    seed=0,
    kinds=("noise",),
    num_points=18,
    mean_dice=0.7,
    error=0.1,
    case_error=0.08,
    spearman=0.9,
)


def volumes_of(share_present: float = 1.0) -> Volumes:
    """Of 1 ml, give or take a factor of e."""
    return Volumes(num_cases=10, share_present=share_present, mean_log_ml=0.0, std_log_ml=1.0)


def calibration_of(*names: str, fit: DiceFit = SURE_FIT) -> Calibration:
    """Of classes that all training references have."""
    known = ClassCalibration(volumes=volumes_of(), fit=fit, num_points=18, is_own=True)
    return Calibration(classes=dict.fromkeys(names, known), trials=TRIALS)
