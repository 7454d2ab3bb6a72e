"""Robustness to slice spacing: how much of its Dice a model keeps when the slices of test images are thicker.

    python -m venv .peers && .peers/bin/pip install nnunetv2==2.8.1
    python benchmarks/spacing.py -d RAW/Dataset004_Hippocampus -o spacing --nnunet .peers/bin

Trains spadunet on all training cases as they are, spadunet with slice merging, and nnU-Net, each for as many steps. The
slices of each test image are averaged to 2, 3, 4 and 6 times their spacing. spadunet predicts these at their own
spacing and, to show what that is worth, resampled to its plan's; nnU-Net resamples to its plan's. All write
probabilities on the thick image's grid. Cubic splines along the slices bring them to the image's own, where the
largest wins and is scored. What this way back costs by itself is the ceiling: the reference labels' shares, averaged
over the same slices and brought back alike. (Labels of whole thick slices kept no more than 0.815 Dice of the
references at 4 times the spacing.)

Each model and spacing leaves one JSON row in rows.jsonl and is not made again; whatever was interrupted goes on. A
folder whose label maps were brought back otherwise is refused; its models/ may be moved to a new one. Prints and draws
Dice and ASSD, and says whether spadunet loses at most half of what nnU-Net loses at 4 times the spacing.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunet_peer import Peer, open_peer
from rows import (
    METRICS,
    ROWS,
    SCORING,
    add_row,
    aligned,
    command,
    keep_settings,
    link_raw,
    mean_of,
    read_lines,
    totals_of,
)
from thicker import Thicker
from tqdm import tqdm

from spadunet.dataset import Dataset, RawCase, find_test_cases, load_dataset
from spadunet.evaluation.label_names import LABELS_JSON
from spadunet.files import write_text
from spadunet.formats import write_array
from spadunet.image import LabelMap, read_image, read_label_map, write_label_map
from spadunet.labels import LabelSet
from spadunet.orient import choose_axes
from spadunet.record import write_record
from spadunet.scores import Scores

FACTORS = (1.0, 2.0, 3.0, 4.0, 6.0)
JUDGED = 4.0
TRAININGS = {"plain": (), "merging": ("--slice-merging", "0.5")}
"""Options of spadunet_train."""
ARMS = {
    "native": ("plain", "native", "spadunet"),
    "merging": ("merging", "native", "spadunet, trained with slice merging"),
    "resampled": ("plain", "plan", "spadunet, resampled to its plan"),
    "nnunet": ("nnunet", "", "nnU-Net"),
    "ceiling": ("", "", "reference labels, made thick and brought back"),
}
"""Training, --spacing of spadunet_predict, and title of each."""
BACK = "class shares, cubic splines along the slices"
"""How answers come back: told in settings.json, since rows of another way are not comparable."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A model on test images of one slice spacing."""

    arm: str
    factor: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and its scores; None where no case has a value."""

    run: Run
    settings: dict[str, str]
    dice: float | None
    assd_mm: float | None
    hd_mm: float | None
    num_missed: int
    num_false_alarms: int


def change_of(path: Path, factor: float) -> Thicker:
    """What makes the slices of an image as many times as thick."""
    image = read_image([path])
    axis = choose_axes(image.shape, image.affine)[0][0]
    return Thicker(axis=axis, factor=factor, num_old=image.shape[axis])


def thick_images(dataset: Dataset, factor: float, output: Path) -> Path:
    """The test images with thicker slices, unless they are there; their folder."""
    folder = output / "thick" / f"{factor:g}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for case in find_test_cases(dataset):
            for path in case.image_paths:
                image = change_of(path, factor).image(read_image([path]))
                write_array(partial / path.name, image.array[0], image.affine)
        partial.rename(folder)
    return folder


def train(training: str, seed: int, dataset: Dataset, peer: Peer | None, options: argparse.Namespace) -> Path:
    """A model on all training cases, unless it is there; its folder."""
    folder = options.output / "models" / f"{training}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    if training == "nnunet":
        assert peer is not None
        words = (dataset, "all", str(options.max_steps), seed, folder)
        peer.train(*words, splits=None, batch_size=options.nnunet_batch)
    elif not (folder / "spadunet_train.json").is_file():
        words = ["-d", dataset.name, "-f", "all", "--max-steps", str(options.max_steps), "--seed", str(seed)]
        words += ["-device", options.device, "-o", str(folder), "--data", str(options.output)]
        command("train", *words, *TRAININGS[training], *options.train, log=folder / "log.txt")
    return folder


def predict(run: Run, folder: Path, dataset: Dataset, peer: Peer | None, options: argparse.Namespace) -> Path:
    """Probabilities of the thick test images, by a model that is trained if it is not there; their folder."""
    training, spacing, _ = ARMS[run.arm]
    model = train(training, run.seed, dataset, peer, options)
    images = thick_images(dataset, run.factor, options.output)
    if run.arm == "nnunet":
        assert peer is not None
        shutil.rmtree(model / "predictions", ignore_errors=True)
        peer.predict(dataset, "all", images, model, "--save_probabilities")
        return model / "predictions"
    words = ["-i", str(images), "-o", str(folder / "thick"), "-m", str(model), "-d", dataset.name]
    words += ["--spacing", spacing, "--save-probabilities", "-device", options.device]
    command("predict", *words, log=folder / "log.txt")
    return folder / "thick"


def read_shares(folder: Path, case: RawCase, change: Thicker) -> np.ndarray:
    """Probabilities (K, A0, A1, A2) of a thick image, as both tools write them: in the order of the image's array."""
    path = folder / f"{case.name}.npz"
    with np.load(path, allow_pickle=False) as file:
        shares = file["probabilities"]
    shape = list(read_image(case.image_paths).shape)
    shape[change.axis] = change.num_new
    if list(shares.shape[1:]) != shape:
        raise SystemExit(f"{path}: has {shares.shape[1:]} voxels, not {tuple(shape)}: its axes lie in another order")
    return shares


