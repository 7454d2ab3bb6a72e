"""`spadunet_train --task classification`: whole studies are told apart."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .classification_options import CLASSIFICATION, PAPER_MEDMNIST, SEARCH, settle_options
from .classification_run import Place, require_new_or_same, train_one
from .control_options import check_deterministic, deterministic
from .dry_classification import show_folder
from .earlier_run import request_of, require_apart, take_folder
from .fine_tuning import tell
from .joint_options import place_of_addition, require_new_tasks, require_none_lost
from .options import default_workers, find_device
from .search_rates import require_same_kind, search_rates
from .train_place import usual_preset

if TYPE_CHECKING:
    import torch

    from ..classification.sources import Source
    from ..medmnist import MedMNIST
    from ..study import LabelledStudies
    from ..workspace import Workspace

REGULARISED = ("adrenalmnist3d", "vesselmnist3d")
"""MedMNIST's shapes, whose brightness tells nothing: multiplied by U(0, 1) in training and by 0.5 after it."""
MEAN_BRIGHTNESS = 0.5

log = logging.getLogger("spadunet")


def train_classifier(options: argparse.Namespace) -> int:
    """Find the studies, settle network and folder, prepare, train; the exit code."""
    from ..medmnist import MedMNIST
    from ..training.ranks import open_ranks
    from ..workspace import find_workspace

    started = time.time()
    notes = settle_options(options)
    with open_ranks(find_device(options.device)) as ranks, deterministic(is_wanted=options.deterministic):
        if ranks.world_size > 1:
            raise InputError(f"--task {CLASSIFICATION}: runs in one process; start it without torchrun")
        workspace = find_workspace(options.data)
        found = find_studies(options, workspace)
        if options.fold is None and not isinstance(found, MedMNIST) and not found.has_splits:
            options.fold = "0"
        place = find_place(options, workspace, found.name, ranks.device)
        with take_folder(place.folder, is_first=True, dry_run=options.dry_run) as is_locked:
            tell(notes)
            if not options.restart:
                require_same_kind(place.folder, options.learning_rate)
            if options.learning_rate != SEARCH and not isinstance(found, MedMNIST):
                require_new_or_same(options, found, place, ranks.device)
            if options.dry_run and not isinstance(found, MedMNIST):
                return show_folder(options, found, place.folder, f"{place.backbone} {place.preset}")
            source = prepare_source(options, found, workspace)
            if options.learning_rate == SEARCH:
                return search_rates(options, source, place, ranks.device, started=started)
            return train_one(options, source, place, ranks.device, started=started, is_locked=is_locked)


def find_studies(options: argparse.Namespace, workspace: Workspace) -> MedMNIST | LabelledStudies:
    """What -d means: a MedMNIST file or a folder, by path or by its name in raw/.

    Raises:
        InputError: if there is none, several are given, or it is damaged.
    """
    from ..dataset import find_dataset
    from ..medmnist import open_medmnist
    from ..medmnist_doubts import warn_doubts
    from ..study_labels import read_studies

    if options.dataset is None or len(options.dataset) != 1:
        raise InputError(f"-d: --task {CLASSIFICATION} learns from one dataset; give its file, folder or name")
    (name,) = options.dataset
    for path in (Path(name), workspace.raw / name, workspace.raw / f"{name}.npz"):
        if path.is_file():
            dataset = open_medmnist(path)
            warn_doubts(dataset)
            return dataset
    if name.endswith(".npz"):
        raise InputError(f"-d {name}: not found, nor in {workspace.raw}; give the path of a MedMNIST .npz file")
    return read_studies(find_dataset(name, workspace.raw))


def find_place(options: argparse.Namespace, workspace: Workspace, name: str, device: torch.device) -> Place:
    """Settle network and folder.

    Raises:
        InputError: if what lies there does not go with the options.
    """
    from ..classification.parts import require_pooling
    from ..training.init import InitKind, kind_of

    earlier = {} if options.restart or options.output is None else request_of(options.output)
    kind = InitKind(backbone="spad_unet", preset=usual_preset(device))
    if options.init is not None and not earlier and None in (options.backbone, options.preset):
        kind = kind_of(options.init)
    backbone = options.backbone or earlier.get("backbone") or kind.backbone
    preset = options.preset or earlier.get("preset") or kind.preset
    check_deterministic(options, backbone, device.type)
    require_pooling(backbone, options.pooling)
    run_name = CLASSIFICATION if options.fold is None else f"{CLASSIFICATION}_fold_{options.fold}"
    folder = options.output or workspace.results / name / f"{backbone}_{preset}" / run_name
    model_folder = folder
    if options.add_task:
        folder, model_folder = place_of_addition(options.init, options.output, name)
        if options.restart or not request_of(folder):
            require_new_tasks(options.init, [name])
    else:
        require_apart(options.init, folder)
    require_none_lost(model_folder, [name], options.init if options.add_task else None)
    return Place(name=name, backbone=backbone, preset=preset, folder=folder, model_folder=model_folder)


def prepare_source(options: argparse.Namespace, found: MedMNIST | LabelledStudies, workspace: Workspace) -> Source:
    """Plan the studies, and preprocess those of a folder.

    Raises:
        InputError: if options do not fit the images.
    """
    from ..classification.preparation import plan_of_file, prepare_folder
    from ..classification.sources import folder_source, medmnist_source
    from ..medmnist import MedMNIST
    from ..workers import Workers

    sizes = None if options.input_size is None else tuple(options.input_size)
    if sizes is not None and options.spacing is not None:
        raise InputError(f"--spacing {options.spacing}: images have an --input-size instead; leave one of them out")
    if isinstance(found, MedMNIST):
        if options.spacing is not None:
            raise InputError(f"--spacing {options.spacing}: {found.path} tells no spacing; give --input-size")
        plan = plan_of_file(found, sizes)
        if is_regularised(options, found.name):
            plan = plan.model_copy(update={"brightness": MEAN_BRIGHTNESS})
            log.info("%s: multiplied by chance in training, by %g after it", found.name, MEAN_BRIGHTNESS)
        log.info("%s: %s, images interpolated to %s voxels", found.path, plan.classes.kind, plan.input_size_voxels)
        return medmnist_source(found, plan, options.fold)
    num_processes = default_workers() if options.num_workers is None else options.num_workers
    prepared = prepare_folder(
        found,
        workspace.preprocessed / found.name,
        target_spacing=options.spacing or "median",
        sizes=sizes,
        workers=Workers(num_processes=max(1, num_processes)),
    )
    return folder_source(found, prepared.plan, prepared.cases, options.fold)


def is_regularised(options: argparse.Namespace, name: str) -> bool:
    """Whether the recipe has MedMNIST's regularisation for a file of this name, of whatever size."""
    return options.recipe == PAPER_MEDMNIST and name.lower().partition("_")[0] in REGULARISED
