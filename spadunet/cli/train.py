"""spadunet_train: one backbone on one or more datasets."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..pretrained import BACKBONE, find_weights
from ..training.recipes import CHANNEL_DROPOUT, PRESETS, RECIPES
from ..training.schedule import WARM_UP
from .classification_options import RECIPES as CLASSIFICATION_RECIPES
from .classification_options import add_classification_options, check_task, learning_rate
from .control_options import add_control_options, check_control_options, check_deterministic, deterministic
from .earlier_run import (
    RunFiles,
    clear_earlier_run,
    find_earlier_run,
    request_of,
    require_apart,
    require_same,
    take_folder,
)
from .findings import add_findings_options, check_findings, find_findings, join, settle_fold, show_findings
from .fine_tuning import OVERLAP, USUAL_OVERLAP, add_recipe_option, differences_of_plan, settle_training, tell
from .joint_options import (
    adapter_of,
    add_joint_options,
    check_joint_options,
    class_weights_for,
    place_of_addition,
    require_new_tasks,
    require_none_lost,
)
from .options import (
    DEFAULT_SEED,
    add_device_options,
    default_workers,
    find_device,
    find_mirror_axes,
    non_negative_float,
    non_negative_int,
    positive_float,
    positive_int,
)
from .recipes import Recipe
from .repeats import train_repeats
from .run import add_data_option, add_dry_run_option, make_parser, run_command, write_manifest
from .stages import FINGERPRINT_JSON, PLAN_JSON, check_names_differ, read_plan
from .train_classification import train_classifier
from .train_place import MANIFEST, choose_network, usual_folder
from .variety_options import add_variety_options, find_variety

if TYPE_CHECKING:
    from ..training.ranks import Ranks
    from ..training.train import TrainingDataset
    from ..workspace import Workspace

EXAMPLES = """\
  spadunet_train -d Hippocampus --max-minutes 20
  spadunet_train -d 4 101 -f all                    both datasets, one backbone
  spadunet_train -d BTCV --backbone spad_vit --preset base
  spadunet_train -d BTCV -f 0 --init results/pretraining/spad_vit_base
  spadunet_train -d Hippocampus --init spad_unet_tiny
  spadunet_train -d Heart --init MODEL --add-task   MODEL learns hearts too; what it knew stays as it is
  spadunet_train -d Heart --init MODEL --add-task --adapter lora     and learns a small change of the backbone for them
  spadunet_train -d BTCV --recipe paper-btcv --init results/pretraining/spad_vit_base
  spadunet_train --task classification -d organmnist3d.npz
  spadunet_train -d BTCV --findings                 label maps, and what BTCV's labels.csv says of whole studies
  spadunet_train -d BTCV -f 0                       again: an interrupted run goes on
  spadunet_train -d BTCV --fraction 0.2 --repeats 3 a fifth of the patients, three seeds
  torchrun --standalone --nproc-per-node 4 $(which spadunet_train) -d BTCV --batch-size 8
"""
DEFAULT_STEPS = 50_000
USUAL = Recipe(
    warm_up_share=WARM_UP,
    options={"max_steps": DEFAULT_STEPS, "fold": "0", "mirror": ["none"], "channel_dropout": CHANNEL_DROPOUT},
)
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
    parser.add_argument("-f", "--fold", type=fold, help="fold to hold out, or all (default: 0)")
    parser.add_argument(
        "--backbone",
        choices=tuple(RECIPES),
        help="network: convolutional, or a transformer with a convolutional decoder (default: that of --init, or "
        "spad_unet)",
    )
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="size of the network (default: that of --init, or base on a GPU of 20 GB, small on a smaller one, "
        "tiny without)",
    )
    parser.add_argument(
        "--init",
        type=find_weights,
        metavar="MODEL",
        help=f"weights to start from: a folder of a model or of a pre-trained backbone, {BACKBONE}, which comes with "
        "spadunet, or an EVA-02 file",
    )
    parser.add_argument(
        "--scratch-twin",
        action="store_true",
        help="the same run as with --init, but from fresh weights, for comparison; goes to a folder ..._twin",
    )
    add_joint_options(parser)
    parser.add_argument("--max-steps", type=positive_int, help=f"(default: {DEFAULT_STEPS} unless --max-minutes)")
    parser.add_argument("--max-minutes", type=positive_float, help="end after this time of training")
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        help="patches a step, of all processes together (default: 2, up to 4 if small)",
    )
    parser.add_argument(
        "--learning-rate",
        type=learning_rate,
        metavar="RATE",
        help=f"peak (default: {rates_text()}), or search: the paper's nine for --task classification, the best wins",
    )
    parser.add_argument("--weight-decay", type=non_negative_float, help=f"of AdamW (default: {decay_text()})")
    parser.add_argument(
        "--seed", type=non_negative_int, help=f"of weights, batches and augmentation (default: {DEFAULT_SEED})"
    )
    add_variety_options(parser)
    add_control_options(parser)
    add_recipe_option(
        parser,
        "steps, batch, learning rate, network, fold and augmentation, and its overlap in validation",
        more=CLASSIFICATION_RECIPES,
    )
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
    add_findings_options(parser)
    add_classification_options(parser)
    options = parser.parse_args(arguments)
    given = [name for name, value in vars(options).items() if value != parser.get_default(name)]
    stopped = f"the same command goes on from here{', without --restart' if options.restart else ''}"
    run_command(parser, options, lambda: execute(options, given), if_stopped=stopped)


def execute(options: argparse.Namespace, given: Collection[str]) -> int:
    """Join the other processes; one run, or several that differ in their seed.

    Args:
        given: names of the options that the user gave.
    """
    from ..training.ranks import open_ranks

    if check_task(options, given):
        return train_classifier(options)
    if options.seed is None:
        options.seed = DEFAULT_SEED
    check_findings(options, given)
    if options.findings:
        settle_findings(options)
    settled, notes = settle_training(options, USUAL)
    check_control_options(options)
    one = partial(train_one, settled=settled, notes=notes)
    with open_ranks(find_device(options.device)) as ranks, deterministic(is_wanted=options.deterministic):
        if options.repeats is None or options.dry_run:
            return one(options, ranks)[0]
        return train_repeats(options, ranks, one)


def settle_findings(options: argparse.Namespace) -> None:
    """Find the dataset, so that its table can say who trains."""
    from ..workspace import find_workspace

    workspace = find_workspace(options.data)
    options.dataset = options.dataset or [planned_last(workspace.preprocessed)]
    settle_fold(options, find_planned(options.dataset[0], workspace))


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is trained on what, and where it goes."""

    name: str
    """Of all datasets."""
    datasets: tuple[TrainingDataset, ...]
    backbone: str
    preset: str
    folder: Path
    """Of the run."""
    model_folder: Path