def reference_shares(case: RawCase, change: Thicker, labels: LabelSet) -> np.ndarray:
    """What a perfect model would say of a thick image: its reference's classes, 0 and 1, averaged; (K, A0, A1, A2)."""
    assert case.label_path is not None
    classes = labels.to_classes(read_label_map(case.label_path).array)
    return change.mean(np.moveaxis(labels.targets()[classes], -1, 0))


def make_run(
    run: Run, dataset: Dataset, settings: dict[str, str], peer: Peer | None, options: argparse.Namespace
) -> None:
    """Predict, bring back, score, write the row."""
    folder = options.output / "predictions" / f"{run.arm}_{run.factor:g}_{run.seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    thick = None if run.arm == "ceiling" else predict(run, folder, dataset, peer, options)
    for case in find_test_cases(dataset):
        assert case.label_path is not None
        change = change_of(case.image_paths[0], run.factor)
        shares = reference_shares(case, change, dataset.labels) if thick is None else read_shares(thick, case, change)
        array = dataset.labels.to_ids(change.largest(shares))
        back = LabelMap(array=array, affine=read_image(case.image_paths).affine)
        write_label_map(folder / "back" / case.label_path.name, back)
    log = folder / "log.txt"
    write_record(folder / "back" / LABELS_JSON, dataset.labels)
    command("evaluate", "-p", str(folder / "back"), "-r", str(dataset.folder / "labelsTs"), *SCORING, log=log)
    scores = Scores.from_json((folder / "back" / "scores.json").read_text(encoding="utf-8"))
    add_row(options.output / ROWS, Row(run=run, settings=settings, **totals_of(scores)))
    for made in (folder, *([] if thick is None else [thick])):
        shutil.rmtree(made, ignore_errors=True)


def read_rows(path: Path) -> list[Row]:
    """Rows of earlier runs."""
    return [Row(**{**values, "run": Run(**values["run"])}) for values in read_lines(path)]


def values_of(rows: Sequence[Row], arm: str, factor: float, metric: str) -> list[float | None]:
    """A metric of all seeds."""
    return [getattr(row, metric) for row in rows if (row.run.arm, row.run.factor) == (arm, factor)]


def loss_of(rows: Sequence[Row], arm: str, factor: float) -> float | None:
    """By how much the mean Dice is lower than at the images' own spacing; None where a row is missing."""
    means = []
    for one in (1.0, factor):
        known = [value for value in values_of(rows, arm, one, "dice") if value is not None]
        if not known:
            return None
        means.append(sum(known) / len(known))
    return means[0] - means[1]


def table(rows: Sequence[Row]) -> str:
    """Each arm by slice spacing: mean ± standard deviation over seeds."""
    shown = {"dice": METRICS["dice"], "assd_mm": METRICS["assd_mm"]}
    cells = [["times the spacing", "", *shown.values(), "Dice lost", "missed"]]
    for factor in sorted({row.run.factor for row in rows}):
        for arm, (_, _, title) in ARMS.items():
            if not values_of(rows, arm, factor, "dice"):
                continue
            loss = loss_of(rows, arm, factor)
            line = [f"{factor:g}", title, *(mean_of(values_of(rows, arm, factor, metric)) for metric in shown)]
            missed = sum(row.num_missed for row in rows if (row.run.arm, row.run.factor) == (arm, factor))
            cells.append([*line, "-" if loss is None else f"{loss:.3f}", str(missed)])
    return "\n".join(aligned(cells))


