"""Accuracy per minute: spadunet from scratch and nnU-Net 2.8.1, trained for the same minutes on the same processors.

    python -m venv .peers && .peers/bin/pip install nnunetv2==2.8.1
    python benchmarks/accuracy.py -d Hippocampus SunnybrookLV -o accuracy --nnunet .peers/bin

A run trains on all training cases of one dataset ("together", at the longest budget: one model on all of them, for as
long as on one of them) and is scored on the test cases, in the images' own space, with the test-time mirroring that its
tool does unless told otherwise. Minutes count training alone: planning, preprocessing, start-up, prediction are the
same for every budget. First each tool trains for a few minutes, which says how many steps it makes in one; nothing else
should run on the machine then. Runs make as many steps as fit in their minutes, so that they may be interrupted, and
run beside others. nnU-Net trains its own 3d_fullres, the fall of its learning rate fitted to its steps
(nnunet_run.py). Each run leaves one JSON row in rows.jsonl and is not made again; whatever was interrupted goes on.
What was tried on validation folds to come here is in docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_peer import Peer, open_peer
from rows import (
    METRICS,
    ROWS,
    add_row,
    aligned,
    command,
    keep_settings,
    link_raw,
    mean_of,
    read_lines,
    run_at_once,
    totals_of,
)
from tqdm import tqdm

from spadunet.dataset import Dataset, find_dataset, load_dataset
from spadunet.evaluation.label_names import LABELS_JSON
from spadunet.files import write_text
from spadunet.model import read_model_record
from spadunet.record import write_record
from spadunet.scores import Scores
from spadunet.workspace import find_workspace

TOOLS = {"spadunet": "spadunet", "together": "spadunet, one model for all", "nnunet": "nnU-Net"}
MINUTES, SEEDS = (10.0, 20.0, 60.0), (0, 1)
PACES, PACE_MINUTES = "paces.json", 3.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    tool: str
    dataset: str
    """Several, joined by +, for one model of all."""
    minutes: float
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.tool}_{self.dataset}_{self.minutes:g}_{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a run's model scores on the test cases of one dataset; None where no case has a value."""

    run: Run
    dataset: str
    settings: dict[str, str]
    steps: int
    dice: float | None
    assd_mm: float | None
    hd_mm: float | None
    num_missed: int
    num_false_alarms: int
    classes: dict[str, dict[str, float | None]]


def runs_of(datasets: Sequence[str], options: argparse.Namespace) -> Iterator[Run]:
    """The short ones first, so that a table can be looked at early; further seeds at the smallest budget only."""
    for minutes in sorted(options.minutes):
        for seed in options.seeds if minutes == min(options.minutes) else options.seeds[:1]:
            for tool in options.tools:
                if tool == "together":
                    if len(datasets) > 1 and minutes == max(options.minutes):
                        yield Run(tool=tool, dataset="+".join(datasets), minutes=minutes, seed=seed)
                elif tool == "spadunet" or options.nnunet is not None:
                    for name in datasets:
                        yield Run(tool=tool, dataset=name, minutes=minutes, seed=seed)


def prepare(options: argparse.Namespace) -> dict[str, Dataset]:
    """Link the raw datasets, plan and preprocess them; by name."""
    found = {}
    for given in options.dataset:
        raw = find_dataset(given, find_workspace(options.data).raw)
        dataset = load_dataset(raw)
        if not (raw / "labelsTs").is_dir():
            raise SystemExit(f"{raw}: no labelsTs to score test cases by; give a dataset with labelled test cases")
        link = link_raw(raw, options.output)
        log = options.output / f"{dataset.name}.txt"
        command("plan_and_preprocess", "-d", str(link), *options.plan, "--data", str(options.output), log=log)
        found[dataset.name] = load_dataset(link)
    return found


def paces_of(
    runs: Sequence[Run], datasets: dict[str, Dataset], peer: Peer | None, options: argparse.Namespace
) -> dict[tuple[str, str], float]:
    """Steps a minute of each tool on each dataset; measured where paces.json does not have them, and put there."""
    path = options.output / PACES
    paces = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    wanted = {(run.tool, run.dataset): f"{run.tool}_{run.dataset}" for run in runs}
    unknown = [key for key, name in wanted.items() if name not in paces]
    for tool, dataset in tqdm(unknown, desc="Steps a minute (nothing else should run)", unit="pace"):
        run = Run(tool=tool, dataset=dataset, minutes=PACE_MINUTES, seed=0)
        folder = options.output / "paces" / wanted[tool, dataset]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        paces[wanted[tool, dataset]] = train(run, None, datasets, peer, folder, options) / PACE_MINUTES
        write_text(path, json.dumps(paces, indent=1) + "\n")
        shutil.rmtree(folder)
    return {key: paces[name] for key, name in wanted.items()}


def train(
    run: Run,
    num_steps: int | None,
    datasets: dict[str, Dataset],
    peer: Peer | None,
    folder: Path,
    options: argparse.Namespace,
) -> float:
    """Train for a number of steps, or for the run's minutes by the clock; how many steps it made in these minutes."""
    names = run.dataset.split("+")
    if run.tool == "nnunet":
        assert peer is not None
        length = f"{run.minutes:g}min" if num_steps is None else str(num_steps)
        peer.train(datasets[names[0]], "all", length, run.seed, folder, splits=None)
        said = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
        made = next(json.loads(line) for line in reversed(said) if line.startswith('{"steps"'))
        return made["steps"] * run.minutes / made.get("minutes", run.minutes)
    model = folder / "model"
    if not (model / "spadunet_train.json").is_file():
        words = ["-d", *names, "-f", "all", "--seed", str(run.seed), *options.train]
        words += ["--max-minutes", f"{run.minutes:g}"] if num_steps is None else ["--max-steps", str(num_steps)]
        words += ["-device", options.device, "-o", str(model), "--data", str(options.output)]
        command("train", *words, log=folder / "log.txt")
    return int(read_model_record(model).provenance["steps"])


