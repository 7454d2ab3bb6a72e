"""What pre-training saves in labels: fine-tuning with few labels, from pre-trained weights and from scratch.

    python benchmarks/label_efficiency.py -d RAW/Dataset004_Hippocampus --unlabelled scans -o label_efficiency
    python benchmarks/label_efficiency.py -d RAW/Dataset004_Hippocampus --init WEIGHTS --corpus CORPUS -o few

Indexes the training images of the datasets and the unlabelled folders, and pre-trains tokenizer and backbone on them;
or takes --init, weights that spadunet_pretrain_mim made from --corpus. Either way no test image may be in the corpus:
contents are compared. Then, for each share of the training patients and each seed, the same run is made twice: from the
pre-trained weights, and as its scratch twin (same cases, batches, schedule and fresh weights). Both are scored on the
test cases, or, to choose settings by, with --score validation on a fifth of the training patients that no run learns
from. A run leaves one JSON row in rows.jsonl and is not made again; whatever was interrupted goes on.

Prints the paper's Table 5 (Luo et al. 2024) of these rows, draws it, and says whether its three statements hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spadunet.dataset import Dataset, RawCase, load_dataset
from spadunet.files import sha256_of_file, write_text
from spadunet.formats import files_of
from spadunet.model import BACKBONE_FILE, read_model_record
from spadunet.pretraining.corpus import CORPUS_JSON, CorpusIndex
from spadunet.record import read_record
from spadunet.scores import Scores
from spadunet.training.splits import SPLITS_JSON, make_splits

ARMS = ("scratch", "pretrained")
RATIOS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The paper's five, and a smaller one."""
METRICS = {"dice": "Dice", "assd_mm": "ASSD mm", "hd_mm": "HD mm"}
ROWS = "rows.jsonl"
CORPUS = "unlabelled"


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
class Settings:
    """What all runs of a table share."""

    weights: str
    """SHA-256 of the pre-trained backbone."""
    scored_on: str
    max_steps: int
    batch_size: int | None
    learning_rate: float | None
    spacing: tuple[str, ...] | None
    memory_gb: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, its settings and its scores; None where no case had a value."""

    run: Run
    settings: Settings
    num_cases: int
    seconds: float
    dice: float | None
    assd_mm: float | None
    hd_mm: float | None
    num_missed: int
    num_false_alarms: int


def split_of(dataset: Dataset, scored_on: str) -> tuple[list[RawCase], list[RawCase]]:
    """Training cases that runs draw from, and those of the validation (none where test cases are scored)."""
    if scored_on == "test":
        return list(dataset.cases), []
    held_out = set(make_splits(dataset)[0]["val"])
    return (
        [case for case in dataset.cases if case.name not in held_out],
        [case for case in dataset.cases if case.name in held_out],
    )


def choose_subset(dataset: Dataset, cases: Sequence[RawCase], ratio: float, seed: int) -> list[str]:
    """Names of all cases of a random share of the patients, at least one; a larger share holds the smaller one."""
    patients = sorted({dataset.patients[case.name] for case in cases})
    order = np.random.default_rng(seed).permutation(len(patients))
    chosen = {patients[index] for index in order[: max(1, int(ratio * len(patients) + 1e-9))]}
    return [case.name for case in cases if dataset.patients[case.name] in chosen]


def add_folds(dataset: Dataset, options: argparse.Namespace) -> dict[tuple[float, int], int]:
    """Write a fold for each share and seed that has none yet; their numbers, which stay the same ever after."""
    path = options.output / "preprocessed" / dataset.name / SPLITS_JSON
    folds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    there = {(fold["ratio"], fold["seed"]) for fold in folds}
    cases, _ = split_of(dataset, options.score)
    for ratio in sorted(options.ratios):
        for seed in options.seeds:
            if (ratio, seed) not in there:
                chosen = choose_subset(dataset, cases, ratio, seed)
                folds.append({"ratio": ratio, "seed": seed, "train": chosen, "val": []})
    write_text(path, json.dumps(folds, indent=1) + "\n")
    return {(fold["ratio"], fold["seed"]): number for number, fold in enumerate(folds)}


def pretrain(options: argparse.Namespace) -> tuple[Path, Path]:
    """Corpus, tokenizer and backbone, unless they are there; folders of the weights and of the corpus."""
    corpus, tokenizer, weights = (options.output / name for name in (f"corpora/{CORPUS}", "tokenizer", "weights"))
    common = ["--data", str(options.output), "--seed", "0"]
    stage = [*common, "-c", CORPUS, "--preset", options.preset, "-device", options.device]
    sources = [*options.unlabelled, *options.dataset]
    if not (corpus / CORPUS_JSON).is_file():
        command("index", *map(str, sources), "-n", CORPUS, *common, log=options.output / "index.txt")
    if not (tokenizer / "spadunet_pretrain_tokenizer.json").is_file():
        more = ["--max-minutes", str(options.tokenizer_minutes), "--gan-weight", str(options.gan_weight)]
        command("pretrain_tokenizer", *stage, *more, "-o", str(tokenizer), log=options.output / "tokenizer.txt")
    if not (weights / "spadunet_pretrain_mim.json").is_file():
        more = ["--max-minutes", str(options.mim_minutes), "--backbone", options.backbone]
        more += ["--crop-tokens", *map(str, options.crop_tokens)] if options.crop_tokens else []
        more += ["--tokenizer", str(tokenizer), "-o", str(weights)]
        command("pretrain_mim", *stage, *more, log=options.output / "mim.txt")
    return weights, corpus


def require_no_test_images(datasets: Sequence[Dataset], weights: Path, corpus: Path) -> None:
    """End if the corpus is not that of the weights, or holds a file with the content of a test image."""
    expected = read_model_record(weights).provenance.get("corpus_digest")
    if sha256_of_file(corpus / CORPUS_JSON) != expected:
        raise SystemExit(f"{corpus}: not the corpus that {weights} was made from, or changed since; give that one")
    index = read_record(corpus / CORPUS_JSON, CorpusIndex, remedy="make it with spadunet_index")
    sources = {image.source.partition("#")[0] for image in index.images}
    missing = [source for source in sources if not Path(source).exists()]
    if missing:
        raise SystemExit(f"{missing[0]}: not found; without it nobody can tell whether it is a test image")
    learned = {sha256_of_file(file): source for source in sources for file in files_below(Path(source))}
    for dataset in datasets:
        for file in files_below(dataset.folder / "imagesTs"):
            if sha256_of_file(file) in learned:
                raise SystemExit(f"{file}: a test image, and in the corpus as {learned[sha256_of_file(file)]}")


def files_below(path: Path) -> list[Path]:
    """A file and those that belong to it; of a folder, all in it."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else list(files_of(path))


