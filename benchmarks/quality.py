"""Whether expected Dice tells good answers from bad ones, on spoilt copies of test images.

    python benchmarks/quality.py MODEL -d DATASET [--cases 20]

Trains nothing. MODEL is a model folder that `spadunet_quality --fit` has judged. Each test image is predicted as it is
and in a copy of each kind (noise, bias field, blur, thick slices, wrong contrast, cut, wrong orientation) and each of
some strengths, none of which the fit drew, by other random numbers than the fit's. Exit code 1 unless, over all
copies, expected and true mean Dice correlate (Spearman at least 0.6) and the 75 % of the highest expected Dice have a
higher mean than all; 2 where an image of imagesTs is a training image, too, for these made model and fit.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spadunet.dataset import Dataset, RawCase, find_test_cases, load_dataset
from spadunet.errors import InputError
from spadunet.evaluation.risk import kept_mean, spearman
from spadunet.files import sha256_of_file
from spadunet.inference.calibrate import expected_of
from spadunet.inference.sources import build_engine, calibration_of, open_source, rules_of
from spadunet.inference.spoil import KINDS, Spoiling
from spadunet.inference.trials import Trial, means_of, run_trials
from spadunet.network.device import choose_device, choose_precision
from spadunet.quality import Calibration

STRENGTHS = (0.2, 0.6, 1.0, 1.3)
"""The fit draws between 0 and 1: these are others, and the last is worse than any of its own."""
MIN_SPEARMAN = 0.6


def find_test_images(dataset: Dataset, num_cases: int | None) -> list[RawCase]:
    """Test images with a reference, the first `num_cases` of them.

    Raises:
        InputError: if there are none, or one is a training image.
    """
    cases = [case for case in find_test_cases(dataset) if case.label_path][:num_cases]
    if not cases:
        raise InputError(f"-d {dataset.folder}: has no test images with references")
    seen = {sha256_of_file(path) for case in dataset.cases for path in case.paths}
    known = [case.name for case in cases if any(sha256_of_file(path) in seen for path in case.paths)]
    if known:
        raise InputError(f"-d {dataset.folder}: test images that are training images, too: {', '.join(known)}")
    return cases


def spoilings_of(case: RawCase, seed: int) -> list[Spoiling]:
    """All kinds in all strengths; a wrong orientation has none, so that its seed alone changes."""
    own = zlib.crc32(case.name.encode())
    pairs = [(kind, strength) for kind in KINDS for strength in STRENGTHS]
    return [
        Spoiling(kind=kind, strength=strength, seed=(seed, own, 1 << 20, number))
        for number, (kind, strength) in enumerate(pairs)
    ]


def pairs_of(trials: Sequence[Trial], calibration: Calibration) -> np.ndarray:
    """Expected and true mean Dice (N, 2)."""
    return np.array(means_of(trials, [expected_of(it, calibration.classes) for it in trials])).reshape(-1, 2)


def row_of(name: str, pairs: np.ndarray) -> str:
    """A line of the table."""
    correlation = spearman(*pairs.T) if len(pairs) else None
    means = pairs.mean(0) if len(pairs) else (np.nan, np.nan)
    told = "-" if correlation is None else f"{correlation:.3f}"
    return f"{name:<14}{len(pairs):>8}{means[1]:>10.4f}{means[0]:>10.4f}{told:>10}"


def main() -> int:
    """Predict, print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-d", "--dataset", type=Path, required=True, help="raw folder with imagesTs and labelsTs")
    parser.add_argument("--cases", type=int, help="as many of the test images (default: all)")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        dataset = load_dataset(options.dataset)
        source = open_source(options.model, dataset.name)
        calibration, told = calibration_of([source])
        if calibration is None:
            raise InputError(told)
        if options.seed == calibration.trials.seed:
            raise InputError(f"--seed {options.seed}: is that of the fit; give another")
        cases = find_test_images(dataset, options.cases)
        device = choose_device(options.device)
        engine = build_engine(
            [source],
            device=device,
            precision=choose_precision("auto", device),
            overlap=0.5,
            spacing="plan",
            mirror=(),
            chosen=(),
            rules=rules_of([source], ())[0],
            memory_gb=None,
            folder=None,
            is_judged=True,
        )
        trials = run_trials(cases, lambda case: spoilings_of(case, options.seed), engine)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(cases)} test images of {dataset.name}, {len(trials)} predictions")
    print(f"{'copies':<14}{'number':>8}{'Dice':>10}{'expected':>10}{'Spearman':>10}")
    print(row_of("as they are", pairs_of([it for it in trials if it.what is None], calibration)))
    for kind in KINDS:
        print(row_of(kind, pairs_of([it for it in trials if it.what and it.what.kind == kind], calibration)))
    spoilt = pairs_of([it for it in trials if it.what], calibration)
    print(row_of("all spoilt", spoilt))
    correlation, kept, mean = spearman(*spoilt.T) or 0.0, kept_mean(*spoilt.T), float(spoilt[:, 1].mean())
    is_good = correlation >= MIN_SPEARMAN and kept > mean
    print(
        f"Spearman {correlation:.3f} (goal: at least {MIN_SPEARMAN}); mean |expected - true| "
        f"{np.abs(spoilt[:, 0] - spoilt[:, 1]).mean():.4f}"
    )
    print(f"mean Dice of the 75 % expected to be best {kept:.4f}, of all {mean:.4f} (goal: higher)")
    print("goals met" if is_good else "goals missed")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
