"""spadunet_train: one backbone on one or more datasets."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.recipes import PRESETS, RECIPES
from .earlier_run import RunFiles, clear_earlier_run, find_earlier_run, request_of
from .options import (
    add_device_options,
    default_workers,
    find_device,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from .run import add_data_option, add_dry_run_option, log_to_file, make_parser, run_command, write_manifest
from .stages import FINGERPRINT_JSON, PLAN_JSON, check_names_differ, read_plan
from .variety_options import add_variety_options, find_variety

if TYPE_CHECKING:
    from ..workspace import Workspace

EXAMPLES = """\
  spadunet_train -d Hippocampus --max-minutes 20
  spadunet_train -d 4 101 -f all                    both datasets, one backbone
  spadunet_train -d BTCV --backbone spad_vit --preset base
  spadunet_train -d BTCV -f 0 --init results/pretraining/spad_vit_base
  spadunet_train -d BTCV -f 0                       again: an interrupted run goes on
"""
DEFAULT_STEPS = 50_000
MAX_NAME_BYTES = 255
log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_parser("Train a SPAD U-Net or SPAD-ViT on preprocessed datasets.", EXAMPLES)
    parser.add_argument(
        "-d",
        "--dataset",
        nargs="+",
        metavar="DATASET",
        help="one or more datasets, trained jointly through one backbone (default: the one planned last)",
    )
    parser.add_argument("-f", "--fold", type=fold, default="0", help="fold to hold out, or all (default: 0)")
    parser.add_argument(
        "--backbone",
        choices=tuple(RECIPES),
        help="network: convolutional, or a transformer with a convolutional decoder (default: that of --init, or "
        "spad_unet)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="size of the network (default: that of --init, or base on a GPU, tiny without)",
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="MODEL",
        help="weights to start from: a folder of a model or of a pre-trained backbone, or an EVA-02 file",
    )
    parser.add_argument(
        "--scratch-twin",
        action="store_true",
        help="the same run as with --init, but from fresh weights, for comparison; goes to a folder ..._twin",
    )
    parser.add_argument("--max-steps", type=positive_int, help=f"(default: {DEFAULT_STEPS} unless --max-minutes)")
    parser.add_argument("--max-minutes", type=positive_float, help="end after this time of training")
    parser.add_argument("--batch-size", type=positive_int, help="patches a step (default: 2, up to 4 if small)")
    parser.add_argument("--learning-rate", type=positive_float, help=f"peak (default: {rates_text()})")
    parser.add_argument("--weight-decay", type=non_negative_float, help=f"of AdamW (default: {decay_text()})")
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, help="of weights, batches and augmentation (default: 0)"
    )
    add_variety_options(parser)
    add_device_options(parser)
    parser.add_argument(
        "--compile", action="store_true", help="run the network through torch.compile: minutes before the first step"
    )
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
    from ..model import MODEL_JSON
    from ..network.device import choose_precision
    from ..training.init import INIT_COVERAGE_JSON
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
    backbone, preset = choose_network(options, earlier, device.type)
    recipe = RECIPES[backbone]
    joint_name = "+".join(member.dataset.name for member in datasets)
    if options.output is None and len(joint_name.encode()) > MAX_NAME_BYTES:
        raise InputError(f"-d: the names of {len(datasets)} datasets make too long a folder name; name one with -o")
    kind = f"{backbone}_{preset}{'_twin' if options.scratch_twin else ''}"
    folder = options.output or workspace.results / joint_name / kind / f"fold_{options.fold}"
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
        learning_rate=recipe.learning_rate(preset) if options.learning_rate is None else options.learning_rate,
        weight_decay=recipe.weight_decay if options.weight_decay is None else options.weight_decay,
        seed=options.seed,
        device=device,
        precision=precision,
        num_workers=default_workers() if options.num_workers is None else options.num_workers,
        checkpoint_minutes=options.checkpoint_minutes,
        spares_vectors=recipe.spares_vectors,
        is_compiled=options.compile,
    )
    run = prepare_run(
        datasets,
        run_options,
        backbone=backbone,
        preset=preset,
        fold=options.fold,
        batch_size=options.batch_size,
        init=options.init,
        scratch_twin=options.scratch_twin,
        goes_on=bool(earlier),
        dry_run=options.dry_run,
        variety=find_variety(options),
    )
    files = RunFiles(result=MODEL_JSON, manifest="spadunet_train.json", others=(INIT_COVERAGE_JSON,))
    done = find_earlier_run(folder, files, run.request, restart=options.restart, must_go_on=options.c)
    if options.dry_run:
        from .dry_train import show_training

        return show_training(run, folder, done)
    clear_earlier_run(folder, files, done, restart=options.restart)
    log.info("training %s on %s, %s %s, %s: %s", joint_name, device, backbone, preset, run_options.precision, folder)
    problems = train(run, folder)
    write_manifest(
        folder / files.manifest,
        "spadunet_train",
        options,
        started=started,
        device=str(device),
        files=[folder],
    )
    return 1 if problems else 0


def rates_text() -> str:
    """Each backbone's learning rate, by preset where they differ, for `--help`."""
    texts = []
    for backbone, recipe in RECIPES.items():
        rates = [f"{recipe.learning_rate(preset):g}" for preset in PRESETS]
        by_preset = ", ".join(f"{rate} {preset}" for rate, preset in zip(rates, PRESETS, strict=True))
        texts.append(f"{backbone} {rates[0] if len(set(rates)) == 1 else by_preset}")
    return "; ".join(texts)


def decay_text() -> str:
    """Each backbone's weight decay, for `--help`."""
    return "; ".join(f"{backbone} {recipe.weight_decay:g}" for backbone, recipe in RECIPES.items())


def choose_network(options: argparse.Namespace, earlier: dict[str, str], device_type: str) -> tuple[str, str]:
    """Backbone and preset: as asked for, else those of the run to go on with, else those of `--init`, else the default.

    Raises:
        InputError: if --init is no model, or --scratch-twin is given without it.
    """
    from ..training.init import InitKind, kind_of

    if options.scratch_twin and options.init is None:
        raise InputError("--scratch-twin: compares with a run that starts from --init MODEL; give that too")
    default = InitKind(backbone="spad_unet", preset="base" if device_type == "cuda" else "tiny")
    if options.init is not None and not earlier and None in (options.backbone, options.preset):
        default = kind_of(options.init)
    backbone = options.backbone or earlier.get("backbone") or default.backbone
    return backbone, options.preset or earlier.get("preset") or default.preset


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


def fold(text: str) -> str:
    """Parse the number of a fold, or `all`."""
    return text if text == "all" else str(non_negative_int(text))
