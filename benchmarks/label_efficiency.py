"""What pre-training saves in labels: fine-tuning with few labels, from pre-trained weights and from scratch.

    python benchmarks/label_efficiency.py -d spadunet_data/raw/Dataset004_Hippocampus \\
        --init spadunet_data/results/pretraining/spad_vit_tiny -o label_efficiency --max-steps 300

For each share of the training patients and each seed, the same run is made twice: from the pre-trained weights, and as
its scratch twin (same cases, batches, schedule and fresh weights). Both predict the test cases, which neither training
nor pre-training may have seen. Each run leaves one JSON row in rows.jsonl; runs that have one are not made again, and
one that was interrupted goes on. Prints the paper's Table 5 (Luo et al. 2024) of these rows, draws it, and says whether
its three statements hold. The weights must come from images alone, without the test cases: the user sees to that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spadunet.cli import plan_and_preprocess
from spadunet.dataset import Dataset, load_dataset
from spadunet.files import write_text
from spadunet.scores import Scores
from spadunet.training.splits import SPLITS_JSON

ARMS = ("scratch", "pretrained")
RATIOS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The paper's five, and a smaller one."""
METRICS = {"dice": "Dice", "assd_mm": "ASSD mm", "hd_mm": "HD mm"}
ROWS = "rows.jsonl"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning."""

    dataset: str
    ratio: float
    seed: int
    arm: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.dataset}_{self.ratio:g}_{self.arm}_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Row(Run):
    """A run and its scores on the test cases; None where no case had a value."""

    num_cases: int
    steps: int
    init: str
    dice: float | None
    assd_mm: float | None
    hd_mm: float | None


def choose_subset(dataset: Dataset, ratio: float, seed: int) -> list[str]:
    """Names of all cases of a random share of the patients, at least one; a larger share holds the smaller one."""
    patients = sorted({dataset.patients[case.name] for case in dataset.cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    chosen = {patients[index] for index in order[: max(1, int(ratio * len(patients) + 1e-9))]}
    return [case.name for case in dataset.cases if dataset.patients[case.name] in chosen]


def prepare(raw: Path, options: argparse.Namespace) -> Dataset:
    """Preprocess a dataset, and write one fold for each share and seed."""
    dataset = load_dataset(raw)
    plan = ["--memory-gb", str(options.memory_gb)]
    if options.spacing:
        plan += ["--spacing", *map(str, options.spacing)]
    call(plan_and_preprocess.main, "-d", str(raw), *plan, "--data", str(options.output))
    folds = [{"train": choose_subset(dataset, ratio, seed), "val": []} for ratio, seed in folds_of(options)]
    write_text(options.output / "preprocessed" / dataset.name / SPLITS_JSON, json.dumps(folds, indent=1) + "\n")
    return dataset


def call(command, *arguments: str) -> None:
    """Run one of our commands in this process."""
    try:
        command(arguments)
    except SystemExit as stop:
        if stop.code:
            raise


def folds_of(options: argparse.Namespace) -> list[tuple[float, int]]:
    """Share and seed of each fold."""
    return [(ratio, seed) for ratio in sorted(options.ratios) for seed in options.seeds]


def make_run(run: Run, dataset: Dataset, options: argparse.Namespace) -> Row:
    """Train, predict the test cases, score them; the model is thrown away unless it is to be kept."""
    folder = options.output / "runs" / run.name
    fold = folds_of(options).index((run.ratio, run.seed))
    train = ["-d", run.dataset, "-f", str(fold), "--init", str(options.init), "--max-steps", str(options.max_steps)]
    train += ["--scratch-twin"] if run.arm == "scratch" else []
    train += ["--learning-rate", str(options.learning_rate)] if options.learning_rate else []
    train += ["--seed", str(run.seed), "-device", options.device, "--num-workers", str(options.num_workers)]
    model, predictions = folder / "model", folder / "predictions"
    if not (model / "spadunet_train.json").is_file():
        command("train", *train, "-o", str(model), "--data", str(options.output), log=folder / "log.txt")
    command(
        "predict",
        *("-i", str(dataset.folder / "imagesTs"), "-o", str(predictions), "-m", str(model), "-device", options.device),
        log=folder / "log.txt",
    )
    command("evaluate", "-p", str(predictions), "-r", str(dataset.folder / "labelsTs"), log=folder / "log.txt")
    scores = Scores.from_json((predictions / "scores.json").read_text(encoding="utf-8"))
    if not options.keep:
        shutil.rmtree(folder)
    return Row(
        **asdict(run),
        num_cases=len(choose_subset(dataset, run.ratio, run.seed)),
        steps=options.max_steps,
        init=str(options.init),
        **{metric: scores.mean(metric) for metric in METRICS},
    )


def command(name: str, *arguments: str, log: Path) -> None:
    """Run one of our commands as a process of its own; what it says goes to a file, shown where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    code = f"from spadunet.cli.{name} import main; main()"
    with log.open("a", encoding="utf-8") as file:
        status = subprocess.call([sys.executable, "-c", code, *arguments], stdout=file, stderr=file)
    if status:
        lines = log.read_text(encoding="utf-8").splitlines()[-10:]
        raise SystemExit("\n".join([*lines, f"spadunet_{name} {' '.join(arguments)}: exit code {status}"]))


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [Row(**json.loads(line)) for line in lines]


