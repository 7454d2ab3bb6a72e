"""A linear classifier of voxels from feature maps.

Letters: C features, K classes, N sampled voxels; D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

PENALTY = 0.1
"""L2, on features of unit variance."""
MAX_ITERATIONS = 50
PRIOR_SHARES = np.linspace(0, 1, 11)


def features_at(maps: Sequence[Tensor], voxels: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Maps (1, C_i, …), interpolated linearly, at voxels (N, 3) of a grid over the same field: (N, sum of C_i)."""
    places = torch.from_numpy((voxels + 0.5) / np.array(shape) * 2 - 1).float()
    grid = places.flip(1)[None, None, None].to(maps[0].device)  # (1, 1, 1, N, 3), width first as torch wants it
    columns = [
        functional.grid_sample(of_map.float(), grid, padding_mode="border", align_corners=False)[0, :, 0, 0].T
        for of_map in maps
    ]
    return torch.cat(columns, 1)


def fit(features: Tensor, numbers: Tensor, counts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Weight (K, C) and bias (K,) of a logistic regression.

    It learns from voxels of equally many a class. Real ones are mostly background: a share of the log frequencies is
    added to the bias, the one with which the learned voxels, weighted by how many each stands for, have the best Dice.

    Args:
        features: (N, C).
        numbers: (N,) class numbers.
        counts: (K,) voxels of each class in the labelled cases.
    """
    numbers = numbers.to(features.device)
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    x = (features - mean) / std
    weight = torch.zeros(len(counts), x.shape[1], device=x.device, requires_grad=True)
    bias = torch.zeros(len(counts), device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = functional.cross_entropy(x @ weight.T + bias, numbers) + PENALTY / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    with torch.no_grad():
        prior = torch.from_numpy(np.log(np.maximum(counts, 1) / counts.sum())).float().to(x.device)
        logits = x @ weight.T + bias
        stands_for = torch.from_numpy(counts).to(x.device) / torch.bincount(numbers, minlength=len(counts)).clamp(min=1)
        best = max(PRIOR_SHARES, key=lambda share: weighted_dice(logits + share * prior, numbers, stands_for[numbers]))
        scaled = weight / std
        return scaled, bias + best * prior - scaled @ mean


def weighted_dice(logits: Tensor, numbers: Tensor, weights: Tensor) -> float:
    """Mean Dice of the classes but background over voxels that each stand for `weights` many."""
    prediction = logits.argmax(1)
    values = []
    for number in range(1, logits.shape[1]):
        found, there = prediction == number, numbers == number
        total = (weights * (found.float() + there.float())).sum()
        if total > 0:
            values.append(float(2 * (weights * (found & there)).sum() / total))
    return sum(values) / max(len(values), 1)


def classify(maps: Sequence[Tensor], weight: Tensor, bias: Tensor, shape: Sequence[int]) -> np.ndarray:
    """Class numbers (D, H, W) of a grid over the maps' field.

    A linear map and a linear interpolation may be swapped: interpolated are K logits, not C features.
    """
    logits = bias.view(1, -1, 1, 1, 1)
    for of_map, part in zip(maps, weight.split([of_map.shape[1] for of_map in maps], 1), strict=True):
        coarse = torch.einsum("kc,bcdhw->bkdhw", part, of_map.float())
        logits = logits + functional.interpolate(coarse, size=tuple(shape), mode="trilinear", align_corners=False)
    return logits[0].argmax(0).cpu().numpy()
