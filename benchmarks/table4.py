"""The paper's Table 4 (Luo et al. 2024): networks trained on the same patches for the same number of steps.

    python benchmarks/table4.py -d Hippocampus -o table4 --max-steps 300 --preset tiny --nnunet .peers/bin
    python benchmarks/table4.py -d BTCV -o btcv --recipe paper-btcv --init WEIGHTS --corpus CORPUS --eva02 FILE

Arms: SPAD-ViT from scratch; from EVA-02-B (--eva02); ours, from pre-trained weights (--init, of the same preset, which
--corpus made: no test image may be in it); MONAI's Swin UNETR in our loop, so that only the network differs (needs
einops); nnU-Net with its own plans, patches, batch and augmentation (--nnunet: an environment with its commands). An
arm without what it needs is left out and named. UniMiSS is left out: neither its code nor its weights are on any
package index.

Trains on all training cases and scores the test cases where they have labels; else fold 0, whose held-out cases are
scored (BTCV's are the paper's nine; CHAOS's hidden test cannot be had). A run leaves one JSON row in rows.jsonl and is
not made again; whatever was interrupted goes on. A folder holds rows of one setting (settings.json).
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from label_efficiency import require_corpora, require_no_test_images
from nnunet_peer import open_peer
from rows import (
    METRICS,
    ROWS,
    SCORING,
    add_row,
    aligned,
    command,
    digest_of_weights,
    keep_settings,
    link_raw,
    mean_of,
    read_lines,
    totals_of,
)
from swin_unetr import predict_swin, train_swin
from tqdm import tqdm

from spadunet.cli.fine_tuning import FINE_TUNING
from spadunet.dataset import Dataset, find_dataset, load_dataset
from spadunet.evaluation.label_names import LABELS_JSON
from spadunet.evaluation.protocols.paper import TABLE_4 as PAPER
from spadunet.files import sha256_of_file, write_text
from spadunet.record import write_record
from spadunet.scores import Scores
from spadunet.training.splits import SPLITS_JSON, choose_cases
from spadunet.workspace import find_workspace

ARMS = {
    "scratch": "SPAD-ViT, scratch (TFS)",
    "swin": "Swin UNETR",
    "eva02": "EVA-02-B (base)",
    "ours": "ours, pre-trained",
    "nnunet": "nnU-Net",
}
USUAL_STEPS = 300
SHARED = ("dataset", "preset", "max_steps", "batch_size", "learning_rate", "memory_gb", "recipe", "swin_features")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and its scores; None where no case had a value."""

    dataset: str
    arm: str
    seed: int
    settings: dict[str, str]
    weights: str | None
    """SHA-256 of what it started from."""
    num_cases: int
    """Scored."""
    seconds: float
    """Training, prediction and scores; since it went on, where it was interrupted."""
    dice: float | None
    assd_mm: float | None
    hd_mm: float | None
    num_missed: int
    num_false_alarms: int
    classes: dict[str, dict[str, float | None]]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A dataset in a folder of its own, and which of its cases are scored."""

    dataset: Dataset
    folder: Path
    fold: str
    images: Path
    references: Path

    @property
    def preprocessed(self) -> Path:
        """By our plan."""
        return self.folder / "preprocessed" / self.dataset.name


def open_bench(options: argparse.Namespace) -> Bench:
    """Link the raw dataset, plan and preprocess it, and settle which cases are scored."""
    raw = find_dataset(options.dataset, find_workspace(options.data).raw)
    folder, dataset = options.output, load_dataset(raw)
    link = link_raw(raw, folder)
    plan = ["--recipe", options.recipe] if options.recipe else ["--memory-gb", str(options.memory_gb)]
    log = folder / "plan_and_preprocess.txt"
    command("plan_and_preprocess", "-d", str(link), *plan, "-np", "1", "--data", str(folder), log=log)
    preprocessed = folder / "preprocessed" / dataset.name
    if (raw / "labelsTs").is_dir():
        return Bench(dataset=dataset, folder=folder, fold="all", images=raw / "imagesTs", references=raw / "labelsTs")
    held_out = set(choose_cases(dataset, preprocessed, "0")[1])
    for case in dataset.cases:
        for path in case.paths if case.name in held_out else ():
            place = folder / "held_out" / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(path.resolve())
    images, references = (folder / "held_out" / name for name in ("imagesTr", "labelsTr"))
    return Bench(dataset=dataset, folder=folder, fold="0", images=images, references=references)


def left_out(options: argparse.Namespace, bench: Bench) -> dict[str, str]:
    """Arms that cannot be run, and why."""
    why = {}
    if options.eva02 is None:
        why["eva02"] = "no --eva02"
    if options.init is None:
        why["ours"] = "no --init"
    if options.nnunet is None:
        why["nnunet"] = "no --nnunet"
    elif bench.dataset.optional_channels:
        why["nnunet"] = "it cannot train on cases that lack a channel"
    if importlib.util.find_spec("einops") is None:
        why["swin"] = "MONAI's Swin UNETR needs einops"
    return why


def run_ours(options: argparse.Namespace, bench: Bench, seed: int, folder: Path, arm: str) -> None:
    """Train and predict by our commands."""
    log, model = folder / "log.txt", folder / "model"
    train = ["-d", bench.dataset.name, "-f", bench.fold, "--backbone", "spad_vit", "--seed", str(seed)]
    train += ["--preset", options.preset if arm != "eva02" else "base", "--max-steps", str(options.max_steps)]
    train += ["--recipe", options.recipe] if options.recipe else []
    train += ["--learning-rate", str(options.learning_rate)] if options.learning_rate else []
    train += ["--batch-size", str(options.batch_size)] if options.batch_size else []
    train += ["--init", str(weights_of(arm, options))] if arm != "scratch" else []
    train += ["-device", options.device, "-o", str(model), "--data", str(options.output)]
    if not (model / "spadunet_train.json").is_file():
        command("train", *train, log=log)
    predict = ["-i", str(bench.images), "-o", str(folder / "predictions"), "-m", str(model), "-device", options.device]
    command("predict", *predict, log=log)


def run_swin(options: argparse.Namespace, bench: Bench, seed: int, folder: Path, arm: str) -> None:
    """Train MONAI's network in our loop and predict with our windows."""
    trained = train_swin(bench.dataset, bench.preprocessed, bench.fold, seed, folder / "model", options)
    predict_swin(trained, bench.images, folder / "predictions")


