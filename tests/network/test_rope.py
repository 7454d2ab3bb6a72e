"""Additive 3D rotary positions: what appendix A of the paper says of them, and that they are EVA-02's in one slice."""

from __future__ import annotations

import torch
from torch import Tensor

from spadunet.network.rope import make_rotation, rotate, rotation_angles

HEAD_DIM = 64
CPU = torch.device("cpu")


def eva02_angles(height: int, width: int, head_dim: int = HEAD_DIM) -> Tensor:
    """EVA-02's 2D angles with as many tokens as it was trained with: rows turn the first half, columns the second."""
    half = head_dim // 2
    frequencies = 1.0 / (10000 ** (torch.arange(0, half, 2)[: half // 2].float() / half))
    rows, columns = (torch.arange(size).float()[:, None] * frequencies for size in (height, width))
    rows = rows[:, None].expand(-1, width, -1)
    columns = columns[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def logits(q: Tensor, k: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Inner products of all turned queries and keys (L, E), in double precision."""
    rotation = make_rotation(grid, q.shape[-1], torch.double, CPU)[1:]
    q, k = (rotate(x[None, :, None], rotation)[0, :, 0] for x in (q, k))
    return q @ k.T


def test_one_slice_has_exactly_the_angles_of_eva02():
    assert torch.equal(rotation_angles((1, 16, 16), HEAD_DIM, torch.float32), eva02_angles(16, 16))