def predict(run: Run, dataset: Dataset, peer: Peer | None, folder: Path, options: argparse.Namespace) -> Scores:
    """Label maps of the test cases, and their scores."""
    predictions = folder / "predictions"
    shutil.rmtree(predictions, ignore_errors=True)
    if run.tool == "nnunet":
        assert peer is not None
        peer.predict(dataset, "all", dataset.folder / "imagesTs", folder)
        write_record(predictions / LABELS_JSON, dataset.labels)
    else:
        words = ["-i", str(dataset.folder / "imagesTs"), "-o", str(predictions), "-m", str(folder / "model")]
        words += ["-d", dataset.name, "-device", options.device]
        command("predict", *words, log=folder / "log.txt")
    references = dataset.folder / "labelsTs"
    command("evaluate", "-p", str(predictions), "-r", str(references), log=folder / "log.txt")
    return Scores.from_json((predictions / "scores.json").read_text(encoding="utf-8"))


def make_run(
    run: Run,
    pace: float,
    datasets: dict[str, Dataset],
    peer: Peer | None,
    settings: dict[str, str],
    options: argparse.Namespace,
) -> None:
    """Train, predict, score, write the rows; all else is thrown away unless it is to be kept."""
    folder = options.output / "runs" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    steps = round(train(run, max(1, round(pace * run.minutes)), datasets, peer, folder, options))
    rows = []
    for name in run.dataset.split("+"):
        scores = predict(run, datasets[name], peer, folder, options)
        classes = {
            title: {metric: getattr(each, metric) for metric in METRICS} for title, each in scores.summary().items()
        }
        totals = totals_of(scores)
        rows.append(Row(run=run, dataset=name, settings=settings, steps=steps, **totals, classes=classes))
    add_row(options.output / ROWS, *rows)
    if not options.keep:
        shutil.rmtree(folder)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [Row(**{**values, "run": Run(**values["run"])}) for values in read_lines(path)]


def table(rows: Sequence[Row], dataset: str) -> str:
    """Budgets by tool: mean ± standard deviation over seeds of the test cases' mean scores, and of each class."""
    own = [row for row in rows if row.dataset == dataset]
    classes = list(own[0].classes)
    header = ["minutes", "", "seeds", "steps", *METRICS.values(), "missed", "false alarms"]
    cells = [[*header, *(f"{name}, {title}" for name in classes for title in METRICS.values())]]
    for minutes in sorted({row.run.minutes for row in own}):
        for tool, title in TOOLS.items():
            found = [row for row in own if (row.run.minutes, row.run.tool) == (minutes, tool)]
            if not found:
                continue
            line = [f"{minutes:g}", title, str(len(found)), " ".join(str(row.steps) for row in found)]
            line += [mean_of([getattr(row, metric) for row in found]) for metric in METRICS]
            line += [str(sum(getattr(row, count) for row in found)) for count in ("num_missed", "num_false_alarms")]
            line += [mean_of([row.classes[name][metric] for row in found]) for name in classes for metric in METRICS]
            cells.append(line)
    return "\n".join([f"{dataset}: test cases, {own[0].settings['device']}", *aligned(cells)])


def parse_arguments() -> argparse.Namespace:
    """Options, with whole paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", nargs="+", required=True, help="names, numbers or paths of raw datasets")
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows, table and what the runs need")
    parser.add_argument("--data", type=Path, help="workspace whose raw/ holds the datasets")
    parser.add_argument("--nnunet", type=Path, metavar="BIN", help="folder with nnU-Net's commands and its python")
    parser.add_argument("--tools", nargs="+", choices=tuple(TOOLS), default=list(TOOLS), help="(default: all)")
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="(default: 10 20 60)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="the first alone at long budgets")
    parser.add_argument("--plan", type=str.split, default=[], metavar="OPTIONS", help="of spadunet_plan, quoted")
    parser.add_argument("--train", type=str.split, default=[], metavar="OPTIONS", help="of spadunet_train, quoted")
    parser.add_argument("--at-once", type=int, default=1, help="runs at a time, which share the cores (default: 1)")
    parser.add_argument("-device", default="auto")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")
    options = parser.parse_args()
    options.output = options.output.resolve()
    if options.nnunet is not None:
        options.nnunet = options.nnunet.absolute()  # a link would lead out of its environment
    return options


def main() -> None:
    """Make the rows; report."""
    options = parse_arguments()
    path = options.output / ROWS
    if not options.report:
        options.output.mkdir(parents=True, exist_ok=True)
        shared = {name: getattr(options, name) for name in ("plan", "train")}
        settings = keep_settings(argparse.Namespace(output=path.parent, device=options.device, init=None, **shared))
        datasets = prepare(options)
        peer = open_peer(options.nnunet, options.output, options.device)
        done = {row.run for row in read_rows(path)}
        runs = [run for run in runs_of(list(datasets), options) if run not in done]
        paces = paces_of(runs, datasets, peer, options)

        def make(run: Run) -> None:
            make_run(run, paces[run.tool, run.dataset], datasets, peer, settings, options)

        run_at_once(make, runs, options.at_once)
    rows = read_rows(path)
    if not rows:
        raise SystemExit(f"{path}: no rows yet; leave --report out")
    text = "\n\n".join(table(rows, name) for name in sorted({row.dataset for row in rows}))
    write_text(options.output / "table.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
