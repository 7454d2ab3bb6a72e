"""Fingerprint to plan: spacing metadata only."""

from __future__ import annotations

import re
import statistics
from typing import Literal

from ..errors import InputError
from ..fingerprint import Fingerprint, IntensityFacts
from ..labels import LabelSet
from ..plan import ImagePlan, IntensityRule, Plan
from ..spacing import MAX_DA, Shape, Spacing, degree_of_anisotropy
from .patch import choose_patch, scale_patch

PERCENTILES = (0.5, 99.5)
"""CT: of the foreground of all images; else: of each image's non-zero voxels (Isensee et al. 2021; Luo et al. 2024)."""

COARSE_SIDE = 128
"""Pixels of the longer side in plane that a coarse spacing leaves of the median image."""

TargetSpacing = Spacing | Literal["median", "coarse", "native"]
Window = tuple[float, float]


def make_plan(
    fingerprint: Fingerprint,
    channel_names: tuple[str, ...],
    labels: LabelSet,
    *,
    optional_channels: tuple[str, ...] = (),
    target_spacing: TargetSpacing = "median",
    window: Window | None = None,
    memory_gb: float = 8,
    patch_size_voxels: Shape | None = None,
) -> Plan:
    """Decide spacing, intensities and patch.

    Args:
        optional_channels: names of channels that a case may lack.
        target_spacing: median of the training cases (as Luo et al. 2024, section 5.1), coarse (`coarse_spacing_mm`),
            native, or given in mm.
        window: intensities that become -1 and 1 in CT channels.
        memory_gb: what training one batch may take with the `base` preset.
        patch_size_voxels: at the target spacing; None for what the memory and the images leave room for.

    Raises:
        InputError: if a window is given and no channel is CT.
    """
    image_plan = plan_images(
        fingerprint,
        channel_names,
        optional_channels=optional_channels,
        target_spacing=target_spacing,
        window=window,
    )
    own_da = image_plan.degree_of_anisotropy
    fixed = None if image_plan.target_spacing_mm == "native" else image_plan.target_spacing_mm
    patches = {
        da: choose_patch(da, median_shape(fingerprint, da, fixed), memory_gb)
        if patch_size_voxels is None
        else scale_patch(patch_size_voxels, own_da, da)
        for da in range(MAX_DA + 1)
    }
    return Plan(
        **dict(image_plan),
        patch_sizes_voxels=patches,
        labels=labels,
        memory_gb=memory_gb,
        fingerprint_digest=fingerprint.digest(),
    )


def plan_images(
    fingerprint: Fingerprint,
    channel_names: tuple[str, ...],
    *,
    optional_channels: tuple[str, ...] = (),
    target_spacing: TargetSpacing = "median",
    window: Window | None = None,
) -> ImagePlan:
    """Decide spacing and intensities, which do not depend on the task; arguments and errors as `make_plan`."""
    if len(fingerprint.intensities) != len(channel_names):
        raise InputError(
            f"the fingerprint has intensities of {len(fingerprint.intensities)} channels, not of {len(channel_names)}; "
            "run spadunet_fingerprint again"
        )
    if window is not None:
        check_window(window, channel_names)
    if target_spacing == "coarse":
        spacing = coarse_spacing_mm(fingerprint)
    else:
        spacing = fingerprint.median_spacing_mm() if isinstance(target_spacing, str) else target_spacing
    return ImagePlan(
        dataset_name=fingerprint.dataset_name,
        channel_names=channel_names,
        optional_channels=optional_channels,
        intensity=tuple(
            choose_intensity(name, facts, window)
            for name, facts in zip(channel_names, fingerprint.intensities, strict=True)
        ),
        target_spacing_mm="native" if target_spacing == "native" else spacing,
        degree_of_anisotropy=fingerprint.da_of(spacing),
    )


def coarse_spacing_mm(fingerprint: Fingerprint) -> Spacing:
    """The median spacing, pixels so large that the median image keeps `COARSE_SIDE` of them along its longer side.

    Slices are then at least as far apart as pixels. Where the median image is no larger than that, the median spacing.
    """
    median = fingerprint.median_spacing_mm()
    factor = max(median_shape(fingerprint, fingerprint.da_of(median), median)[1:]) / COARSE_SIDE
    if factor <= 1:
        return median
    height, width = median[1] * factor, median[2] * factor
    return max(median[0], min(height, width)), height, width


def check_window(window: Window, channel_names: tuple[str, ...]) -> None:
    """Refuse a window that nothing can be looked at through.

    Raises:
        InputError: if it is empty, or no channel is CT.
    """
    low, high = window
    if not float("-inf") < low < high < float("inf"):
        raise InputError(f"--window {low:g} {high:g}: expected two numbers, the lower first")
    if not any(map(is_ct, channel_names)):
        raise InputError(
            f"--window {low:g} {high:g}: none of the channels {list(channel_names)} is CT; "
            "name the channel CT in dataset.json or leave the window out"
        )


def is_ct(channel_name: str) -> bool:
    """True if a channel's name holds the word CT."""
    return "ct" in re.split(r"[^a-z0-9]+", channel_name.lower())


def choose_intensity(channel_name: str, facts: IntensityFacts, window: Window | None) -> IntensityRule:
    """CT: the given window, else percentiles over the dataset, since its scale is absolute. Others: per image."""
    if not is_ct(channel_name):
        return IntensityRule(kind="percentiles", low=PERCENTILES[0], high=PERCENTILES[1])
    low, high = window or (facts.percentile_00_5, facts.percentile_99_5)
    if not low < high:
        raise InputError(
            f"channel {channel_name}: window {low:g} to {high:g}: low must be below high; give --window LOW HIGH"
        )
    return IntensityRule(kind="window", low=low, high=high)


def median_shape(fingerprint: Fingerprint, da: int, spacing_mm: Spacing | None) -> Shape:
    """Median shape at a target spacing; where native, of the cases of this degree of anisotropy, or of all.

    Volumes of another degree count with as many slices as they would have at this one: each degree halves them, as
    merging does.
    """
    cases = [case for case in fingerprint.cases if case.da == da] if spacing_mm is None else []
    cases = cases or list(fingerprint.volumes())
    shapes = []
    for case in cases:
        sizes = [
            size * old / new
            for size, old, new in zip(case.shape, case.spacing_mm, spacing_mm or case.spacing_mm, strict=True)
        ]
        if case.shape[0] > 1:
            sizes[0] *= 2.0 ** (degree_of_anisotropy(spacing_mm or case.spacing_mm) - da)
        shapes.append(sizes)
    depth, height, width = (max(round(statistics.median(sizes)), 1) for sizes in zip(*shapes, strict=True))
    return depth, height, width
