"""Metrics of 13 organs side by side with MedPy 0.5, MONAI 1.6 and surface-distance 0.1, in one run.

    pip install medpy surface-distance
    python benchmarks/metrics.py

Draws organs as large as those of an abdominal CT, bent by smooth noise, and a prediction that strays from them by some
millimetres and has an island far away. Each tool takes the two label maps, and computes the same metrics as ours under
the definition of its name, in a process of its own: Dice, ASSD, HD, HD95 and, where it has it, NSD at 2 mm. Ours is
what spadunet_evaluate does between reading and writing. Prints times as ratios and the peak memory of each process,
stops if a value differs, and ends with 1 if a ratio is below its goal or ours takes more than 1 GB. MedPy is measured
on one organ and its time multiplied by their number, unless --medpy-organs 13.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from spadunet.evaluation.evaluate import evaluate_case
from spadunet.evaluation.scoring import Scoring
from spadunet.image import LabelMap
from spadunet.labels import LabelSet

GRIDS = {(96, 320, 320): (3.0, 1.2, 1.2), (200, 512, 512): (2.0, 0.76, 0.76)}
"""Spacing in mm by shape."""
ORGANS = {
    "spleen": ((0.62, 0.62, 0.78), (50, 35, 25)),
    "right kidney": ((0.40, 0.66, 0.30), (55, 28, 25)),
    "left kidney": ((0.42, 0.66, 0.68), (55, 28, 25)),
    "gallbladder": ((0.45, 0.40, 0.36), (25, 15, 15)),
    "oesophagus": ((0.75, 0.56, 0.53), (65, 9, 11)),
    "liver": ((0.66, 0.46, 0.30), (75, 75, 85)),
    "stomach": ((0.64, 0.40, 0.64), (50, 35, 50)),
    "aorta": ((0.45, 0.62, 0.53), (110, 10, 10)),
    "inferior vena cava": ((0.45, 0.60, 0.44), (100, 9, 13)),
    "portal and splenic veins": ((0.52, 0.50, 0.50), (30, 12, 40)),
    "pancreas": ((0.50, 0.45, 0.54), (20, 12, 55)),
    "right adrenal gland": ((0.56, 0.60, 0.38), (14, 6, 10)),
    "left adrenal gland": ((0.56, 0.60, 0.62), (14, 6, 10)),
}
"""Centre as a share of the image and half axes in mm, both (d, h, w), by name; labels count from 1."""
METRICS = {
    "medpy": ("assd_mm", "hd_mm", "hd95_mm"),
    "monai": ("assd_mm", "hd_mm", "hd95_mm", "nsd_2mm"),
    "surface-distance": ("masd_mm", "hd_mm", "hd95_mm", "nsd_2mm"),
}
"""By tool and definition, beside Dice."""
GOALS = {"medpy": 80, "monai": 9, "surface-distance": 1.7}
"""How many times as fast as the tool ours has to be."""
MAX_GB = 1.0
"""That our process may take at its peak."""
ROUNDING = {"medpy": 1e-12, "monai": 1e-5, "surface-distance": 1e-12}
"""MONAI computes in single precision."""
Values = dict[str, dict[str, float]]
Tool = Callable[[np.ndarray, np.ndarray, tuple[float, ...], int], Values]


def draw(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a reference, uint8 (D, H, W)."""
    generator = np.random.default_rng(0)
    prediction, reference = np.zeros((2, *shape), np.uint8)
    for label, (centre, half_axes_mm) in enumerate(ORGANS.values(), start=1):
        middle = [share * size for share, size in zip(centre, shape, strict=True)]
        half_axes = [mm / step for mm, step in zip(half_axes_mm, spacing_mm, strict=True)]
        box = tuple(
            slice(max(int(at - 1.4 * half), 0), min(int(at + 1.4 * half) + 2, size))
            for at, half, size in zip(middle, half_axes, shape, strict=True)
        )
        axes = [
            (np.arange(side.start, side.stop) - at) / half
            for side, at, half in zip(box, middle, half_axes, strict=True)
        ]
        d, h, w = np.meshgrid(*axes, indexing="ij", sparse=True)
        bent = d**2 + h**2 + w**2 + 0.2 * smooth_noise(generator, [side.stop - side.start for side in box], 6)
        strayed = bent + 0.1 * smooth_noise(generator, list(bent.shape), 14)
        reference[box][bent < 1] = label
        prediction[box][strayed < 1] = label
    d, h, w = (int(share * size) for share, size in zip((0.3, 0.35, 0.7), shape, strict=True))
    prediction[d : d + 2, h : h + 5, w : w + 5] = list(ORGANS).index("stomach") + 1  # an island
    return prediction, reference