def run_nnunet(options: argparse.Namespace, bench: Bench, seed: int, folder: Path, arm: str) -> None:
    """Plan, train and predict by nnU-Net's commands, with its own folders in ours."""
    peer = open_peer(options.nnunet, bench.folder, options.device)
    assert peer is not None
    splits = bench.preprocessed / SPLITS_JSON if bench.fold != "all" else None
    peer.train(bench.dataset, bench.fold, str(options.max_steps), seed, folder, splits=splits)
    peer.predict(bench.dataset, bench.fold, bench.images, folder)


RUNNERS: dict[str, Callable[[argparse.Namespace, Bench, int, Path, str], None]] = {
    "scratch": run_ours,
    "swin": run_swin,
    "eva02": run_ours,
    "ours": run_ours,
    "nnunet": run_nnunet,
}


def weights_of(arm: str, options: argparse.Namespace) -> Path | None:
    """What an arm starts from."""
    return {"eva02": options.eva02, "ours": options.init}.get(arm)


def digest_of(weights: Path | None) -> str | None:
    """SHA-256 of a file, or of a model folder's backbone."""
    if weights is None:
        return None
    return sha256_of_file(weights) if weights.is_file() else digest_of_weights(weights)


def make_run(options: argparse.Namespace, bench: Bench, arm: str, seed: int, settings: dict[str, str]) -> None:
    """Train, predict, score, write the row; all else is thrown away unless it is to be kept."""
    start = time.perf_counter()
    folder = options.output / "runs" / f"{arm}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    RUNNERS[arm](options, bench, seed, folder, arm)
    predictions = folder / "predictions"
    write_record(predictions / LABELS_JSON, bench.dataset.labels)
    command("evaluate", "-p", str(predictions), "-r", str(bench.references), *SCORING, log=folder / "log.txt")
    scores = Scores.from_json((predictions / "scores.json").read_text(encoding="utf-8"))
    classes = scores.summary()
    row = Row(
        dataset=bench.dataset.name,
        arm=arm,
        seed=seed,
        settings=settings,
        weights=digest_of(weights_of(arm, options)),
        num_cases=len(scores.cases),
        seconds=round(time.perf_counter() - start, 1),
        **totals_of(scores),
        classes={name: {metric: getattr(each, metric) for metric in METRICS} for name, each in classes.items()},
    )
    add_row(options.output / ROWS, row)
    if not options.keep:
        shutil.rmtree(folder)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [Row(**values) for values in read_lines(path)]


def make_rows(options: argparse.Namespace) -> None:
    """Make the runs that have no row yet."""
    options.output.mkdir(parents=True, exist_ok=True)
    shared = {name: getattr(options, name) for name in SHARED}
    settings = keep_settings(argparse.Namespace(output=options.output, device=options.device, init=None, **shared))
    bench = open_bench(options)
    if options.init is not None:
        require_corpora(options.init, options.corpus)
        if bench.fold == "all":
            require_no_test_images([bench.dataset], options.corpus)
    why = left_out(options, bench)
    for arm, reason in why.items():
        print(f"left out: {ARMS[arm]} ({reason})")
    done = {(row.arm, row.seed): row for row in read_rows(options.output / ROWS)}
    for (arm, _), row in done.items():
        if arm not in why and row.weights != digest_of(weights_of(arm, options)):
            raise SystemExit(f"{options.output / ROWS}: {ARMS[arm]} has other weights; name another folder with -o")
    runs = [(arm, seed) for seed in options.seeds for arm in options.arms if arm not in why]
    peer = open_peer(options.nnunet, bench.folder, options.device)
    if peer is not None and "nnunet" in options.arms and "nnunet" not in why:
        peer.preprocess(bench.dataset)  # like ours, before anything is timed
    for arm, seed in tqdm([run for run in runs if run not in done], desc="Runs", unit="run"):
        make_run(options, bench, arm, seed, settings)