def train_one(options: argparse.Namespace, ranks: Ranks, *, settled: Recipe, notes: Sequence[str]) -> tuple[int, Path]:
    """Find the datasets, settle where the model goes, train; the exit code and the run's folder.

    Args:
        settled: the recipe whose values the options have by now.
        notes: for the log, on what it has in common with a published one.
    """
    started = time.time()
    place = find_place(options, ranks)
    with take_folder(place.folder, is_first=ranks.is_first, dry_run=options.dry_run) as is_locked:
        tell(notes)
        return train_in(place, options, ranks, settled, started=started, is_locked=is_locked), place.folder


def find_place(options: argparse.Namespace, ranks: Ranks) -> Place:
    """Find the datasets, and settle which network learns from them and where it goes.

    Raises:
        InputError: if options, datasets or what lies in the folder do not go together.
    """
    from ..classification.findings import SUFFIX
    from ..dataset import load_dataset
    from ..training.train import TrainingDataset
    from ..workspace import find_workspace

    check_joint_options(options)
    workspace = find_workspace(options.data)
    names = options.dataset or [planned_last(workspace.preprocessed)]
    datasets = []
    for name in names:
        dataset = load_dataset(find_planned(name, workspace), dry_run=options.dry_run)
        folder = workspace.preprocessed / dataset.name
        datasets.append(TrainingDataset(dataset=dataset, plan=read_plan(folder, dataset), folder=folder))
    check_names_differ([member.dataset for member in datasets])
    if options.share_input is not None:
        from ..training.shared_input import as_shared, read_shared

        shared = read_shared(options.init, options.share_input)
        datasets = [replace(it, plan=as_shared(it.plan, shared, options.share_input)) for it in datasets]
    class_weights = class_weights_for(options.class_weights, datasets)
    dataset_weights = [None] * len(datasets) if options.findings else options.dataset_weights
    dataset_weights = dataset_weights or [None] * len(datasets)
    datasets = [
        replace(member, weight=weight, class_weights=of_classes)
        for member, weight, of_classes in zip(datasets, dataset_weights, class_weights, strict=True)
    ]
    dataset_names = [member.dataset.name for member in datasets]
    if options.findings:
        dataset_names += [f"{dataset_names[0]}{SUFFIX}"]
    joint = "+".join(dataset_names)
    output = options.output
    if output is not None and options.repeats is not None:
        output = output / f"seed_{options.seed}"
    earlier = {} if options.restart or output is None else request_of(output)
    backbone, preset = choose_network(options, earlier, workspace.results / joint, ranks.device)
    check_deterministic(options, backbone, ranks.device.type)
    if options.output is None and len(joint.encode()) > MAX_NAME_BYTES:
        raise InputError(f"-d: the names of {len(datasets)} datasets make too long a folder name; name one with -o")
    folder = output or usual_folder(options, workspace.results / joint, backbone, preset)
    if output is None and options.repeats is not None:
        folder = folder / f"seed_{options.seed}"
    model_folder = folder
    if options.add_task:
        folder, model_folder = place_of_addition(options.init, options.output, joint)
        if options.restart or not request_of(folder):
            require_new_tasks(options.init, dataset_names)
    else:
        require_apart(options.init, folder, is_repeat=options.repeats is not None)
    require_none_lost(model_folder, dataset_names, options.init if options.add_task else None)
    return Place(
        name=joint,
        datasets=tuple(datasets),
        backbone=backbone,
        preset=preset,
        folder=folder,
        model_folder=model_folder,
    )


