"""A SPAD-ViT that starts from a published EVA-02 file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..errors import InputError
from ..network.eva02 import from_eva02
from ..network.vit import SpadViT
from ..weights import read_weights


def read_mask_token(path: Path) -> dict[str, Tensor]:
    """The token of masked patches, (C,), as `mask_token`; nothing where the file has none.

    Raises:
        InputError: if the file cannot be read.
    """
    state = read_weights(path)
    return {"mask_token": state["mask_token"].float().flatten()} if "mask_token" in state else {}


def read_eva02(path: Path, vit: SpadViT) -> dict[str, Tensor]:
    """All tensors of a SPAD-ViT, by its names, from the file of an EVA-02 of the same size.

    Raises:
        InputError: if the file cannot be read, or is no EVA-02 that fits.
    """
    try:
        return from_eva02(read_weights(path), vit)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
