"""What pre-training saves in labels: fine-tuning with few labels, from pre-trained weights and from scratch.

    python benchmarks/label_efficiency.py -d RAW/Dataset004_Hippocampus --unlabelled scans -o label_efficiency
    python benchmarks/label_efficiency.py -d RAW/Dataset004_Hippocampus --init WEIGHTS --corpus CORPUS -o few
    python benchmarks/label_efficiency.py -d RAW/Dataset101_SunnybrookLV --init spad_unet_tiny -o few

Indexes the training images of the datasets and the unlabelled folders, and pre-trains tokenizer and backbone on them;
or takes --init, weights that spadunet_pretrain_mim made from --corpus. Either way no test image may be in a corpus:
voxels are compared. Of the weights that come with spadunet, the files that they were made of are listed; these are
compared as files. Then, for each share of the training patients and each seed, the same run is made twice: from the
pre-trained weights, and as its scratch twin (same cases, batches, schedule and fresh weights). Both are scored on the
test cases. To choose settings, --score validation scores a fifth of the training patients instead, that no run learns
from; their images without labels are in the corpus, so choose by the arm from scratch.

A run leaves one JSON row in rows.jsonl and is not made again; whatever was interrupted goes on. A folder holds rows of
one setting (settings.json). Prints the paper's Table 5 (Luo et al. 2024) of these rows, draws it, and says whether its
three statements hold.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import (
    METRICS,
    ROWS,
    SCORING,
    add_row,
    aligned,
    command,
    digest_of_weights,
    keep_settings,
    read_lines,
    run_at_once,
    spread,
    totals_of,
)

from spadunet import pretrained
from spadunet.dataset import Dataset, RawCase, load_dataset
from spadunet.errors import InputError
from spadunet.files import sha256_of_file, write_text
from spadunet.model import read_model_record
from spadunet.pretraining.corpus import CORPUS_JSON, digest_of_voxels, load_corpus
from spadunet.pretraining.index import Choices, find_sources
from spadunet.pretraining.make import Part, parts_of
from spadunet.pretraining.sources import TAKEN_BEFORE
from spadunet.pretraining.standardise import standardise
from spadunet.scores import Scores
from spadunet.training.splits import SPLITS_JSON, choose_fraction, make_splits

ARMS = ("scratch", "pretrained")
RATIOS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
"""The paper's five, and a smaller one."""
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
class Row:
    """A run and its scores; None where no case had a value."""

    run: Run
    settings: dict[str, str]
    """All that the runs of a folder share, with the SHA-256 of the pre-trained backbone as `weights`."""
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


def add_folds(dataset: Dataset, options: argparse.Namespace) -> dict[tuple[float, int], int]:
    """Write a fold for each share and seed that has none yet; their numbers, which stay the same ever after."""
    path = options.output / "preprocessed" / dataset.name / SPLITS_JSON
    folds = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    names = [case.name for case in split_of(dataset, options.score)[0]]
    numbers = {(fold["ratio"], fold["seed"]): number for number, fold in enumerate(folds)}
    for ratio in sorted(options.ratios):
        for seed in options.seeds:
            chosen = choose_fraction(dataset, names, ratio, seed)
            number = numbers.setdefault((ratio, seed), len(folds))
            if number == len(folds):
                folds.append({"ratio": ratio, "seed": seed, "train": chosen, "val": []})
            if folds[number]["train"] != chosen:
                raise SystemExit(f"{path}: fold {number} has other cases than the dataset; name another folder with -o")
    write_text(path, json.dumps(folds, indent=1) + "\n")
    return numbers


def make_corpus(options: argparse.Namespace) -> Path:
    """Index what is to be pre-trained on, unless that is done; the corpus."""
    corpus = options.output / "corpora" / CORPUS
    if not (corpus / CORPUS_JSON).is_file():
        sources = map(str, [*options.unlabelled, *options.dataset])
        arguments = [*sources, "-n", CORPUS, "--data", str(options.output), "--seed", "0"]
        command("index", *arguments, log=options.output / "index.txt", may_fail=(corpus / CORPUS_JSON).is_file)
    skipped = load_corpus(corpus).index.skipped
    if skipped:
        print(f"{corpus}: {len(skipped)} images could not be used, as {options.output / 'index.txt'} says")
    return corpus