def train_in(
    place: Place, options: argparse.Namespace, ranks: Ranks, settled: Recipe, *, started: float, is_locked: bool
) -> int:
    """Train where the folder is held, or say what would be done; the exit code.

    Args:
        is_locked: as `take_folder` gave it.
    """
    import torch

    from ..classification.joint_train import train_with_findings
    from ..model import MODEL_JSON
    from ..network.device import choose_precision
    from ..training.board import VALIDATION_CSV, read_final_scores
    from ..training.epochs import EPOCHS_CSV
    from ..training.init import INIT_COVERAGE_JSON
    from ..training.loop import RunOptions
    from ..training.train import prepare_run, train

    folder, device, recipe = place.folder, ranks.device, RECIPES[place.backbone]
    datasets, findings = place.datasets, None
    if options.findings:
        if ranks.world_size > 1:
            raise InputError("--findings: runs in one process; start it without torchrun")
        findings = find_findings(datasets[0], options, place.backbone)
        datasets = (findings.member,)
    for member in datasets:
        if (differs := differences_of_plan(options.recipe, member.plan)) is not None:
            log.warning(differs)
    earlier = {} if options.restart else request_of(folder)
    precision = choose_precision(options.precision, device)
    if options.precision == "auto" and "precision" in earlier:  # begun on another machine
        precision = getattr(torch, earlier["precision"].removeprefix("torch."))
    run_options = RunOptions(
        max_steps=options.max_steps,
        max_minutes=options.max_minutes,
        learning_rate=recipe.learning_rate(place.preset) if options.learning_rate is None else options.learning_rate,
        weight_decay=recipe.weight_decay if options.weight_decay is None else options.weight_decay,
        seed=options.seed,
        device=device,
        precision=precision,
        num_workers=default_workers() if options.num_workers is None else options.num_workers,
        checkpoint_minutes=options.checkpoint_minutes,
        spares_vectors=recipe.spares_vectors,
        freezes_backbone=options.freeze_backbone or options.add_task,
        adapter=adapter_of(options),
        shares_input=options.share_input is not None,
        validate_every=options.validate_every,
        patience=options.patience,
        deterministic=options.deterministic,
        warm_up_share=settled.warm_up_share,
        lowest_rate=settled.lowest_rate,
        overlap=OVERLAP if options.recipe else USUAL_OVERLAP,
        mirror=find_mirror_axes(options.mirror) if options.recipe else (),
        recipe=options.recipe,
        is_compiled=options.compile,
    )
    run = prepare_run(
        datasets,
        run_options,
        backbone=place.backbone,
        preset=place.preset,
        fold=options.fold,
        fraction=options.fraction,
        fraction_seed=options.fraction_seed or 0,
        batch_size=options.batch_size,
        batch_multiple=int(earlier.get("batch_multiple", 1)) if earlier else ranks.world_size,
        init=options.init,
        scratch_twin=options.scratch_twin,
        adds_task=options.add_task,
        goes_on=bool(earlier),
        ranks=ranks,
        dry_run=options.dry_run,
        variety=find_variety(options),
        share_input=options.share_input,
        splits=None if findings is None else [findings.sides.cases],
        findings=None if findings is None else findings.request,
    )
    files = RunFiles(result=MODEL_JSON, manifest=MANIFEST, others=(INIT_COVERAGE_JSON, VALIDATION_CSV, EPOCHS_CSV))
    must_go_on = options.c or (options.repeats is not None and bool(earlier))
    done = find_earlier_run(folder, files, run.request, restart=options.restart, must_go_on=must_go_on)
    if options.dry_run:
        from .dry_train import show_training

        if not ranks.is_first:
            return 0
        if findings is not None:
            show_findings(findings)
        return show_training(run, folder, done, model_folder=place.model_folder, num_runs=options.repeats or 1)
    joint = None
    if findings is not None:
        joint = join(run, findings, options, goes_on=bool(earlier))
        run = joint.segmentation
        if done is not None:
            require_same(folder, done, run.request)
    is_done = done is not None and done.is_finished and (folder / files.manifest).is_file()
    ranks.wait()  # all have read what an earlier run left
    if is_done and options.repeats is not None:
        return int(any(scores.failed for scores in read_final_scores(folder).values()))
    if ranks.is_first:
        clear_earlier_run(folder, files, done, restart=options.restart)
    ranks.wait()
    devices = str(device) if ranks.world_size == 1 else f"{ranks.world_size} × {device.type}"
    network = f"{place.backbone} {place.preset}"
    log.info("training %s on %s, %s, %s: %s", place.name, devices, network, run_options.precision, folder)
    if joint is None:
        problems = train(run, folder, model_folder=place.model_folder, is_locked=is_locked)
    else:
        problems = train_with_findings(joint, folder, model_folder=place.model_folder, is_locked=is_locked)
    if ranks.is_first:
        write_manifest(
            folder / files.manifest,
            "spadunet_train",
            options,
            started=started,
            device=devices,
            files=[place.model_folder],
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


if __name__ == "__main__":
    main()
