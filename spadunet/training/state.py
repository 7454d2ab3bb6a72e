"""The state of an unfinished run, as one safetensors file: whole or absent, no pickle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from ..model import STATE_FOLDER, read_tensors, write_tensors

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


def save_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Write weights, optimiser state and progress."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for index, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in entry.items()}
    metadata = {
        "step": str(progress.step),
        "seconds": repr(progress.seconds),
        "is_finished": str(int(progress.is_finished)),
        "run": json.dumps(progress.run),
    }
    write_tensors(path, tensors, metadata)


def read_progress(path: Path) -> Progress:
    """Read how far a run has come.

    Raises:
        InputError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        return Progress(
            step=int(metadata["step"]),
            seconds=float(metadata["seconds"]),
            is_finished=metadata["is_finished"] == "1",
            run=json.loads(metadata["run"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); start anew with --restart") from error


def load_state(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put weights and optimiser back exactly as they were saved.

    Raises:
        InputError: if they are those of another network.
    """
    tensors = read_tensors(path)
    try:
        network.load_state_dict(
            {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        )
    except RuntimeError as error:
        raise InputError(f"{path}: was written for another network; start anew with --restart") from error
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            entries.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
