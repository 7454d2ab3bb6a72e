"""Which device and which arithmetic."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU if there is one; else the device of that name (cpu, cuda, cuda:1, mps).

    Raises:
        ValueError: if the device is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name} is not available; use auto, cpu, cuda or mps") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it natively (faster there, slower elsewhere), else float32."""
    if name != "auto":
        return {"bf16": torch.bfloat16, "float32": torch.float32}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has_bf16 = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else torch.float32
