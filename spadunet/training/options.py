"""What every kind of run can be told."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How to run. A run ends at max_steps or max_minutes, whichever comes first."""

    max_steps: int | None
    max_minutes: float | None
    seed: int
    device: torch.device
    precision: torch.dtype
    num_workers: int
    checkpoint_minutes: float

    def share_done(self, step: int, seconds: float) -> float:
        """How much of the run is behind us, 0 … 1, by steps or by time, whichever is further."""
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_time = seconds / (60 * self.max_minutes) if self.max_minutes else 0.0
        return max(by_steps, by_time)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Arithmetic of this precision: bfloat16 where it is safe, or float32 as the weights are."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16)