def prepare(raw: Path, options: argparse.Namespace) -> Dataset:
    """Preprocess a dataset; where validation cases are scored, link these to folders of their own."""
    dataset = load_dataset(raw)
    plan = ["--memory-gb", str(options.memory_gb)]
    plan += ["--spacing", *options.spacing] if options.spacing else []
    log = options.output / f"{dataset.name}.txt"
    command("plan_and_preprocess", "-d", str(raw), *plan, "--data", str(options.output), log=log)
    for case in split_of(dataset, options.score)[1]:
        for path in case.paths:
            link = options.output / "validation" / dataset.name / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
    return dataset


def make_run(run: Run, dataset: Dataset, fold: int, settings: Settings, options: argparse.Namespace) -> Row:
    """Train, predict, score; the model is thrown away unless it is to be kept."""
    start = time.perf_counter()
    folder = options.output / "runs" / run.name
    model, predictions, log = folder / "model", folder / "predictions", folder / "log.txt"
    train = ["-d", run.dataset, "-f", str(fold), "--init", str(options.init), "--max-steps", str(options.max_steps)]
    train += ["--scratch-twin"] if run.arm == "scratch" else []
    train += ["--learning-rate", str(options.learning_rate)] if options.learning_rate else []
    train += ["--batch-size", str(options.batch_size)] if options.batch_size else []
    train += ["--seed", str(run.seed), "-device", options.device, "--num-workers", str(options.num_workers)]
    if not (model / "spadunet_train.json").is_file():
        command("train", *train, "-o", str(model), "--data", str(options.output), log=log)
    images, references = dataset.folder / "imagesTs", dataset.folder / "labelsTs"
    if options.score == "validation":
        validation = options.output / "validation" / dataset.name
        case = dataset.cases[0]
        images, references = (validation / path.parent.name for path in (case.paths[0], case.paths[-1]))
    command("predict", "-i", str(images), "-o", str(predictions), "-m", str(model), "-device", options.device, log=log)
    command("evaluate", "-p", str(predictions), "-r", str(references), log=log)
    scores = Scores.from_json((predictions / "scores.json").read_text(encoding="utf-8"))
    if not options.keep:
        shutil.rmtree(folder)
    return Row(
        run=run,
        settings=settings,
        num_cases=len(choose_subset(dataset, split_of(dataset, options.score)[0], run.ratio, run.seed)),
        seconds=round(time.perf_counter() - start, 1),
        **{metric: scores.mean(metric) for metric in METRICS},
        num_missed=sum(row.num_missed for row in scores.summary().values()),
        num_false_alarms=sum(row.num_false_alarms for row in scores.summary().values()),
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
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        values = json.loads(line)
        settings = values["settings"]
        settings["spacing"] = tuple(settings["spacing"]) if settings["spacing"] else None
        rows.append(Row(**{**values, "run": Run(**values["run"]), "settings": Settings(**settings)}))
    return rows


def table(rows: Sequence[Row], dataset: str) -> str:
    """Table 5: mean and standard deviation over seeds from scratch and pre-trained, and the mean gain."""
    rows = [row for row in rows if row.run.dataset == dataset]
    settings = rows[0].settings
    lines = [
        f"{dataset}, {settings.scored_on} cases, {settings.max_steps} steps, mean ± standard deviation over "
        f"{len({row.run.seed for row in rows})} seeds; a gain is positive where pre-training is better"
    ]
    header = ["share", "cases"]
    for title in METRICS.values():
        header += [f"{title} scratch", "pre-trained", "gain"]
    cells = [[*header, "missed", "false alarms"]]
    for ratio in ratios_of(rows):
        own = [row for row in rows if row.run.ratio == ratio]
        line = [f"{ratio:.0%}", f"{statistics.mean(row.num_cases for row in own):g}"]
        for metric in METRICS:
            scratch, pretrained = (values_of(rows, dataset, ratio, arm, metric) for arm in ARMS)
            line += [spread(scratch), spread(pretrained), f"{gain(rows, dataset, ratio, metric):+.3f}"]
        for count in ("num_missed", "num_false_alarms"):
            line.append(" / ".join(str(sum(getattr(row, count) for row in own if row.run.arm == arm)) for arm in ARMS))
        cells.append(line)
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(lines)


def ratios_of(rows: Sequence[Row]) -> list[float]:
    """Shares of the labels, smallest first."""
    return sorted({row.run.ratio for row in rows})


def values_of(rows: Sequence[Row], dataset: str, ratio: float, arm: str, metric: str) -> list[float]:
    """A metric by seed."""
    chosen = [row for row in rows if (row.run.dataset, row.run.ratio, row.run.arm) == (dataset, ratio, arm)]
    values = [getattr(row, metric) for row in sorted(chosen, key=lambda row: row.run.seed)]
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
    ratios = ratios_of([row for row in rows if row.run.dataset == dataset])
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

    datasets = sorted({row.run.dataset for row in rows})
    figure, axes = pyplot.subplots(
        len(datasets), len(METRICS), figsize=(4 * len(METRICS), 3.2 * len(datasets)), squeeze=False
    )
    for line, dataset in zip(axes, datasets, strict=True):
        ratios = ratios_of([row for row in rows if row.run.dataset == dataset])
        for place, (metric, title) in zip(line, METRICS.items(), strict=True):
            for arm, colour in zip(ARMS, ("tab:gray", "tab:blue"), strict=True):
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


def parse_arguments() -> argparse.Namespace:
    """Options, with whole paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-d", "--dataset", type=Path, nargs="+", required=True, help="raw folders with imagesTs, labelsTs"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows, table, plot and what the runs need")
    parser.add_argument("--init", type=Path, help="pre-trained backbone (default: one is made here)")
    parser.add_argument("--corpus", type=Path, help="that --init was made from")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[], help="more images to pre-train on")
    parser.add_argument("--backbone", default="spad_vit", help="to pre-train (default: spad_vit)")
    parser.add_argument("--preset", default="tiny", help="to pre-train (default: tiny)")
    parser.add_argument("--tokenizer-minutes", type=float, default=30.0)
    parser.add_argument("--gan-weight", type=float, default=0.0, help="of the tokenizer (default: 0, for a processor)")
    parser.add_argument("--mim-minutes", type=float, default=30.0)
    parser.add_argument("--crop-tokens", type=int, nargs=2, help="of masked image modelling")
    parser.add_argument("--ratios", type=float, nargs="+", default=list(RATIOS), help="shares of the patients")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--score", choices=("test", "validation"), default="test", help="which cases (default: test)")
    parser.add_argument("--max-steps", type=int, default=300, help="of every run (default: 300)")
    parser.add_argument("--batch-size", type=int, help="of both arms, as in spadunet_train")
    parser.add_argument("--learning-rate", type=float, help="of both arms (default: the backbone's)")
    parser.add_argument("--memory-gb", type=float, default=0.8, help="that patches are planned for (default: 0.8)")
    parser.add_argument("--spacing", nargs="+", help="as in spadunet_plan")
    parser.add_argument("-device", default="auto")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time, each with its share of cores")
    parser.add_argument("--num-workers", type=int, default=1, help="as in spadunet_train")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")
    options = parser.parse_args()
    if (options.init is None) != (options.corpus is None):
        parser.error("--init and --corpus go together")
    options.output = options.output.resolve()
    options.dataset = [folder.resolve() for folder in options.dataset]
    return options


def make_rows(options: argparse.Namespace) -> None:
    """Pre-train, and make the runs that have no row yet."""
    options.output.mkdir(parents=True, exist_ok=True)
    if options.init is None:
        options.init, options.corpus = pretrain(options)
    options.init = options.init.resolve()
    datasets = {dataset.name: dataset for dataset in (prepare(raw, options) for raw in options.dataset)}
    require_no_test_images(list(datasets.values()), options.init, options.corpus)
    settings = Settings(
        weights=read_model_record(options.init).sha256[BACKBONE_FILE],
        scored_on=options.score,
        max_steps=options.max_steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        spacing=tuple(options.spacing) if options.spacing else None,
        memory_gb=options.memory_gb,
    )
    path = options.output / ROWS
    earlier = read_rows(path)
    for row in earlier:
        for field in fields(settings):
            before, now = getattr(row.settings, field.name), getattr(settings, field.name)
            if before != now:
                raise SystemExit(f"{path}: holds runs with {field.name} {before}, not {now}; name another folder")
    folds = {name: add_folds(dataset, options) for name, dataset in datasets.items()}
    runs = [
        Run(dataset=name, ratio=ratio, seed=seed, arm=arm)
        for seed in options.seeds
        for ratio in sorted(options.ratios)
        for name in datasets
        for arm in ARMS
    ]
    done = {row.run for row in earlier}
    waiting = [run for run in runs if run not in done]
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // options.at_once))
    with ThreadPoolExecutor(options.at_once) as pool:
        futures = [
            pool.submit(
                make_run, run, datasets[run.dataset], folds[run.dataset][run.ratio, run.seed], settings, options
            )
            for run in waiting
        ]
        for future in tqdm(as_completed(futures), total=len(futures), desc="Runs", unit="run"):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(future.result())) + "\n")


def main() -> None:
    """Make the rows; report."""
    options = parse_arguments()
    if not options.report:
        make_rows(options)
    rows = read_rows(options.output / ROWS)
    if not rows:
        raise SystemExit(f"{options.output / ROWS}: no rows yet; leave --report out")
    names = sorted({row.run.dataset for row in rows})
    text = "\n\n".join("\n".join([table(rows, name), *statements(rows, name)]) for name in names)
    write_text(options.output / "table.txt", text + "\n")
    draw(rows, options.output / "label_efficiency.png")
    print(f"{text}\n{options.output / 'label_efficiency.png'}")


if __name__ == "__main__":
    main()
