"""Named tensors in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError, OutputError
from .files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all, even where the power is cut.

    Raises:
        OutputError: if the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path, is_durable=True) as partial:
        partial.touch()
        mode = partial.stat().st_mode  # the user's usual one; save_file would keep others from reading
        try:
            save_file(contiguous, partial, metadata)
            partial.chmod(mode)
        except SafetensorError as error:
            raise OutputError(
                f"{path}: cannot be written ({error}); is the disk full or the folder read-only?"
            ) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        InputError: if it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); copy it again") from error
