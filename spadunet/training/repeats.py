"""Runs that differ in their seed only, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..evaluation.tables import align, format_value
from ..files import write_text
from ..metrics import metric_of
from ..record import FormatVersion, Record, write_record
from ..scores import mean_over_classes
from .board import read_final_scores

REPEATS_JSON, REPEATS_TEXT = "repeats.json", "repeats.txt"


class Spread(Record):
    """One metric of one class over runs; those in which it is not defined are left out."""

    num_runs: int
    mean: float
    deviation: float | None
    """Sample standard deviation; None of a single run."""
    lowest: float
    highest: float


class Repeats(Record):
    """Validation of runs with different seeds."""

    format_version: FormatVersion = 1
    seeds: tuple[int, ...]
    spreads: dict[str, dict[str, dict[str, Spread]]]
    """By dataset, class (and "mean", over classes) and metric; a metric that is nowhere defined is not there."""
    missing: tuple[str, ...] = ()
    """Validations that were not made, as `dataset of seed`."""


def gather_repeats(folders: Mapping[int, Path], datasets: Sequence[str]) -> Repeats:
    """Read the validation of each run.

    Args:
        folders: of the runs, by seed.

    Raises:
        InputError: if scores are damaged.
    """
    spreads: dict[str, dict[str, dict[str, Spread]]] = {}
    missing = []
    scores_of = {seed: read_final_scores(folder) for seed, folder in folders.items()}
    for dataset in datasets:
        values: dict[str, dict[str, list[float]]] = {}
        for seed, found in scores_of.items():
            scores = found.get(dataset)
            if scores is None:
                missing.append(f"{dataset} of seed {seed}")
                continue
            summary = scores.summary()
            for name, row in summary.items():
                for metric in scores.metrics:
                    add(values, name, metric, row.means[metric])
            for metric in scores.metrics:
                add(values, "mean", metric, mean_over_classes(summary, metric))
        spreads[dataset] = {
            name: {metric: spread_of(found) for metric, found in by_metric.items()}
            for name, by_metric in values.items()
        }
    return Repeats(seeds=tuple(folders), spreads=spreads, missing=tuple(missing))


def add(values: dict[str, dict[str, list[float]]], name: str, metric: str, value: float | None) -> None:
    """Note a value, if it is defined."""
    found = values.setdefault(name, {})
    if value is not None:
        found.setdefault(metric, []).append(value)


def spread_of(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(
        num_runs=len(values),
        mean=statistics.fmean(values),
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        lowest=min(values),
        highest=max(values),
    )


def repeats_text(repeats: Repeats) -> str:
    """A table a dataset: mean ± standard deviation over runs, and from the lowest to the highest Dice."""
    lines = [f"{len(repeats.seeds)} runs, seeds {', '.join(map(str, repeats.seeds))}: mean ± standard deviation"]
    for dataset, classes in repeats.spreads.items():
        others = [metric for metric in classes.get("mean", {}) if metric != "dice"]
        rows = [["class", "Dice", "lowest", "highest", *(metric_of(metric).title for metric in others)]]
        for name, spreads in classes.items():
            dice = spreads.get("dice")
            ends = ["-", "-"] if dice is None else [f"{dice.lowest:.4f}", f"{dice.highest:.4f}"]
            cells = [cell_of(metric, spreads.get(metric)) for metric in ("dice", *others)]
            rows.append([name, cells[0], *ends, *cells[1:]])
        lines += ["", dataset, *align(rows)]
    if repeats.missing:
        lines += ["", f"Not validated: {', '.join(repeats.missing)}"]
    return "\n".join(lines) + "\n"


def cell_of(metric: str, spread: Spread | None) -> str:
    """Mean and deviation, or a dash."""
    if spread is None:
        return "-"
    mean = format_value(metric, spread.mean)
    return mean if spread.deviation is None else f"{mean} ± {format_value(metric, spread.deviation)}"


def write_repeats(folder: Path, repeats: Repeats) -> None:
    """Write repeats.json and repeats.txt."""
    write_record(folder / REPEATS_JSON, repeats)
    write_text(folder / REPEATS_TEXT, repeats_text(repeats))