def smooth_noise(generator: np.random.Generator, shape: list[int], knots: int) -> np.ndarray:
    """Noise of variance near 1 between some knots an axis, float64 of this shape."""
    coarse = generator.normal(size=(knots,) * 3)
    return zoom(coarse, [size / knots for size in shape], order=1, grid_mode=True, mode="nearest")


def ours(definition: str) -> Tool:
    """What spadunet_evaluate does between reading and writing."""

    def tool(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], num_organs: int) -> Values:
        names = ("background", *list(ORGANS)[:num_organs])
        labels = LabelSet(names=names, ids=tuple(range(len(names))))
        label_maps = [LabelMap(array=it, affine=np.diag([*spacing_mm, 1.0])) for it in (prediction, reference)]
        scoring = Scoring(metrics=("dice", *METRICS[definition]), definition=definition)
        classes = evaluate_case("drawn", *label_maps, labels, scoring=scoring).classes
        return {str(label): classes[name].values for label, name in enumerate(names[1:], start=1)}

    return tool


def each(measure: Callable[[np.ndarray, np.ndarray, tuple[float, ...]], dict[str, float]]) -> Tool:
    """A peer's metrics of two masks as a tool that takes label maps."""

    def tool(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...], num_organs: int) -> Values:
        return {
            str(label): {
                name: float(value)
                for name, value in measure(prediction == label, reference == label, spacing_mm).items()
            }
            for label in range(1, num_organs + 1)
        }

    return tool


def medpy() -> Tool:
    """MedPy, which is licensed under the GPL and used here alone."""
    from medpy.metric import binary

    def measure(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
        masks = prediction, reference
        return {
            "dice": binary.dc(*masks),
            "assd_mm": binary.assd(*masks, spacing_mm),
            "hd_mm": binary.hd(*masks, spacing_mm),
            "hd95_mm": binary.hd95(*masks, spacing_mm),
        }

    return each(measure)


def monai() -> Tool:
    """MONAI on the CPU."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    def measure(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
        masks = [torch.from_numpy(mask)[None, None] for mask in (prediction, reference)]
        options = {"include_background": True, "spacing": spacing_mm}
        return {
            "dice": compute_dice(*masks),
            "assd_mm": compute_average_surface_distance(*masks, symmetric=True, **options),
            "hd_mm": compute_hausdorff_distance(*masks, **options),
            "hd95_mm": compute_hausdorff_distance(*masks, percentile=95, **options),
            "nsd_2mm": compute_surface_dice(*masks, class_thresholds=[2.0], **options),
        }

    return each(measure)


def surface_distance() -> Tool:
    """DeepMind's surface-distance."""
    from surface_distance import metrics

    def measure(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]) -> dict[str, float]:
        distances = metrics.compute_surface_distances(reference, prediction, spacing_mm)
        return {
            "dice": metrics.compute_dice_coefficient(reference, prediction),
            "masd_mm": np.mean(metrics.compute_average_surface_distance(distances)),
            "hd_mm": metrics.compute_robust_hausdorff(distances, 100),
            "hd95_mm": metrics.compute_robust_hausdorff(distances, 95),
            "nsd_2mm": metrics.compute_surface_dice_at_tolerance(distances, 2.0),
        }

    return each(measure)


PEERS: dict[str, Callable[[], Tool]] = {"medpy": medpy, "monai": monai, "surface-distance": surface_distance}


