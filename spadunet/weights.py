"""Weights that a user brings from elsewhere: PyTorch and safetensors files, without running anything in them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .tensors import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

WRAPPERS = ("module", "model", "state_dict")
"""Under one of these keys training programs (DeepSpeed, timm, Lightning) keep the weights, beside other things."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU.

    Args:
        path: a `.safetensors` file, or one written by `torch.save`: a state dict, bare or under `module`, `model` or
            `state_dict`.

    Raises:
        InputError: if the file is missing, cannot be read without running code in it, or holds no tensors by name.
    """
    if not path.is_file():
        raise InputError(f"{path}: weights not found; give the path of a .pt, .pth or .safetensors file")
    if path.suffix == ".zip":
        raise InputError(
            f"{path}: a model in one file; unpack it with spadunet_import_model {path} -o MODEL, and give the folder "
            "MODEL"
        )
    content = read_tensors(path) if path.suffix == ".safetensors" else read_pytorch(path)
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = named_tensors(content)
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name; give a state dict, as published with a network")
    return tensors


def named_tensors(content: object) -> dict[str, Tensor]:
    """The tensors of a dict; nothing of anything else."""
    import torch

    items = content.items() if isinstance(content, dict) else ()
    return {str(name): value for name, value in items if isinstance(value, torch.Tensor)}


def holds_pickle(path: Path) -> bool:
    """False of a zip file, as `.npz` is one, without what `torch.save` puts into each; else True."""
    if not zipfile.is_zipfile(path):
        return True
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.rpartition("/")[2] == "data.pkl" for name in file.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):  # torch tells what is wrong with it
        return True


def read_pytorch(path: Path) -> object:
    """What `torch.save` wrote. Of Python's own objects only command-line options (a Namespace) are let in.

    Raises:
        InputError: if it holds other objects, or is damaged.
    """
    from argparse import Namespace

    import torch

    if not holds_pickle(path):
        raise InputError(f"{path}: holds no weights of PyTorch; give a .pt, .pth or .safetensors file")
    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, none of which says more than its text
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as weights ({reason}); copy it again, or save its state dict as safetensors"
        ) from error