def table(rows: Sequence[Row]) -> str:
    """Arms by Dice, ASSD and HD, mean and of each class, ± standard deviation over seeds; the paper's beside."""
    name = rows[0].dataset.partition("_")[2]
    paper = PAPER.get(name, {})
    found = {arm: [row for row in rows if row.arm == arm] for arm in ARMS}
    header = ["", "seeds", *METRICS.values(), "missed", "false alarms", "minutes"]
    cells = [[*header, *(f"paper's {title}" for title in ("Dice", "ASSD", "HD"))] if paper else header]
    for arm, title in ARMS.items():
        own = found[arm]
        line = [title, str(len(own)), *(mean_of([getattr(row, metric) for row in own]) for metric in METRICS)]
        line += [str(sum(getattr(row, count) for row in own)) for count in ("num_missed", "num_false_alarms")]
        line += [f"{statistics.mean(row.seconds for row in own) / 60:.1f}" if own else "-"]
        cells.append(line + published(paper, arm))
    if paper:
        cells.append(["UniMiSS", "0", *["-"] * (len(header) - 2), *published(paper, "UniMiSS")])
    class_cells = [["class", *(f"{ARMS[arm]}" for arm in ARMS if found[arm])]]
    for metric, title in METRICS.items():
        for each in rows[0].classes:
            values = [[row.classes[each][metric] for row in own] for own in found.values() if own]
            class_cells.append([f"{each}, {title}", *map(mean_of, values)])
    settings = rows[0].settings
    about = f"{rows[0].dataset}: {rows[0].num_cases} cases scored after {settings['max_steps']} steps, preset "
    about += f"{settings['preset']}, {settings['device']}; distances in mm over the cases where both masks have voxels"
    note = "UniMiSS is left out: it cannot be had from a package index"
    return "\n".join([about, *aligned(cells), "", *aligned(class_cells), note])


def published(paper: dict[str, tuple[float, float, float]], arm: str) -> list[str]:
    """The paper's row of an arm; nothing where it has no table of the dataset."""
    return [f"{value:g}" for value in paper[arm]] if arm in paper else ["-"] * (3 if paper else 0)


def parse_arguments() -> argparse.Namespace:
    """Options, with whole paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", required=True, help="name, number or path of a raw dataset")
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows, table and what the runs need")
    parser.add_argument("--data", type=Path, help="workspace whose raw/ holds the dataset")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS), help="(default: all)")
    parser.add_argument("--init", type=Path, help="pre-trained SPAD-ViT")
    parser.add_argument("--corpus", type=Path, nargs="+", help="that --init was made from, and its tokenizer")
    parser.add_argument("--eva02", type=Path, metavar="FILE", help="EVA-02-B's weights")
    parser.add_argument("--nnunet", type=Path, metavar="BIN", help="folder with nnU-Net's commands and its python")
    parser.add_argument("--recipe", choices=tuple(FINE_TUNING), help="as in spadunet_train")
    parser.add_argument("--preset", default="base", help="of SPAD-ViT (default: base)")
    parser.add_argument("--swin-features", type=int, default=48, help="(default: 48, as on BTCV by its authors)")
    parser.add_argument("--max-steps", type=int, help=f"of every run (default: the recipe's, or {USUAL_STEPS})")
    parser.add_argument("--batch-size", type=int, help="of all but nnU-Net, as in spadunet_train")
    parser.add_argument("--learning-rate", type=float, help="of all but nnU-Net (default: SPAD-ViT's)")
    parser.add_argument("--memory-gb", type=float, default=12, help="that patches are planned for (default: 12)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("-device", default="auto")
    parser.add_argument("--keep", action="store_true", help="keep models and predictions")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")
    options = parser.parse_args()
    if (options.init is None) != (options.corpus is None):
        parser.error("--init and --corpus go together")
    options.output = options.output.resolve()
    for name in ("init", "eva02"):
        if (path := getattr(options, name)) is not None:
            setattr(options, name, path.resolve())
    if options.nnunet is not None:
        options.nnunet = options.nnunet.absolute()  # a link would lead out of its environment
    recipe = FINE_TUNING.get(options.recipe)
    options.max_steps = options.max_steps or (recipe.train.options["max_steps"] if recipe else USUAL_STEPS)
    return options


def main() -> None:
    """Make the rows; report."""
    options = parse_arguments()
    if not options.report:
        make_rows(options)
    rows = read_rows(options.output / ROWS)
    if not rows:
        raise SystemExit(f"{options.output / ROWS}: no rows yet; leave --report out")
    text = table(rows)
    write_text(options.output / "table.txt", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
