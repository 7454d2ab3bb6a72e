"""What a training run learns from, which network it has, and which folder it goes to."""

from __future__ import annotations

import argparse
import contextlib
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.recipes import PRESETS
from .control_options import check_deterministic, run_name
from .earlier_run import request_of, require_apart
from .joint_options import (
    check_joint_options,
    class_weights_for,
    place_of_addition,
    require_new_tasks,
    require_none_lost,
)
from .planned import find_planned, planned_last
from .stages import check_names_differ, read_plan

if TYPE_CHECKING:
    import torch

    from ..training.prepare import TrainingDataset
    from ..training.ranks import Ranks

MAX_NAME_BYTES = 255
MANIFEST = "spadunet_train.json"
BASE_MEMORY_BYTES = 20e9

log = logging.getLogger("spadunet")


def usual_preset(device: torch.device) -> str:
    """The largest whose default patches fit into the memory, if need be one after the other (docs/training.md)."""
    import torch

    if device.type != "cuda":
        return "tiny"
    return "base" if torch.cuda.get_device_properties(device).total_memory >= BASE_MEMORY_BYTES else "small"


def choose_network(
    options: argparse.Namespace, earlier: dict[str, str], results: Path, device: torch.device
) -> tuple[str, str]:
    """Backbone and preset: as asked for, else those of the run to go on with, else those of `--init`, else the default.

    Args:
        earlier: request of the run in the folder of -o, if there is one.
        results: folder of the results on these datasets.

    Raises:
        InputError: if --init is no model, or --scratch-twin is given without it.
    """
    from ..training.init import InitKind, kind_of

    if options.scratch_twin and options.init is None:
        raise InputError("--scratch-twin: compares with a run that starts from --init MODEL; give that too")
    default = InitKind(backbone="spad_unet", preset=usual_preset(device))
    if options.init is not None and not earlier and None in (options.backbone, options.preset):
        default = kind_of(options.init)
    backbone = options.backbone or earlier.get("backbone") or default.backbone
    preset = options.preset or earlier.get("preset")
    if preset is None and options.init is None and options.output is None and not options.restart:
        preset = preset_of_unfinished(options, results, backbone, default.preset)
    return backbone, preset or default.preset


def usual_folder(options: argparse.Namespace, results: Path, backbone: str, preset: str) -> Path:
    """Where a run goes without -o; with --repeats, where the folders of its seeds go."""
    return results / f"{backbone}_{preset}{'_twin' if options.scratch_twin else ''}" / run_name(options)


def preset_of_unfinished(options: argparse.Namespace, results: Path, backbone: str, usual: str) -> str:
    """The preset of the unfinished run that the same command began on another device; told to the user.

    Args:
        usual: preset on this device, which stays where its folder has a run, or other folders have none or several.
    """
    from ..training.state import checkpoint_path

    folders = {preset: usual_folder(options, results, backbone, preset) for preset in PRESETS}
    if any(checkpoint_path(run).is_file() for run in runs_in(folders[usual], options)):
        return usual
    found = [preset for preset in PRESETS if preset != usual and is_unfinished(folders[preset], options)]
    if len(found) > 1:
        where = ", ".join(str(folders[preset]) for preset in found)
        log.warning("%s: unfinished runs of other presets; a %s one begins; --preset goes on with one", where, usual)
    if len(found) != 1:
        return usual
    log.info(
        "%s: unfinished, so it goes on, though %s is usual on this device; --preset %s begins another",
        folders[found[0]],
        usual,
        usual,
    )
    return found[0]


def runs_in(folder: Path, options: argparse.Namespace) -> list[Path]:
    """The run of a folder, or those of its seeds."""
    return [folder] if options.repeats is None else sorted(folder.glob("seed_*"))


def is_unfinished(folder: Path, options: argparse.Namespace) -> bool:
    """Whether a command of the same length began a run there, and did not finish it, or all of --repeats."""
    names = ("max_steps", "max_minutes", "recipe", *(["seed"] if options.repeats is None else []))
    asked = {name: str(getattr(options, name)) for name in names}
    begun = []
    for run in runs_in(folder, options):
        with contextlib.suppress(InputError):  # a damaged checkpoint
            earlier = request_of(run)
            if earlier and all(earlier.get(name, value) == value for name, value in asked.items()):
                begun.append(run)
    return bool(begun) and sum((run / MANIFEST).is_file() for run in begun) < (options.repeats or 1)


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


def find_place(options: argparse.Namespace, ranks: Ranks) -> Place:
    """Find the datasets, and settle which network learns from them and where it goes.

    Raises:
        InputError: if options, datasets or what lies in the folder do not go together.
    """
    from ..classification.findings import SUFFIX
    from ..dataset import load_dataset
    from ..training.prepare import TrainingDataset
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