def pretrain(options: argparse.Namespace) -> Path:
    """Tokenizer and backbone, unless they are there; the folder of the backbone."""
    tokenizer, weights = options.output / "tokenizer", options.output / "weights"
    stage = ["--data", str(options.output), "-c", CORPUS, "--preset", options.preset, "-device", options.device]
    if not (tokenizer / "spadunet_pretrain_tokenizer.json").is_file():
        more = ["--max-minutes", str(options.tokenizer_minutes), "--gan-weight", str(options.gan_weight)]
        command("pretrain_tokenizer", *stage, *more, "-o", str(tokenizer), log=options.output / "tokenizer.txt")
    if not (weights / "spadunet_pretrain_mim.json").is_file():
        more = ["--max-minutes", str(options.mim_minutes), "--backbone", options.backbone]
        more += ["--batch-size", str(options.mim_batch_size)] if options.mim_batch_size else []
        more += ["--crop-tokens", *map(str, options.crop_tokens)] if options.crop_tokens else []
        more += ["--tokenizer", str(tokenizer), "-o", str(weights)]
        command("pretrain_mim", *stage, *more, log=options.output / "mim.txt")
    return weights


def require_corpora(weights: Path, corpora: Sequence[Path]) -> None:
    """End if the weights, or the tokenizer that taught them, were made from other images than these corpora's."""
    provenance = read_model_record(weights).provenance
    if provenance.get("init", "None") != "None":
        raise SystemExit(f"{weights}: started from {provenance['init']}, whose images nobody knows; give other weights")
    there = {sha256_of_file(corpus / CORPUS_JSON) for corpus in corpora}
    for key, what in (("corpus_digest", "the backbone"), ("tokenizer_corpus_digest", "its tokenizer")):
        if provenance.get(key) not in there:
            raise SystemExit(f"{weights}: --corpus lacks the one that {what} was made from, or it has changed since")


def require_no_test_images(datasets: Sequence[Dataset], corpora: Sequence[Path]) -> None:
    """End if a corpus holds the voxels of a test image, or of a channel or frame of one, in whatever file they came.

    Test images are found and taken apart as spadunet_index does it; one that cannot be read cannot be compared.
    """
    learned = {}
    for corpus in map(load_corpus, corpora):
        for image in corpus.index.images:
            digest = image.sha256 or digest_of_voxels(corpus.read_box(image, (0, 0, 0), image.shape))
            learned[digest] = image.source
    for dataset in datasets:
        folder = dataset.folder / "imagesTs"
        try:
            sources, skipped, found = find_sources([(dataset.name, folder)], Choices())
            missed = [problem.reason for problem in skipped]
            missed += [
                f"{folder}: passed over: {number} files {what}"
                for what, number in found.passed_over.items()
                if what != TAKEN_BEFORE
            ]
            if missed:
                raise InputError(missed[0])
            for part in itertools.chain.from_iterable(map(parts_of, sources)):
                digest = digest_of_part(part)
                if digest in learned:
                    raise SystemExit(f"{part.name}: a test image, and in the corpus as {learned[digest]}")
        except InputError as error:
            raise SystemExit(f"{error}; so it cannot be told whether a corpus holds this test image") from error


def digest_of_part(part: Part) -> str | None:
    """SHA-256 of an image as a corpus holds it; None, and a line, for one that no corpus can hold."""
    try:
        return digest_of_voxels(standardise(part.image).array)
    except InputError as error:
        print(f"{part.name}: {error}; no corpus can hold this test image")
        return None


def require_no_shipped_images(datasets: Sequence[Dataset]) -> None:
    """End if a test image is among the files that the weights which come with spadunet were made of."""
    with (pretrained.FOLDER / "images.csv").open(encoding="utf-8", newline="") as file:
        learned = {line["sha256"]: line["file"] for line in csv.DictReader(file)}
    for dataset in datasets:
        for path in sorted((dataset.folder / "imagesTs").iterdir()):
            if (digest := sha256_of_file(path)) in learned:
                raise SystemExit(f"{path}: a test image, and the weights were made of it as {learned[digest]}")


