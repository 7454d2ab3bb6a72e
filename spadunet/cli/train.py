"""spadunet_train: one backbone on one or more datasets."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.recipes import CHANNEL_DROPOUT, RECIPES
from ..training.schedule import WARM_UP
from .classification_options import check_task
from .control_options import check_control_options, deterministic
from .earlier_run import RunFiles, clear_earlier_run, find_earlier_run, request_of, require_same, take_folder
from .findings import check_findings, find_findings, join, settle_fold, show_findings
from .fine_tuning import OVERLAP, USUAL_OVERLAP, differences_of_plan, settle_training, tell
from .joint_options import adapter_of
from .options import DEFAULT_SEED, default_workers, find_device, find_mirror_axes
from .planned import find_planned, planned_last
from .recipes import Recipe
from .repeats import train_repeats
from .run import run_command, write_manifest
from .train_classification import train_classifier
from .train_options import DEFAULT_STEPS, make_train_parser
from .train_place import MANIFEST, Place, find_place
from .variety_options import find_variety

if TYPE_CHECKING:
    import torch

    from ..training.loop import RunOptions
    from ..training.ranks import Ranks

USUAL = Recipe(
    warm_up_share=WARM_UP,
    options={"max_steps": DEFAULT_STEPS, "fold": "0", "mirror": ["none"], "channel_dropout": CHANNEL_DROPOUT},
)
log = logging.getLogger("spadunet")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    parser = make_train_parser()
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


def train_in(
    place: Place, options: argparse.Namespace, ranks: Ranks, settled: Recipe, *, started: float, is_locked: bool
) -> int:
    """Train where the folder is held, or say what would be done; the exit code.

    Args:
        is_locked: as `take_folder` gave it.
    """
    from ..classification.joint_train import train_with_findings
    from ..model import MODEL_JSON
    from ..training.board import VALIDATION_CSV, read_final_scores
    from ..training.epochs import EPOCHS_CSV
    from ..training.init import INIT_COVERAGE_JSON
    from ..training.prepare import prepare_run
    from ..training.train import train

    folder, device = place.folder, ranks.device
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
    run_options = run_options_of(options, settled, place, device, earlier)
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


def run_options_of(
    options: argparse.Namespace, settled: Recipe, place: Place, device: torch.device, earlier: dict[str, str]
) -> RunOptions:
    """How the network is trained, as asked for.

    Args:
        settled: the recipe whose values the options have by now.
        earlier: request of the run that goes on, if there is one.
    """
    import torch

    from ..network.device import choose_precision
    from ..training.loop import RunOptions

    recipe = RECIPES[place.backbone]
    precision = choose_precision(options.precision, device)
    if options.precision == "auto" and "precision" in earlier:  # begun on another machine
        precision = getattr(torch, earlier["precision"].removeprefix("torch."))
    return RunOptions(
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


if __name__ == "__main__":
    main()