def table(rows: Sequence[Row], dataset: str) -> str:
    """Table 5: mean and standard deviation over seeds from scratch and pre-trained, and the mean gain."""
    lines = [f"{dataset}, mean ± standard deviation over seeds; a gain is positive where pre-training is better"]
    header = ["share", "cases"]
    for title in METRICS.values():
        header += [f"{title} scratch", "pre-trained", "gain"]
    cells = [header]
    for ratio in sorted({row.ratio for row in rows if row.dataset == dataset}):
        cases = [row.num_cases for row in rows if (row.dataset, row.ratio) == (dataset, ratio)]
        line = [f"{ratio:.0%}", f"{statistics.mean(cases):g}"]
        for metric in METRICS:
            scratch, pretrained = (values_of(rows, dataset, ratio, arm, metric) for arm in ARMS)
            line += [spread(scratch), spread(pretrained), f"{gain(rows, dataset, ratio, metric):+.3f}"]
        cells.append(line)
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def values_of(rows: Sequence[Row], dataset: str, ratio: float, arm: str, metric: str) -> list[float]:
    """A metric by seed."""
    chosen = [row for row in rows if (row.dataset, row.ratio, row.arm) == (dataset, ratio, arm)]
    values = [getattr(row, metric) for row in sorted(chosen, key=lambda row: row.seed)]
    return [value for value in values if value is not None]


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; a dash for none."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"


def gain(rows: Sequence[Row], dataset: str, ratio: float, metric: str) -> float:
    """How much better pre-training is in the mean; NaN where a value is missing."""
    scratch, pretrained = (values_of(rows, dataset, ratio, arm, metric) for arm in ARMS)
    if not scratch or not pretrained:
        return float("nan")
    difference = statistics.mean(pretrained) - statistics.mean(scratch)
    return difference if metric == "dice" else -difference


def statements(rows: Sequence[Row], dataset: str) -> list[str]:
    """Whether the paper's three statements hold for the mean Dice."""
    ratios = sorted({row.ratio for row in rows if row.dataset == dataset})
    gains = [gain(rows, dataset, ratio, "dice") for ratio in ratios]
    lines = [
        f"gain at every share: {yes(all(value > 0 for value in gains))}",
        f"largest at the smallest: {yes(gains[0] == max(gains))}",
    ]
    if {0.6, 1.0} <= set(ratios):
        few = statistics.mean(values_of(rows, dataset, 0.6, "pretrained", "dice") or [float("nan")])
        every = statistics.mean(values_of(rows, dataset, 1.0, "scratch", "dice") or [float("nan")])
        lines.append(f"60 % with pre-training at least 100 % without: {yes(few >= every)} ({few:.4f}, {every:.4f})")
    return lines