def prepare(dataset: Dataset, options: argparse.Namespace) -> Dataset:
    """Preprocess a dataset; where validation cases are scored, link these to folders of their own."""
    plan = ["--memory-gb", str(options.memory_gb)]
    plan += ["--spacing", *options.spacing] if options.spacing else []
    log = options.output / f"{dataset.name}.txt"
    command("plan_and_preprocess", "-d", str(dataset.folder), *plan, "--data", str(options.output), log=log)
    for case in split_of(dataset, options.score)[1]:
        for path in case.paths:
            link = options.output / "validation" / dataset.name / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
    return dataset


def make_run(run: Run, dataset: Dataset, fold: int, settings: dict[str, str], options: argparse.Namespace) -> None:
    """Train, predict, score, write the row; the model is thrown away unless it is to be kept."""
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
    command("evaluate", "-p", str(predictions), "-r", str(references), *SCORING, log=log)
    scores = Scores.from_json((predictions / "scores.json").read_text(encoding="utf-8"))
    folds = json.loads((options.output / "preprocessed" / run.dataset / SPLITS_JSON).read_text(encoding="utf-8"))
    row = Row(
        run=run,
        settings=settings,
        num_cases=len(folds[fold]["train"]),
        seconds=round(time.perf_counter() - start, 1),
        **totals_of(scores),
    )
    add_row(options.output / ROWS, row)
    if not options.keep:
        shutil.rmtree(folder)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [Row(**{**values, "run": Run(**values["run"])}) for values in read_lines(path)]


def table(rows: Sequence[Row], dataset: str) -> str:
    """Table 5: from scratch and pre-trained, mean ± standard deviation over the seeds that have both, and of the gain.

    A distance is a mean over the cases and classes where it is defined; where one is missed, it is not.
    """
    rows = [row for row in rows if row.run.dataset == dataset]
    settings = rows[0].settings
    lines = [
        f"{dataset}: Dice, ASSD and HD in mm of {settings['score']} cases after {settings['max_steps']} steps, mean ± "
        "standard deviation over seeds; a gain is positive where pre-training is better"
    ]
    header = ["share", "cases", "seeds"]
    for title in METRICS.values():
        header += [f"{title} scratch", "pre-trained", "gain"]
    cells = [[*header, "missed scratch", "pre-trained", "false alarms scratch", "pre-trained"]]
    for ratio in ratios_of(rows):
        own = [row for row in rows if row.run.ratio == ratio]
        pairs = pairs_of(rows, dataset, ratio)
        line = [f"{ratio:.0%}", f"{statistics.mean(row.num_cases for row in own):g}", str(len(pairs))]
        for metric in METRICS:
            scratch, pretrained = values_of(pairs, metric)
            line += [spread(scratch), spread(pretrained), spread(gains_of(pairs, metric), sign="+")]
        for count in ("num_missed", "num_false_alarms"):
            line += [str(sum(getattr(pair[arm], count) for pair in pairs)) for arm in (0, 1)]
        cells.append(line)
    return "\n".join([*lines, *aligned(cells)])


def ratios_of(rows: Sequence[Row]) -> list[float]:
    """Shares of the labels, smallest first."""
    return sorted({row.run.ratio for row in rows})


def pairs_of(rows: Sequence[Row], dataset: str, ratio: float) -> list[tuple[Row, Row]]:
    """Scratch and pre-trained run of each seed that has both, by seed."""
    found = {(row.run.arm, row.run.seed): row for row in rows if (row.run.dataset, row.run.ratio) == (dataset, ratio)}
    seeds = sorted({seed for _, seed in found})
    whole = [seed for seed in seeds if all((arm, seed) in found for arm in ARMS)]
    return [(found["scratch", seed], found["pretrained", seed]) for seed in whole]


def values_of(pairs: Sequence[tuple[Row, Row]], metric: str) -> tuple[list[float], list[float]]:
    """A metric of both arms, by seed, where both have a value."""
    values = [(getattr(scratch, metric), getattr(pretrained, metric)) for scratch, pretrained in pairs]
    defined = [pair for pair in values if None not in pair]
    return [scratch for scratch, _ in defined], [pretrained for _, pretrained in defined]


