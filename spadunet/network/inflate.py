"""2D weights made fit for a SPAD network: other patch sizes, depth, and images in [-1, 1].

Letters: O output and I input channels of a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def resize_kernel(weight: Tensor, size: int) -> Tensor:
    """A 2D kernel (O, I, k, k) drawn at another size, (O, I, size, size), by bicubic interpolation.

    Its values are kept, not their sum: that is how EVA-02's own code takes its patch embedding from 14 to 16.
    """
    return functional.interpolate(weight, size=(size, size), mode="bicubic", align_corners=False)


def inflate_kernel(weight: Tensor, depth: int) -> Tensor:
    """A 2D kernel (O, I, k, k) repeated along depth and divided by it, (O, I, depth, k, k).

    The depth taps sum to the 2D kernel (Zhang et al. 2022): pooled for one slice, it is the 2D kernel again.
    """
    return (weight / depth)[:, :, None].repeat(1, 1, depth, 1, 1)


def fold_normalisation(
    weight: Tensor, bias: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Kernel and bias that do to images in [-1, 1] what the given ones do to normalised images.

    Of an image x in [-1, 1] they saw ((x + 1) / 2 - mean) / std. Exact but for the rim of a padded image.

    Args:
        weight: (O, I, k, k), of a layer with bias (O,).
        mean, std: of each input channel, of images in [0, 1].
    """
    mean_of, std_of = (torch.tensor(values, dtype=weight.dtype) for values in (mean, std))
    offset = (0.5 - mean_of) / std_of  # of a voxel of 0
    scale = 1 / (2 * std_of)
    return weight * scale[:, None, None], bias + (weight.sum(dim=(2, 3)) * offset).sum(dim=1)