def work(folder: Path, name: str, definition: str, num_organs: int) -> None:
    """Measure one tool on the arrays in a folder; prints JSON."""
    warnings.simplefilter("ignore")
    tool = ours(definition) if name == "spadunet" else PEERS[definition]()
    prediction, reference = np.load(folder / "prediction.npy"), np.load(folder / "reference.npy")
    spacing_mm = tuple(json.loads((folder / "spacing.json").read_text()))
    small = np.zeros((2, 4, 5, 6), np.uint8)
    small[:, 1:3, 1:3, 1:3] = 1
    tool(*small, spacing_mm, 1)  # what is imported and made once
    start = time.perf_counter()
    values = tool(prediction, reference, spacing_mm, num_organs)
    seconds = time.perf_counter() - start
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_gb": peak_bytes / 1e9, "values": values}))


def measured(folder: Path, name: str, definition: str, num_organs: int) -> dict:
    """Run `work` in a process of its own."""
    command = [sys.executable, __file__, "--work", str(folder), name, definition, str(num_organs)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} ({definition}) failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(folder: Path, definition: str, num_organs: int) -> list[str]:
    """Print a peer's time and memory beside ours, with the same values; what falls short of the goals."""
    mine = measured(folder, "spadunet", definition, len(ORGANS))
    theirs = measured(folder, definition, definition, num_organs)
    for label, expected in theirs["values"].items():
        for metric, value in expected.items():
            found = mine["values"][label][metric]
            if not np.isclose(found, value, rtol=ROUNDING[definition], atol=1e-12):
                raise SystemExit(f"{definition}: {metric} of organ {label} is {value}, ours {found}")
    scale = len(ORGANS) / num_organs
    ratio = theirs["seconds"] * scale / mine["seconds"]
    print(f"  Dice, {', '.join(METRICS[definition])}; equal values")
    print(f"    spadunet          {mine['seconds']:8.2f} s  {mine['peak_gb']:5.2f} GB")
    note = "" if scale == 1 else f"  (of {num_organs} organs, times {scale:g})"
    print(f"    {definition:16}  {theirs['seconds'] * scale:8.2f} s  {theirs['peak_gb']:5.2f} GB{note}")
    print(f"    → {ratio:.1f} times as fast (goal: {GOALS[definition]})", flush=True)
    return shortfalls(definition, ratio, mine["peak_gb"])


def shortfalls(definition: str, ratio: float, peak_gb: float) -> list[str]:
    """Goals that were not reached, a line each."""
    found = []
    if ratio < GOALS[definition]:
        found.append(f"{ratio:.1f} times as fast as {definition}, not {GOALS[definition]}")
    if peak_gb > MAX_GB:
        found.append(f"{peak_gb:.2f} GB under the definition of {definition}, not at most {MAX_GB:g}")
    return found


def introduction(peers: list[str], medpy_organs: int) -> str:
    """The first line printed: what is measured, and what is taken for granted."""
    words = f"goals: at most {MAX_GB:g} GB, and " + ", ".join(f"{GOALS[it]} times as fast as {it}" for it in peers)
    if "medpy" in peers and medpy_organs < len(ORGANS):
        words += f"; MedPy is measured on {medpy_organs} of {len(ORGANS)} organs, and its time multiplied accordingly"
    return words


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--grids", nargs="+", type=int, choices=range(len(GRIDS)), default=list(range(len(GRIDS))))
    parser.add_argument(
        "--medpy-organs",
        type=int,
        choices=range(1, len(ORGANS) + 1),
        default=1,
        help="measure it on so many, and multiply: each takes minutes, and as long as the next, for it never crops",
    )
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        folder, name, definition, num_organs = options.work
        work(Path(folder), name, definition, int(num_organs))
        return
    print(introduction(options.peers, options.medpy_organs), flush=True)
    missed = []
    for shape, spacing_mm in [list(GRIDS.items())[index] for index in options.grids]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name, array in zip(("prediction", "reference"), draw(shape, spacing_mm), strict=True):
                np.save(folder / f"{name}.npy", array)
            (folder / "spacing.json").write_text(json.dumps(spacing_mm))
            print(
                f"{len(ORGANS)} organs in {'x'.join(map(str, shape))}, {'x'.join(map(str, spacing_mm))} mm", flush=True
            )
            for definition in options.peers:
                num_organs = options.medpy_organs if definition == "medpy" else len(ORGANS)
                missed += [f"{shape}: {line}" for line in compare(folder, definition, num_organs)]
    if missed:
        raise SystemExit("goals not reached:\n" + "\n".join(missed))


if __name__ == "__main__":
    main()
