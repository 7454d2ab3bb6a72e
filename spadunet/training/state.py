"""The state of an unfinished run, as one safetensors file: whole or absent, no pickle.

Tensors are named network.<name>.<parameter> and optimiser.<name>.<index>.<moment>.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..model import STATE_FOLDER
from ..tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINT_FILE = "checkpoint.safetensors"


def checkpoint_path(folder: Path) -> Path:
    """Where the checkpoint of a model folder lies."""
    return folder / STATE_FOLDER / CHECKPOINT_FILE


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come. Batches and schedule follow from these alone."""

    step: int
    seconds: float
    is_finished: bool
    run: dict[str, str]
    """What the run was asked for; a run with other wishes cannot go on from here."""
    num_skipped: int = 0
    """Steps of pre-training that nothing was learned from, since a measure was not finite."""
    skipped_in_a_row: int = 0
    """Of these the last ones, up to `step`."""
    unreadable: tuple[str, ...] = ()
    """Keys of a corpus's images that could not be read in any process, sorted."""
    owes_validation: bool = False
    """What follows a step was still to be done after the last one."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """All that changes as a run learns."""

    networks: Mapping[str, nn.Module]
    optimisers: Mapping[str, torch.optim.Optimizer]
    numbers: dict[str, float]
    """What else is remembered from step to step."""


def save_state(path: Path, learned: Learned, progress: Progress) -> None:
    """Write weights, optimiser state, numbers and progress."""
    tensors = {
        f"network.{name}.{key}": value
        for name, network in learned.networks.items()
        for key, value in network.state_dict().items()
    }
    tensors |= {
        f"optimiser.{name}.{index}.{key}": value
        for name, optimiser in learned.optimisers.items()
        for index, entry in optimiser.state_dict()["state"].items()
        for key, value in entry.items()
    }
    metadata = {
        "step": str(progress.step),
        "seconds": repr(progress.seconds),
        "is_finished": str(int(progress.is_finished)),
        "run": json.dumps(progress.run),
        "num_skipped": str(progress.num_skipped),
        "skipped_in_a_row": str(progress.skipped_in_a_row),
        "unreadable": json.dumps(progress.unreadable),
        "owes_validation": str(int(progress.owes_validation)),
        "numbers": json.dumps(learned.numbers),
    }
    write_tensors(path, tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """The texts of a checkpoint.

    Raises:
        InputError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # its header needs no torch
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> InputError:
    """The one line about a checkpoint that cannot be read."""
    return InputError(f"{path}: damaged checkpoint ({error}); start anew with --restart")


def read_progress(path: Path) -> Progress:
    """Read how far a run has come.

    Raises:
        InputError: if the file is damaged.
    """
    metadata = read_metadata(path)
    try:
        run = json.loads(metadata["run"])
        if not isinstance(run, dict) or not all(isinstance(value, str) for value in run.values()):
            raise ValueError(f"what the run was asked for is not readable: {metadata['run']:.40}")
        return Progress(
            step=int(metadata["step"]),
            seconds=float(metadata["seconds"]),
            is_finished=metadata["is_finished"] == "1",
            run=run,
            num_skipped=int(metadata.get("num_skipped", 0)),
            skipped_in_a_row=int(metadata.get("skipped_in_a_row", 0)),
            unreadable=tuple(json.loads(metadata.get("unreadable", "[]"))),
            owes_validation=metadata.get("owes_validation") == "1",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def load_state(path: Path, learned: Learned) -> None:
    """Put weights, optimisers and numbers back exactly as they were saved.

    A number that the checkpoint lacks keeps its value: fine-tuning had none in 0.1.0, whose only optimiser had no name.

    Raises:
        InputError: if they are those of another network.
    """
    tensors = read_tensors(path)
    other = InputError(f"{path}: was written for another network; start anew with --restart")
    if {key.split(".")[1] for key in tensors if key.startswith("network.")} != set(learned.networks):
        raise other
    for name, network in learned.networks.items():
        try:
            network.load_state_dict(below(tensors, f"network.{name}."))
        except RuntimeError as error:
            raise other from error
    for name, optimiser in learned.optimisers.items():
        saved = below(tensors, f"optimiser.{name}.")
        if not saved and len(learned.optimisers) == 1:
            saved = {key: value for key, value in below(tensors, "optimiser.").items() if key[0].isdigit()}
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in saved.items():
            index, moment = key.split(".", 1)
            entries.setdefault(int(index), {})[moment] = value
        optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
    numbers = json.loads(read_metadata(path).get("numbers", "{}"))
    if not numbers.keys() <= learned.numbers.keys():
        raise other
    learned.numbers.update(numbers)


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