def gains_of(pairs: Sequence[tuple[Row, Row]], metric: str) -> list[float]:
    """How much better each pre-trained run is than its scratch twin."""
    sign = 1 if metric == "dice" else -1
    return [sign * (pretrained - scratch) for scratch, pretrained in zip(*values_of(pairs, metric), strict=True)]


def statements(rows: Sequence[Row], dataset: str) -> list[str]:
    """Whether the paper's three statements hold for the mean Dice, as far as there are rows to tell."""
    ratios = ratios_of([row for row in rows if row.run.dataset == dataset])
    dice = {ratio: values_of(pairs_of(rows, dataset, ratio), "dice") for ratio in ratios}
    means = {ratio: tuple(map(statistics.mean, arms)) for ratio, arms in dice.items() if arms[0]}
    if len(means) < 2:
        return ["too few rows for the paper's statements"]
    gains = {ratio: pretrained - scratch for ratio, (scratch, pretrained) in means.items()}
    lines = [
        f"gain at every share: {yes(all(gain > 0 for gain in gains.values()))}",
        f"largest at the smallest: {yes(gains[min(gains)] == max(gains.values()))}",
    ]
    if {0.6, 1.0} <= means.keys():
        few, every = means[0.6][1], means[1.0][0]
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
            for number, (arm, colour) in enumerate(zip(ARMS, ("tab:gray", "tab:blue"), strict=True)):
                values = [values_of(pairs_of(rows, dataset, ratio), metric)[number] for ratio in ratios]
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
    parser.add_argument("--corpus", type=Path, nargs="+", help="that --init was made from, and its tokenizer")
    parser.add_argument("--unlabelled", type=Path, nargs="*", default=[], help="more images to pre-train on")
    parser.add_argument("--backbone", default="spad_vit", help="to pre-train (default: spad_vit)")
    parser.add_argument("--preset", default="tiny", help="to pre-train (default: tiny)")
    parser.add_argument("--tokenizer-minutes", type=float, default=30.0)
    parser.add_argument("--gan-weight", type=float, default=0.0, help="of the tokenizer (default: 0, for a processor)")
    parser.add_argument("--mim-minutes", type=float, default=30.0)
    parser.add_argument("--mim-batch-size", type=int)
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
    if options.init is not None:
        options.init = pretrained.find_weights(str(options.init))
    if not is_shipped(options) and (options.init is None) != (options.corpus is None):
        parser.error("--init and --corpus go together")
    options.output = options.output.resolve()
    options.dataset = [folder.resolve() for folder in options.dataset]
    return options


def is_shipped(options: argparse.Namespace) -> bool:
    """Whether --init names weights that come with spadunet."""
    return options.init is not None and options.init.parent == pretrained.FOLDER


def make_rows(options: argparse.Namespace) -> None:
    """Pre-train, and make the runs that have no row yet."""
    options.output.mkdir(parents=True, exist_ok=True)
    settings = keep_settings(options)
    loaded = [load_dataset(raw) for raw in options.dataset]
    if is_shipped(options):
        require_no_shipped_images(loaded)
    else:
        corpora = options.corpus or [make_corpus(options)]
        require_no_test_images(loaded, corpora)
        options.init = (options.init or pretrain(options)).resolve()
        require_corpora(options.init, corpora)
    settings["weights"] = digest_of_weights(options.init)
    datasets = {dataset.name: prepare(dataset, options) for dataset in loaded}
    folds = {name: add_folds(dataset, options) for name, dataset in datasets.items()}
    runs = [
        Run(dataset=name, ratio=ratio, seed=seed, arm=arm)
        for seed in options.seeds
        for ratio in sorted(options.ratios)
        for name in datasets
        for arm in ARMS
    ]
    done = {row.run for row in read_rows(options.output / ROWS)}
    waiting = [run for run in runs if run not in done]
    run_at_once(
        lambda run: make_run(run, datasets[run.dataset], folds[run.dataset][run.ratio, run.seed], settings, options),
        waiting,
        options.at_once,
    )


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
