"""How patches are drawn and augmented: numbers only, ours and those of the paper's two tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass

Range = tuple[float, float]

FOREGROUND_SHARE = 0.33
"""Share of patches centred on a foreground voxel (of a random class).

The rest lie anywhere; where voxels are ignored, centred on one that is labelled background, as nnU-Net keeps to what is
labelled.
"""


@dataclass(frozen=True, kw_only=True)
class PatchRecipe:
    """Each `share` is the probability that a patch meets it; intensities lie in [0, 1] meanwhile.

    Mirror images are no part of it: labels decide which axes may be mirrored.
    """

    foreground_share: float = FOREGROUND_SHARE
    rotation_share: float = 0.4
    rotation: Range = (math.pi / 12, math.pi / 12)
    """Largest angle about the depth axis, and about each of the other two."""
    rotation_thick: Range = (math.pi / 6, 0.0)
    """The same where slices are thick (degree of anisotropy 1 and above)."""
    scaling_share: float = 0.4
    scaling: Range = (0.8, 1.25)
    """Above 1 zooms out."""
    spares_thick_depth: bool = True
    """Nothing is scaled or blurred along depth where slices are thick."""
    noise_share: float = 0.15
    noise_sigma: Range = (0.0, 0.005)
    blur_share: float = 0.1
    blur_sigma: Range = (0.5, 1.0)
    brightness_share: float = 0.2
    brightness: Range = (0.75, 1.25)
    contrast_share: float = 0.2
    contrast: Range = (0.75, 1.25)
    low_resolution_share: float = 0.0
    low_resolution: Range = (0.5, 1.0)
    """Zoom in plane, and back."""
    gamma_share: float = 0.4
    gamma: Range = (0.7, 1.5)
    has_even_gamma: bool = False
    """Drawn evenly between its limits; else half of them below 1, as nnU-Net does."""
    inverted_gamma_share: float = 0.0
    """Of those with gamma."""
    keeps_statistics: bool = True
    """Mean and standard deviation are put back after gamma."""


def paper(*, foreground_share: float, largest_scale: float) -> PatchRecipe:
    """What SPAD-Nets' released settings share between both tasks (Luo et al. 2024 leave them out)."""
    return PatchRecipe(
        foreground_share=foreground_share,
        rotation_share=0.2,
        rotation=(math.pi / 2, 0.0),
        rotation_thick=(math.pi / 2, 0.0),
        scaling_share=0.2,
        scaling=(0.7, largest_scale),
        spares_thick_depth=False,
        noise_share=0.1,
        noise_sigma=(0.0, 0.1),
        blur_share=0.1,
        blur_sigma=(0.8, 1.2),
        brightness_share=0.15,
        contrast_share=0.15,
        low_resolution_share=0.15,
        gamma_share=4 / 13,  # none, gamma and inverted gamma are drawn 9 : 3 : 1
        has_even_gamma=True,
        inverted_gamma_share=1 / 4,
        keeps_statistics=False,
    )


USUAL = "usual"
PATCH_RECIPES = {
    USUAL: PatchRecipe(),
    "paper-btcv": paper(foreground_share=0.75, largest_scale=1.4),
    "paper-chaos": paper(foreground_share=0.0, largest_scale=1.1),
}
