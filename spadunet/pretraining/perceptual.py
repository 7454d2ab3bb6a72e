"""How unlike two images look, slice by slice: LPIPS with weights that the user brings, or structural similarity.

Letters: N slices (2D images) of H × W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from ..weights import read_weights
from .sampling import generator_of

MAX_SLICES = 24
"""Of each volume, drawn anew each time: more of them cost time and say little more."""

# VGG-16 (Simonyan and Zisserman 2015): output channels by stage, number of convolutions, pooling in between.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# ImageNet's mean and standard deviation, for images in [-1, 1].
SHIFT = (2 * 0.485 - 1, 2 * 0.456 - 1, 2 * 0.406 - 1)
SCALE = (2 * 0.229, 2 * 0.224, 2 * 0.225)
NORM_EPSILON = 1e-10

SSIM_WINDOW = 8
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
MAX_SCALES = 4


class Lpips(nn.Module):
    """Learned perceptual distance of images (Zhang et al. 2018): weighted squared differences of VGG-16's features.

    The convolutions are numbered as in torchvision's `vgg16().features`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.tapped: list[int] = []
        inputs = 3
        for width, count in STAGES:
            if self.tapped:
                self.features.append(nn.MaxPool2d(2))
            for _ in range(count):
                self.features.append(nn.Conv2d(inputs, width, 3, padding=1))
                self.features.append(nn.ReLU())
                inputs = width
            self.tapped.append(len(self.features))
        self.linear = nn.ParameterList(torch.zeros(width) for width, _ in STAGES)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)

    def tapped_features(self, x: Tensor) -> list[Tensor]:
        """Features after the last activation of each stage, of unit length at each pixel."""
        x = (x - self.shift) / self.scale
        found = []
        for first, last in pairwise([0, *self.tapped]):
            x = self.features[first:last](x)
            found.append(x / (x.float().norm(dim=1, keepdim=True) + NORM_EPSILON))
        return found

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """(N, 3, H, W) twice, in [-1, 1], H and W ≥ 16, to the mean distance over slices and pixels."""
        pairs = zip(self.linear, self.tapped_features(image), self.tapped_features(reference), strict=True)
        distances = [functional.linear((a - b).float().square().movedim(1, -1), w[None]).mean() for w, a, b in pairs]
        return torch.stack(distances).sum()


def load_lpips(paths: Sequence[Path]) -> Lpips:
    """LPIPS with weights from files, frozen.

    Read are torchvision's VGG-16 with LPIPS' linear layers (version 0.1), in one file or two, and the whole state of
    `lpips.LPIPS(net="vgg")` or of MONAI's `PerceptualLoss(network_type="vgg")`; PyTorch or safetensors files.

    Raises:
        InputError: if a file cannot be read, or a weight is missing or of another shape.
    """
    network = Lpips()
    state: dict[str, Tensor] = {}
    for path in paths:
        try:
            tensors = read_weights(path)
        except InputError as error:
            raise InputError(f"--perceptual-weights {error}") from error
        for name, value in tensors.items():
            if (ours := our_name(name)) is not None:
                state[ours] = value.flatten() if ours.startswith("linear.") else value
    files = " and ".join(str(path) for path in paths)
    for name, own in network.state_dict().items():
        if name not in state:
            what = (
                "VGG-16's convolutions; give torchvision's vgg16 weights"
                if name.startswith("features.")
                else "LPIPS' linear layers lin0 to lin4; give its vgg.pth (version 0.1)"
            )
            raise InputError(f"--perceptual-weights {files}: lacks {name}, one of {what} as well")
        if state[name].shape != own.shape:
            raise InputError(
                f"--perceptual-weights {files}: {name} has shape {tuple(state[name].shape)}, "
                f"not {tuple(own.shape)}: weights of another network; give those of VGG-16"
            )
    network.load_state_dict(state, strict=False)
    return network.eval().requires_grad_(False)


def our_name(name: str) -> str | None:
    """Name in `Lpips` of a tensor from any of the layouts; None for one that is not needed."""
    if found := re.search(r"(?:^|\.)(?:features|net\.slice\d)\.(\d+)\.(weight|bias)$", name):
        return f"features.{found[1]}.{found[2]}"
    if found := re.search(r"(?:^|\.)lin(?:s\.)?(\d)\.model\.1\.weight$", name):
        return f"linear.{found[1]}"
    return None


def structural_dissimilarity(image: Tensor, reference: Tensor) -> Tensor:
    """One minus structural similarity (Wang et al. 2004), averaged over up to four scales, each half of the finer one.

    It stands in for LPIPS where there are no weights: unlike L1 it counts a lost edge or texture for as much in a dark
    or faint region as in a bright one. Of the channels' mean, in square windows that overlap by half: an eleventh of
    the time of a Gaussian window at every pixel. Between 0 and 2; where the window is larger than the image, it is cut.

    Args:
        image, reference: (N, C, H, W) in [-1, 1].
    """
    a, b = (0.5 * (x.float().mean(1, keepdim=True) + 1) for x in (image, reference))  # (N, 1, H, W) in [0, 1]
    losses = []
    for _ in range(MAX_SCALES):
        losses.append(1 - similarity_of_windows(a, b).mean())
        if min(a.shape[2:]) < 2 * SSIM_WINDOW:
            break
        a, b = (functional.avg_pool2d(x, 2) for x in (a, b))
    return torch.stack(losses).mean()


def similarity_of_windows(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity in windows: (N, 1, H, W) in [0, 1] twice, to one value a window."""
    window = [min(SSIM_WINDOW, size) for size in a.shape[2:]]
    stride = [max(size // 2, 1) for size in window]
    moments = torch.cat([a, b, a * a, b * b, a * b], dim=1)
    mean_a, mean_b, aa, bb, ab = functional.avg_pool2d(moments, window, stride).unbind(1)
    luminance = (2 * mean_a * mean_b + SSIM_C1) / (mean_a**2 + mean_b**2 + SSIM_C1)
    variances = (aa - mean_a**2) + (bb - mean_b**2)
    return luminance * (2 * (ab - mean_a * mean_b) + SSIM_C2) / (variances + SSIM_C2)


def choose_slices(depth: int, seed: int, numbers: Sequence[int]) -> Tensor:
    """Which slices of each volume are compared: (B, at most 24) int64, ascending, no slice twice.

    Args:
        numbers: of the samples, which alone decide: a sample has the same slices on any rank.
    """
    count = min(depth, MAX_SLICES)
    chosen = [
        np.sort(generator_of(seed, number, "perceptual").choice(depth, count, replace=False)) for number in numbers
    ]
    return torch.from_numpy(np.stack(chosen))


def take_slices(x: Tensor, slices: Tensor) -> Tensor:
    """(B, C, D, H, W) and (B, S) to those slices as images: (B*S, C, H, W)."""
    batch = torch.arange(len(x), device=x.device)[:, None]
    return x.movedim(2, 1)[batch, slices.to(x.device)].flatten(0, 1)
