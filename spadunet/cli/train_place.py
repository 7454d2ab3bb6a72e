"""Which network a training run has, and which folder it goes to."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..training.recipes import PRESETS
from .control_options import run_name
from .earlier_run import request_of

if TYPE_CHECKING:
    import argparse

    import torch

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
