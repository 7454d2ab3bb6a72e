"""Does the representation get better? A linear probe now and then while a backbone is pre-trained.

The backbone is frozen, as it is at that step. A multinomial logistic regression learns to tell the classes of a few
labelled cases voxel by voxel from its feature maps, and is scored on held-out ones: it finds only what is linear in the
features (Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes").

Letters: C features, N sampled voxels; D, H, W depth, height, width.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..dataset import Dataset
from ..errors import InputError
from ..evaluation.overlap import count_overlap, dice
from ..files import write_text
from ..labels import LabelSet
from ..network.masked import patch_depth
from ..network.vit import PATCH_SIZE
from ..plan import Plan
from ..preprocessing.store import StoredCase, open_case
from ..spacing import Shape
from ..training.splits import choose_cases
from .linear import classify, features_at, fit
from .pictures import save_figure

FeatureMaps = Callable[[Tensor, int], list[Tensor]]
"""(1, 3, D, H, W) and its degree of anisotropy to maps (1, C_i, d_i, h_i, w_i) that all cover the same field."""

CSV_FILE, PNG_FILE = "probe.csv", "probe.png"
FOLD = "0"
NUM_LABELLED, NUM_HELD_OUT = 5, 10
"""At most. Few labels are what pre-training is for, and a probe must not hold the run up."""
NUM_VOXELS = 4096
"""Sampled of the labelled cases together, equally many a class."""
MAX_ZOOM = 4.0
"""Of images smaller than a pre-training crop: a patch of 16 mm sees a hippocampus as two or three tokens."""

log = logging.getLogger("spadunet")


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

    Cases in which only some classes were annotated are left out.

    Args:
        folder: where splits_final.json lies, or is put.

    Raises:
        InputError: if the dataset cannot be split, or no case of a part is wholly annotated.
    """
    train, held_out = (
        [name for name in names if name not in dataset.annotated]
        for names in choose_cases(dataset, folder, FOLD, dry_run=dry_run)
    )
    if not (train and held_out):
        raise InputError(
            f"--probe {dataset.name}: needs cases in which all classes were annotated, in both of its parts"
        )
    return spread(train, NUM_LABELLED), spread(held_out, NUM_HELD_OUT)


def load_probe(
    dataset: Dataset,
    plan: Plan,
    folder: Path,
    cases_folder: Path,
    size_of: Callable[[int], Shape],
    *,
    dry_run: bool = False,
) -> Probe:
    """Read the cases of a preprocessed dataset: at most fifteen boxes as large as a pre-training crop.

    Args:
        folder: where splits_final.json lies, or is put.
        cases_folder: where the stored cases lie.
        size_of: degree of anisotropy to the size of a pre-training crop.

    Raises:
        InputError: if a case is missing or damaged, or the dataset cannot be split.
    """
    labelled, held_out = (
        tuple(read_probe_case(open_case(cases_folder, name), plan.labels, size_of) for name in names)
        for names in choose_probe_cases(dataset, folder, dry_run=dry_run)
    )
    return Probe(name=dataset.name, labels=plan.labels, labelled=labelled, held_out=held_out)


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
    labels = np.concatenate([case.classes.ravel() for case in probe.labelled])
    counts = np.bincount(labels, minlength=num_classes)[:num_classes]
    features, numbers = [], []
    for case in probe.labelled:
        voxels = sample_voxels(case.classes, num_classes, NUM_VOXELS // len(probe.labelled), generator)
        numbers.append(torch.from_numpy(case.classes[tuple(voxels.T)]).long())
        features.append(features_at(feature_maps(case.image, case.da), voxels, case.classes.shape))
    weight, bias = fit(torch.cat(features), torch.cat(numbers), counts)
    scores: dict[str, list[float]] = {structure.name: [] for structure in probe.labels.structures}
    for case in probe.held_out:
        prediction = classify(feature_maps(case.image, case.da), weight, bias, case.classes.shape)
        prediction[case.classes == probe.labels.ignore_class] = 0
        for structure in probe.labels.structures:
            own = [probe.labels.ids.index(label_id) for label_id in structure.ids]
            value = dice(count_overlap(np.isin(prediction, own), np.isin(case.classes, own)))
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


@dataclass(frozen=True, kw_only=True)
class ProbeCurve:
    """A probe, how often it is made, and the folder that its table and picture go to."""

    probe: Probe
    every_steps: int
    folder: Path

    def measure(self, step: int, feature_maps: FeatureMaps) -> dict[str, float]:
        """Score the features after `step` steps of learning; add the scores to table and picture.

        Rows of this step and later ones, of a run that was killed after its last checkpoint, are replaced.
        """
        scores = score(self.probe, feature_maps)
        mean = float(np.nanmean(list(scores.values()))) if any(value == value for value in scores.values()) else 0.0
        fields = ["step", "mean", *scores]
        rows = [row for row in read_rows(self.folder / CSV_FILE, fields) if int(row["step"]) < step]
        rows.append(
            {"step": str(step), "mean": f"{mean:.4f}"} | {name: f"{value:.4f}" for name, value in scores.items()}
        )
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / CSV_FILE, text.getvalue())
        draw_curve(rows, self.folder / PNG_FILE, self.probe.name)
        log.info(
            "probe of %s after %d steps: Dice %.3f (%s)",
            self.probe.name,
            step,
            mean,
            ", ".join(f"{name} {value:.3f}" for name, value in scores.items()),
        )
        return scores


def read_rows(path: Path, fields: Sequence[str]) -> list[dict[str, str]]:
    """Rows of an earlier table; none if it is not there or has other columns."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader) if reader.fieldnames == list(fields) else []


def draw_curve(rows: Sequence[dict[str, str]], path: Path, title: str) -> None:
    """Dice of each structure, and their mean, against steps."""
    from matplotlib.figure import Figure

    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = list(rows[0])[1:]
    for name in names if len(names) < 12 else names[:1]:  # more are told apart only in the table
        is_mean = name == "mean"
        axes.plot(
            steps,
            [float(row[name]) for row in rows],
            marker=".",
            color="black" if is_mean else None,
            linewidth=2 if is_mean else 1,
            label=name,
        )
    axes.set_title(f"linear probe of {title}; step 0: before pre-training", fontsize=10)
    axes.set_xlabel("steps of pre-training")
    axes.set_ylabel("Dice of held-out cases")
    axes.legend()
    save_figure(figure, path)