def verdict(rows: Sequence[Row]) -> str:
    """Whether the goal is met, by each training; a line each."""
    theirs = loss_of(rows, "nnunet", JUDGED)
    ours = {arm: loss for arm in ("native", "merging") if (loss := loss_of(rows, arm, JUDGED)) is not None}
    if theirs is None or not ours:
        return "too few rows for the goal"
    return "\n".join(
        f"at {JUDGED:g} times the spacing {ARMS[arm][2]} loses at most half of what nnU-Net loses: "
        f"{'yes' if loss <= theirs / 2 else 'no'} ({loss:.3f}, {theirs:.3f})"
        for arm, loss in ours.items()
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Dice and ASSD against the spacing, a point a seed and a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    factors = sorted({row.run.factor for row in rows})
    for place, metric in zip(axes, ("dice", "assd_mm"), strict=True):
        for arm, (_, _, title) in ARMS.items():
            points = [(factor, value) for factor in factors for value in values_of(rows, arm, factor, metric)]
            known = [(factor, value) for factor, value in points if value is not None]
            if not known:
                continue
            (line,) = place.plot(*zip(*known, strict=True), "o", alpha=0.4, markersize=4)
            own = sorted({factor for factor, _ in known})
            means = [sum(values) / len(values) for it in own if (values := [v for factor, v in known if factor == it])]
            place.plot(own, means, color=line.get_color(), label=title)
        place.set_xlabel("slice spacing over the images' own")
        place.set_title(METRICS[metric])
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse_arguments() -> argparse.Namespace:
    """Options, with whole paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", "--dataset", type=Path, required=True, help="raw folder with imagesTs, labelsTs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="rows, table, plot and what the runs need")
    parser.add_argument("--nnunet", type=Path, metavar="BIN", help="folder with nnU-Net's commands and its python")
    parser.add_argument(
        "--nnunet-batch",
        type=int,
        metavar="N",
        help="batch size of nnU-Net, for want of memory or time: a departure from its plans, and to be told (default: "
        "its own)",
    )
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS), help="(default: all)")
    parser.add_argument("--factors", type=float, nargs="+", default=list(FACTORS), help="(default: 1 2 3 4 6)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--max-steps", type=int, default=1000, help="of every training (default: 1000)")
    parser.add_argument("--plan", type=str.split, default=[], metavar="OPTIONS", help="of spadunet_plan, quoted")
    parser.add_argument("--train", type=str.split, default=[], metavar="OPTIONS", help="of spadunet_train, quoted")
    parser.add_argument("-device", default="auto")
    parser.add_argument("--report", action="store_true", help="only report the rows that are there")
    options = parser.parse_args()
    options.output, options.dataset = options.output.resolve(), options.dataset.resolve()
    if options.nnunet is not None:
        options.nnunet = options.nnunet.absolute()  # a link would lead out of its environment
    return options


def make_rows(options: argparse.Namespace) -> None:
    """Make what has no row yet, arm by arm."""
    options.output.mkdir(parents=True, exist_ok=True)
    shared = {name: getattr(options, name) for name in ("dataset", "max_steps", "plan", "train", "nnunet_batch")}
    own = {"output": options.output, "device": options.device, "init": None, "back": BACK}
    settings = keep_settings(argparse.Namespace(**own, **shared))
    link = link_raw(options.dataset, options.output)
    words = ("-d", str(link), *options.plan, "--data", str(options.output))
    command("plan_and_preprocess", *words, log=options.output / "plan_and_preprocess.txt")
    dataset = load_dataset(link)
    if dataset.labels.regions:
        raise SystemExit(f"{link}: has regions; only classes that exclude each other are brought back")
    peer = open_peer(options.nnunet, options.output, options.device)
    arms = [arm for arm in options.arms if arm != "nnunet" or peer is not None]
    done = {row.run for row in read_rows(options.output / ROWS)}
    runs = [
        Run(arm=arm, factor=factor, seed=seed)
        for seed in options.seeds
        for arm in arms
        for factor in options.factors
        if arm != "ceiling" or seed == options.seeds[0]  # nothing in it is random
    ]
    for run in tqdm([run for run in runs if run not in done], desc="Runs", unit="run"):
        make_run(run, dataset, settings, peer, options)


def main() -> None:
    """Make the rows; report."""
    options = parse_arguments()
    if not options.report:
        make_rows(options)
    rows = read_rows(options.output / ROWS)
    if not rows:
        raise SystemExit(f"{options.output / ROWS}: no rows yet; leave --report out")
    text = f"{table(rows)}\n{verdict(rows)}"
    write_text(options.output / "table.txt", text + "\n")
    draw(rows, options.output / "spacing.png")
    print(f"{text}\n{options.output / 'spacing.png'}")


if __name__ == "__main__":
    main()
