"""spadunet_train: one backbone on one or more datasets."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .options import add_device_options, find_device, non_negative_float, non_negative_int, positive_float, positive_int
from .run import add_data_option, add_dry_run_option, log_to_file, make_parser, run_command, write_manifest
from .stages import FINGERPRINT_JSON, PLAN_JSON, check_names_differ, read_plan

if TYPE_CHECKING:
    from ..training.state import Progress
    from ..workspace import Workspace

EXAMPLES = """\
  spadunet_train -d Hippocampus --max-minutes 20
  spadunet_train -d 4 101 -f all                    both datasets, one backbone
  spadunet_train -d BTCV -f 0 --preset base --init results/pretrained
  spadunet_train -d BTCV -f 0                       again: an interrupted run goes on
"""
DEFAULT_STEPS = 50_000
MAX_NAME_BYTES = 255
BACKBONES = ("spad_unet", "spad_vit")
PRESETS = ("tiny", "small", "base", "large")
MANIFEST = "spadunet_train.json"
"""Written last: a run without it is unfinished, even if its last step is done."""

log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Train a SPAD U-Net on preprocessed datasets.", EXAMPLES)
    parser.add_argument(
        "-d",
        "--dataset",
        nargs="+",
        metavar="DATASET",
        help="one or more datasets, trained jointly through one backbone (default: the one planned last)",
    )
    parser.add_argument("-f", "--fold", type=fold, default="0", help="fold to hold out, or all (default: 0)")
    parser.add_argument("--backbone", choices=BACKBONES, default="spad_unet", help="(default: spad_unet)")
    parser.add_argument("--preset", choices=PRESETS, help="size of the network (default: base on a GPU, tiny without)")
    parser.add_argument("--init", type=Path, metavar="MODEL", help="model folder whose weights the run starts from")
    parser.add_argument("--max-steps", type=positive_int, help=f"(default: {DEFAULT_STEPS} unless --max-minutes)")
    parser.add_argument("--max-minutes", type=positive_float, help="end after this time of training")
    parser.add_argument("--batch-size", type=positive_int, help="patches a step (default: 2, up to 4 if small)")
    parser.add_argument("--learning-rate", type=positive_float, default=3e-3, help="peak (default: 0.003)")
    parser.add_argument("--weight-decay", type=non_negative_float, default=0.01, help="of AdamW (default: 0.01)")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of weights, batches and augmentation (default: 0)"
    )
    add_device_options(parser)
    parser.add_argument("--num-workers", type=non_negative_int, default=None, help="processes that make batches ahead")
    parser.add_argument("--checkpoint-minutes", type=positive_float, default=5.0, help="save this often (default: 5)")
    parser.add_argument(
        "--c", "--continue", dest="c", action="store_true", help="go on with an interrupted run, or fail"
    )
    parser.add_argument("--restart", action="store_true", help="throw away an earlier run of the same name")
    parser.add_argument("-o", "--output", type=Path, metavar="MODEL", help="model folder (default: below results/)")
    add_data_option(parser)
    add_dry_run_option(parser)
    options = parser.parse_args(arguments)
    stopped = f"the same command goes on from here{', without --restart' if options.restart else ''}"
    run_command(parser, options, lambda: execute(options), if_stopped=stopped)


def execute(options: argparse.Namespace) -> int:
    """Find the datasets, settle where the model goes, train."""
    import torch

    from ..dataset import load_dataset
    from ..files import require_writable
    from ..network.device import choose_precision
    from ..training.loop import RunOptions
    from ..training.train import TrainingDataset, prepare_run, train
    from ..workspace import find_workspace

    started = time.time()
    workspace = find_workspace(options.data)
    names = options.dataset or [planned_last(workspace.preprocessed)]
    datasets = []
    for name in names:
        dataset = load_dataset(find_planned(name, workspace), dry_run=options.dry_run)
        folder = workspace.preprocessed / dataset.name
        datasets.append(TrainingDataset(dataset=dataset, plan=read_plan(folder, dataset), folder=folder))
    check_names_differ([member.dataset for member in datasets])
    device = find_device(options.device)
    earlier = {} if options.restart or options.output is None else request_of(options.output)
    preset = options.preset or earlier.get("preset") or ("base" if device.type == "cuda" else "tiny")
    joint_name = "+".join(member.dataset.name for member in datasets)
    if options.output is None and len(joint_name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"-d: the names of {len(datasets)} datasets make too long a folder name; name one with -o")
    folder = options.output or workspace.results / joint_name / f"{options.backbone}_{preset}" / f"fold_{options.fold}"
    require_writable(folder, dry_run=options.dry_run)
    if not options.dry_run:
        log_to_file(folder / "training.log")
    earlier = {} if options.restart else request_of(folder)
    precision = choose_precision(options.precision, device)
    if options.precision == "auto" and "precision" in earlier:  # begun on another machine
        precision = getattr(torch, earlier["precision"].removeprefix("torch."))
    run_options = RunOptions(
        max_steps=options.max_steps or (None if options.max_minutes else DEFAULT_STEPS),
        max_minutes=options.max_minutes,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        seed=options.seed,
        device=device,
        precision=precision,
        num_workers=default_workers() if options.num_workers is None else options.num_workers,
        checkpoint_minutes=options.checkpoint_minutes,
    )
    run = prepare_run(
        datasets,
        run_options,
        backbone=options.backbone,
        preset=preset,
        fold=options.fold,
        batch_size=options.batch_size,
        init=options.init,
        goes_on=bool(earlier),
        dry_run=options.dry_run,
    )
    done = find_earlier_run(folder, options, run.request)
    if options.dry_run:
        from .dry_train import show_training

        return show_training(run, folder, done)
    clear_earlier_run(folder, options, done)
    log.info("training %s on %s, preset %s, %s: %s", joint_name, device, preset, run_options.precision, folder)
    problems = train(run, folder)
    write_manifest(
        folder / MANIFEST,
        "spadunet_train",
        options,
        started=started,
        device=str(device),
        files=[folder],
    )
    return 1 if problems else 0


def planned_last(folder: Path) -> str:
    """Name of the dataset whose plan is the newest; told to the user.

    Raises:
        InputError: if there is none.
    """
    plans = sorted(folder.glob(f"*/{PLAN_JSON}"), key=lambda path: path.stat().st_mtime)
    if not plans:
        raise InputError(f"{folder}: no planned dataset; run spadunet_plan_and_preprocess, or name one with -d")
    log.info("dataset: %s, planned last", plans[-1].parent.name)
    return plans[-1].parent.name


def find_planned(name: str, workspace: Workspace) -> Path:
    """The raw folder of a dataset: as `find_dataset`, else where it lay when it was planned by path.

    Raises:
        InputError: if it is in neither place.
    """
    from ..dataset import find_dataset, is_named
    from ..fingerprint import Fingerprint
    from ..record import read_record

    try:
        return find_dataset(name, workspace.raw)
    except InputError:
        for path in workspace.preprocessed.glob(f"*/{FINGERPRINT_JSON}"):
            if is_named(path.parent.name, name):
                return Path(read_record(path, Fingerprint, remedy="run spadunet_fingerprint").source_folder)
        raise


def request_of(folder: Path) -> dict[str, str]:
    """What the unfinished or finished run in a model folder was asked for; empty where there is none.

    Raises:
        InputError: if its checkpoint is damaged.
    """
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    return read_progress(checkpoint).run if checkpoint.is_file() else {}


def find_earlier_run(folder: Path, options: argparse.Namespace, asked: dict[str, str]) -> Progress | None:
    """The interrupted run to go on with; None where one starts anew. A finished or different one is not overwritten.

    Args:
        asked: what this run is asked for, as `training.train.PreparedRun.request`.

    Raises:
        InputError: says which of --restart and -o is called for.
    """
    from ..model import MODEL_JSON
    from ..training.state import checkpoint_path, read_progress

    checkpoint = checkpoint_path(folder)
    is_there = checkpoint.is_file() and not options.restart
    if not is_there and not options.restart and (folder / MODEL_JSON).is_file():
        raise InputError(f"{folder}: holds a model already; --restart to start anew, or another folder with -o")
    if not is_there:
        if options.c:
            raise InputError(f"--c: {checkpoint} not found: no run to go on with; leave --c out to start one")
        return None
    progress = read_progress(checkpoint)
    for name, value in asked.items():
        earlier = progress.run.get(name, value)
        if earlier != value:
            raise InputError(
                f"{folder}: an earlier run had {name} {earlier}, not {value}; "
                "give the same options to go on, --restart to start anew, or another folder with -o"
            )
    if progress.is_finished and (folder / MANIFEST).is_file() and not options.c:
        raise InputError(
            f"{folder}: trained already ({progress.step} steps); --restart to start anew, or -o for another"
        )
    log.info("going on after step %d (%.1f minutes)", progress.step, progress.seconds / 60)
    return progress


def clear_earlier_run(folder: Path, options: argparse.Namespace, done: Progress | None) -> None:
    """Remove what an earlier run left, where this one starts anew."""
    import shutil

    from ..model import MODEL_JSON
    from ..training.state import checkpoint_path

    state = checkpoint_path(folder).parent
    if options.restart:
        if state.exists():
            shutil.rmtree(state)
        (folder / MODEL_JSON).unlink(missing_ok=True)
    if done is None:
        (folder / MANIFEST).unlink(missing_ok=True)


def fold(text: str) -> str:
    """Parse the number of a fold, or `all`."""
    return text if text == "all" else str(non_negative_int(text))


def default_workers() -> int:
    """One on a laptop, more where there are cores to spare."""
    import os

    return max(1, min((os.cpu_count() or 1) - 1, 8))
