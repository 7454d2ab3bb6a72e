"""One run of `spadunet_train --task classification`."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .dry_classification import show_run
from .earlier_run import RunFiles, check_earlier_run, clear_earlier_run, find_earlier_run
from .earlier_run import request_of as earlier_request
from .joint_options import adapter_of
from .options import default_workers
from .run import write_manifest
from .train_place import MANIFEST

if TYPE_CHECKING:
    import torch

    from ..classification.options import ClassificationOptions
    from ..classification.prepared import PreparedClassification
    from ..classification.sources import Source
    from ..study import LabelledStudies

RATES = {"spad_unet": (1e-3, 1e-3, 1e-3, 1e-3), "spad_vit": (1e-3, 3e-4, 1e-4, 1e-4)}
"""At the peak, by preset; of a frozen backbone FROZEN_RATE. The search finds better ones."""
FROZEN_RATE = 1e-3
log = logging.getLogger("spadunet")


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is trained on what, and where it goes."""

    name: str
    """Of the dataset."""
    backbone: str
    preset: str
    folder: Path
    """Of the run."""
    model_folder: Path


def options_of(
    options: argparse.Namespace,
    place: Place,
    device: torch.device,
    earlier: dict[str, str],
    *,
    num_train: int,
    is_dimmed: bool = False,
) -> ClassificationOptions:
    """What the run is told.

    Args:
        earlier: request of the run that this one goes on with.
        num_train: studies that train.
        is_dimmed: the plan has a brightness.
    """
    import torch

    from ..classification.batches import num_steps
    from ..classification.options import LIGHT, ClassificationOptions
    from ..network.device import choose_precision
    from ..training.recipes import PRESETS

    precision = choose_precision(options.precision, device)
    if options.precision == "auto" and "precision" in earlier:  # begun on another machine
        precision = getattr(torch, earlier["precision"].removeprefix("torch."))
    is_frozen = options.freeze_backbone or options.add_task
    usual = FROZEN_RATE if is_frozen else RATES[place.backbone][PRESETS.index(place.preset)]
    steps = [] if options.epochs is None else [options.epochs * num_steps(num_train, options.batch_size)]
    steps += [] if options.max_steps is None else [options.max_steps]
    return ClassificationOptions(
        max_steps=min(steps, default=None),
        max_minutes=options.max_minutes,
        seed=options.seed,
        device=device,
        precision=precision,
        num_workers=default_workers() if options.num_workers is None else options.num_workers,
        checkpoint_minutes=options.checkpoint_minutes,
        batch_size=options.batch_size,
        learning_rate=usual if options.learning_rate is None else options.learning_rate,
        weight_decay=options.weight_decay,
        schedule="steps" if options.recipe else "cosine",
        augmentation=None if options.recipe else LIGHT,
        is_dimmed=is_dimmed,
        freezes_backbone=is_frozen,
        adapter=adapter_of(options),
        deterministic=options.deterministic,
        recipe=options.recipe,
        epochs=options.epochs,
    )


def prepare(
    options: argparse.Namespace, source: Source, place: Place, device: torch.device, earlier: dict[str, str]
) -> PreparedClassification:
    """A run whose every input was found sound."""
    from ..classification.prepared import prepare_classification

    num_train, is_dimmed = len(source.train.names), source.plan.brightness is not None
    return prepare_classification(
        source,
        options_of(options, place, device, earlier, num_train=num_train, is_dimmed=is_dimmed),
        backbone=place.backbone,
        preset=place.preset,
        pooling=options.pooling,
        init=options.init,
        adds_task=options.add_task,
        goes_on=bool(earlier),
    )


def require_new_or_same(
    options: argparse.Namespace, found: LabelledStudies, place: Place, device: torch.device
) -> None:
    """Refuse what lies in the folder as `train_one` does, before images are planned and preprocessed.

    Raises:
        InputError: if the run of an earlier call is finished, or was asked for something else.
    """
    from ..classification.parts import require_pooling
    from ..classification.prepared import digest_of_studies, request_of
    from ..classification.sources import sides_of_folder, usual_fold

    earlier = {} if options.restart else earlier_request(place.folder)
    sides = sides_of_folder(found, options.fold)
    asked = request_of(
        options_of(options, place, device, earlier, num_train=len(sides[0])),
        name=place.name,
        fold=options.fold or usual_fold(found),
        cases=digest_of_studies(*sides),
        backbone=place.backbone,
        preset=place.preset,
        pooling=require_pooling(place.backbone, options.pooling),
        init=options.init,
        adds_task=options.add_task,
    )
    asked["spacing"] = "None" if options.input_size else options.spacing or "median"
    check_earlier_run(place.folder, files_of_run(), asked, restart=options.restart, must_go_on=options.c)


def files_of_run() -> RunFiles:
    """What a run leaves."""
    from ..model import MODEL_JSON
    from ..training.epochs import EPOCHS_CSV
    from ..training.init import INIT_COVERAGE_JSON

    return RunFiles(result=MODEL_JSON, manifest=MANIFEST, others=(INIT_COVERAGE_JSON, EPOCHS_CSV))


def train_one(
    options: argparse.Namespace,
    source: Source,
    place: Place,
    device: torch.device,
    *,
    started: float,
    is_locked: bool,
) -> int:
    """One run; the exit code."""
    from ..classification.search import drop_search
    from ..classification.train import train_classification

    folder, files = place.folder, files_of_run()
    earlier = {} if options.restart else earlier_request(folder)
    run = prepare(options, source, place, device, earlier)
    done = find_earlier_run(folder, files, run.request, restart=options.restart, must_go_on=options.c)
    if options.dry_run:
        return show_run(run, folder, model_folder=place.model_folder)
    clear_earlier_run(folder, files, done, restart=options.restart)
    if options.restart:
        drop_search(folder)
    where = f"{device}, {place.backbone} {place.preset}, {run.options.precision}"
    log.info("training %s on %s: %s", place.name, where, folder)
    train_classification(run, folder, model_folder=place.model_folder, is_locked=is_locked)
    write_manifest(
        folder / MANIFEST, "spadunet_train", options, started=started, device=str(device), files=[place.model_folder]
    )
    return 0
