"""Does the representation get better? A linear probe now and then while a backbone is pre-trained.

The backbone is frozen, as it is at that step. A multinomial logistic regression learns to tell the classes of a few
labelled cases voxel by voxel from its feature maps, and is scored on held-out ones. Only what is linear in the features is
found (Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes").

Letters: C features, K classes, N sampled voxels; D, H, W depth, height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..dataset import Dataset
from ..errors import InputError
from ..evaluation.overlap import dice
from ..labels import LabelSet
from ..network.masked import patch_depth
from ..network.vit import PATCH_SIZE
from ..preprocessing.store import StoredCase
from ..spacing import Shape
from ..training.splits import choose_cases

FeatureMaps = Callable[[Tensor, int], list[Tensor]]
"""(1, 3, D, H, W) and its degree of anisotropy to maps (1, C_i, d_i, h_i, w_i) that all cover the same field."""

FOLD = "0"
NUM_LABELLED, NUM_HELD_OUT = 5, 10
"""At most. Few labels are what pre-training is for, and a probe must not hold the run up."""
NUM_VOXELS = 8192
"""Sampled of the labelled cases together, equally many a class."""
MAX_ZOOM = 4.0
"""Of images smaller than a pre-training crop: a patch of 16 mm sees a hippocampus as two or three tokens."""
PENALTY = 1e-3
"""L2, on features of unit variance."""
MAX_ITERATIONS = 100
PRIOR_SHARES = np.linspace(0, 1, 11)


@dataclass(frozen=True, kw_only=True)
class ProbeCase:
    """A box of a labelled case around its labels."""

    image: Tensor
    """(1, 3, D', H', W') float32 in [-1, 1], enlarged to whole patches."""
    da: int
    classes: np.ndarray
    """(D, H, W) class numbers, not enlarged."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Cases to learn from and to be scored on."""

    name: str
    labels: LabelSet
    labelled: tuple[ProbeCase, ...]
    held_out: tuple[ProbeCase, ...]


def choose_probe_cases(dataset: Dataset, folder: Path, *, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """Names of at most 5 training cases and at most 10 held-out ones of fold 0, spread evenly over the list.

    Args:
        folder: where splits_final.json lies, or is put.

    Raises:
        InputError: if the dataset cannot be split.
    """
    try:
        train, held_out = choose_cases(dataset, folder, FOLD, dry_run=dry_run)
    except InputError as error:
        raise InputError(f"--probe {dataset.name}: fold {FOLD}: {error}") from error
    return spread(train, NUM_LABELLED), spread(held_out, NUM_HELD_OUT)


def spread(names: Sequence[str], num_wanted: int) -> list[str]:
    """That many of the names, or all, evenly spread."""
    count = min(len(names), num_wanted)
    return [names[index * len(names) // count] for index in range(count)]


def read_probe_case(case: StoredCase, labels: LabelSet, size_of: Callable[[int], Shape]) -> ProbeCase:
    """A box no larger than a pre-training crop around the middle of the labels; a smaller image as a whole.

    Args:
        size_of: degree of anisotropy to the size of a pre-training crop.
    """
    crop, shape = size_of(case.da), case.header.geometry.shape
    voxels = case.foreground_voxels()
    voxels = voxels[(voxels[:, 0] > 0) & (voxels[:, 0] < labels.num_classes), 1:]
    middle = (voxels.min(0) + voxels.max(0)) // 2 if len(voxels) else np.array(shape) // 2
    depth, height, width = (min(c, s) for c, s in zip(crop, shape, strict=True))
    size = (depth, height, width)
    first = [min(max(int(m) - n // 2, 0), s - n) for m, n, s in zip(middle, size, shape, strict=True)]
    image, classes = case.read_patch(first, size)
    seen = [channel for channel in range(len(image)) if channel not in case.header.missing_channels]
    grey = torch.from_numpy(image[seen].mean(0))  # (D, H, W): a task's channel map starts as this mean too
    enlarged = enlarge(grey[None, None], crop, case.da)
    return ProbeCase(image=enlarged.expand(-1, 3, -1, -1, -1), da=case.da, classes=classes)


def enlarge(x: Tensor, crop: Shape, da: int) -> Tensor:
    """Enlarge (1, 1, D, H, W) to fill a crop, at most MAX_ZOOM times, and to whole patches, so that all maps coincide.

    A single slice stays one.
    """
    size = x.shape[2:]
    grows = [axis for axis in range(3) if axis > 0 or size[0] > 1]
    zoom = min(MAX_ZOOM, *(crop[axis] / size[axis] for axis in grows))
    multiples = (patch_depth(da) if size[0] > 1 else 1, PATCH_SIZE, PATCH_SIZE)
    target = [
        max(round(s * (zoom if axis in grows else 1) / m), 1) * m
        for axis, (s, m) in enumerate(zip(size, multiples, strict=True))
    ]
    return functional.interpolate(x, size=target, mode="trilinear", align_corners=False)


def score(probe: Probe, feature_maps: FeatureMaps) -> dict[str, float]:
    """Mean Dice of each structure over the held-out cases that have it or were given it; NaN where none has.

    The same features always give the same scores; no random state but its own is touched.
    """
    generator = np.random.default_rng(0)
    num_classes = probe.labels.num_classes
    counts = sum(np.bincount(case.classes.ravel(), minlength=num_classes + 1)[:num_classes] for case in probe.labelled)
    features, numbers = [], []
    for case in probe.labelled:
        voxels = sample_voxels(case.classes, num_classes, NUM_VOXELS // len(probe.labelled), generator)
        numbers.append(torch.from_numpy(case.classes[tuple(voxels.T)]))
        features.append(features_at(feature_maps(case.image, case.da), voxels, case.classes.shape))
    weight, bias = fit(torch.cat(features), torch.cat(numbers), counts)
    scores: dict[str, list[float]] = {structure.name: [] for structure in probe.labels.structures}
    for case in probe.held_out:
        prediction = classify(feature_maps(case.image, case.da), weight, bias, case.classes.shape)
        prediction[case.classes == probe.labels.ignore_class] = 0
        for structure in probe.labels.structures:
            own = [probe.labels.ids.index(label_id) for label_id in structure.ids]
            value = dice(np.isin(prediction, own), np.isin(case.classes, own))
            if value is not None:
                scores[structure.name].append(value)
    return {name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()}


def sample_voxels(classes: np.ndarray, num_classes: int, num_wanted: int, generator: np.random.Generator) -> np.ndarray:
    """(N, 3) voxels, as many of each class that is there, with replacement; N is at most `num_wanted`."""
    flat = classes.ravel()
    present = [number for number in np.unique(flat) if number < num_classes]
    places = [np.flatnonzero(flat == number) for number in present]
    drawn = [generator.choice(of_class, num_wanted // len(present)) for of_class in places]
    return np.column_stack(np.unravel_index(np.concatenate(drawn), classes.shape))


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
    added to the bias, that share with which the labelled voxels, each weighted by how many it stands for, have the best Dice.

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
        optimiser.step(loss)  # type: ignore[no-untyped-call]
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