def yes(holds: bool) -> str:
    """A word for a truth."""
    return "yes" if holds else "no"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Each metric against the share of labels, a point a run and a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    datasets = sorted({row.dataset for row in rows})
    figure, axes = pyplot.subplots(
        len(datasets), len(METRICS), figsize=(4 * len(METRICS), 3.2 * len(datasets)), squeeze=False
    )
    for line, dataset in zip(axes, datasets, strict=True):
        for place, (metric, title) in zip(line, METRICS.items(), strict=True):
            for arm, colour in zip(ARMS, ("tab:gray", "tab:blue"), strict=True):
                ratios = sorted({row.ratio for row in rows if row.dataset == dataset})
                values = [values_of(rows, dataset, ratio, arm, metric) for ratio in ratios]
                for ratio, own in zip(ratios, values, strict=True):
                    place.plot([100 * ratio] * len(own), own, "o", color=colour, alpha=0.35, markersize=4)
                means = [statistics.mean(own) if own else float("nan") for own in values]
                place.plot([100 * ratio for ratio in ratios], means, color=colour, label=arm)
            place.set_title(f"{dataset}: {title}", fontsize=9)
            place.set_xlabel("labelled patients, %")
        line[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Make the runs that have no row yet; report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-d", "--dataset", type=Path, nargs="+", required=True, help="raw folders with imagesTs, labelsTs"
    )
    parser.add_argument("--init", type=Path, required=True, help="pre-trained backbone (spadunet_pretrain_mim)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows, table, plot and what the runs need")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS), help="shares of the patients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--max-steps", type=int, default=300, help="of every run (default: 300)")
    parser.add_argument("--learning-rate", type=float, help="of both arms (default: the backbone's)")
    parser.add_argument("--memory-gb", type=float, default=0.8, help="that patches are planned for (default: 0.8)")
    parser.add_argument("--spacing", nargs="+", help="as in spadunet_plan")
    parser.add_argument("-device", default="auto")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, each with its share of cores")
    parser.add_argument("--num-workers", type=int, default=1, help="as in spadunet_train")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")
    options = parser.parse_args()
    options.output = options.output.resolve()
    options.init = options.init.resolve()
    path = options.output / ROWS
    if not options.report:
        options.output.mkdir(parents=True, exist_ok=True)
        datasets = [prepare(raw, options) for raw in options.dataset]
        by_name = {dataset.name: dataset for dataset in datasets}
        earlier = read_rows(path)
        if any((row.steps, row.init) != (options.max_steps, str(options.init)) for row in earlier):
            raise SystemExit(f"{path}: holds runs of another --init or --max-steps; name another folder with -o")
        done = {run_of(row) for row in earlier}
        runs = [
            Run(dataset=dataset.name, ratio=ratio, seed=seed, arm=arm)
            for seed in options.seeds
            for ratio in sorted(options.ratios)
            for dataset in datasets
            for arm in ARMS
        ]
        waiting = [run for run in runs if run not in done]
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // options.at_once))
        with ThreadPoolExecutor(options.at_once) as pool:
            futures = [pool.submit(make_run, run, by_name[run.dataset], options) for run in waiting]
            for future in tqdm(as_completed(futures), total=len(futures), desc="Runs", unit="run"):
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(future.result())) + "\n")
    rows = read_rows(path)
    if not rows:
        raise SystemExit(f"{path}: no rows yet; leave --report out")
    text = "\n\n".join(
        "\n".join([table(rows, name), *statements(rows, name)]) for name in sorted({row.dataset for row in rows})
    )
    write_text(options.output / "table.txt", text + "\n")
    draw(rows, options.output / "label_efficiency.png")
    print(f"{text}\n{options.output / 'label_efficiency.png'}")


def run_of(row: Row) -> Run:
    """The run that left a row."""
    return Run(dataset=row.dataset, ratio=row.ratio, seed=row.seed, arm=row.arm)


if __name__ == "__main__":
    main()
