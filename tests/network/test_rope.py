"""Additive 3D rotary positions: what appendix A of the paper says of them, and that they are EVA-02's in one slice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from spadunet.network.rope import (
    DEPTH_BASE,
    depth_frequencies,
    make_rotation,
    plane_frequencies,
    rotate,
    rotation_angles,
    rotation_of,
)

HEAD_DIM = 64
CPU = torch.device("cpu")
PAPER_GRID = (8, 1, 16)  # appendix A.3: one row, since rows and columns are alike


def eva02_angles(height: int, width: int) -> Tensor:
    """EVA-02's 2D angles at the grid it was trained with: rows turn the first half of a head, columns the second."""
    half = HEAD_DIM // 2
    frequencies = 1.0 / (10000 ** (torch.arange(0, half, 2)[: half // 2].float() / half))
    rows, columns = (torch.arange(size).float()[:, None] * frequencies for size in (height, width))
    rows = rows[:, None].expand(-1, width, -1)
    columns = columns[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def eva02_rotate(x: Tensor, angles: Tensor) -> Tensor:
    """EVA-02's way: x · cos + rotate_half(x) · sin with neighbours as pairs; (L, 64)."""
    cos, sin = angles.cos().repeat_interleave(2, dim=-1), angles.sin().repeat_interleave(2, dim=-1)
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cos + turned * sin


def logits(q: Tensor, k: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Inner products of all turned queries and keys (L, E), in double precision."""
    rotation = make_rotation(grid, q.shape[-1], torch.double, CPU)[1:]
    q, k = (rotate(x[None, :, None], rotation)[0, :, 0] for x in (q, k))
    return q @ k.T


def smallest_intervals(angles: Tensor) -> Tensor:
    """For each pair of channels the least distance on the circle between the angles of two tokens: (L, P) to (P,)."""
    ordered = angles.remainder(2 * math.pi).sort(dim=0).values
    around = ordered[:1] + 2 * math.pi
    return torch.cat([ordered, around]).diff(dim=0).amin(dim=0)


# --- R1: the 2D embedding of EVA-02


def test_one_slice_has_exactly_the_angles_of_eva02():
    assert torch.equal(rotation_angles((1, 16, 12), HEAD_DIM, torch.float32), eva02_angles(16, 12))


def test_one_slice_is_turned_as_eva02_turns_it():
    torch.manual_seed(0)
    x = torch.randn(2, 16 * 12, 3, HEAD_DIM)
    ours = rotate(x, make_rotation((1, 16, 12), HEAD_DIM, torch.float32, CPU)[1:])
    assert torch.allclose(ours, eva02_rotate(x, eva02_angles(16, 12)[:, None]), atol=1e-6)


def test_tokens_of_any_one_slice_attend_to_each_other_as_in_2d():
    torch.manual_seed(0)
    q, k = torch.randn(2, 12, HEAD_DIM, dtype=torch.double)
    in_2d = logits(q, k, (1, 3, 4))
    in_3d = logits(q.repeat(5, 1), k.repeat(5, 1), (5, 3, 4)).view(5, 12, 5, 12)
    for z in range(5):
        assert torch.allclose(in_3d[z, :, z], in_2d, atol=1e-9, rtol=0)
    assert not torch.allclose(in_3d[0, :, 1], in_2d, atol=1e-2)  # another slice is another place


# --- R2: relativity


def test_a_product_depends_on_the_difference_of_positions_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, HEAD_DIM, dtype=torch.double)
    grid = (4, 5, 6)
    products = logits(q.expand(120, -1), k.expand(120, -1), grid)
    positions = torch.cartesian_prod(*(torch.arange(size) for size in grid))
    differences = positions[:, None] - positions[None]
    found: dict[tuple[int, ...], float] = {}
    for difference, product in zip(differences.flatten(0, 1).tolist(), products.flatten().tolist(), strict=True):
        assert abs(found.setdefault(tuple(difference), product) - product) < 1e-9
    assert len(found) == 7 * 9 * 11


def test_a_rotation_keeps_lengths_and_leaves_the_cls_token_as_it_is():
    torch.manual_seed(0)
    x = torch.randn(2, 1 + 24, 3, 16)
    turned = rotate(x, make_rotation((2, 3, 4), 16, torch.float32, CPU))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
    assert torch.equal(turned[:, :2], x[:, :2])  # the cls token, and the token at (0, 0, 0)
    assert not torch.allclose(turned[:, 2:], x[:, 2:], atol=0.1)


# --- R3: the paper's figures


def test_mean_ratio_of_smallest_intervals_is_the_papers():
    """26.30 (appendix A.3): 16 positions in one slice against 8 slices of them, mean over i = 0 … 15."""
    columns = slice(HEAD_DIM // 4, None)
    in_2d = smallest_intervals(rotation_angles((1, 1, 16), HEAD_DIM, torch.double)[:, columns])
    in_3d = smallest_intervals(rotation_angles(PAPER_GRID, HEAD_DIM, torch.double)[:, columns])
    assert len(in_3d) == 16
    assert (in_2d / in_3d).mean().item() == pytest.approx(26.30, abs=0.005)


def test_depth_turns_faster_than_the_plane_by_exponents_that_interleave():
    plane, depth = (f(HEAD_DIM, torch.double) for f in (plane_frequencies, depth_frequencies))
    assert plane.tolist() == pytest.approx([10000 ** (-2 * i / 32) for i in range(16)])
    assert depth.tolist() == pytest.approx([2333 ** (-(2 * i + 1) / 32) for i in range(16)])
    assert DEPTH_BASE == 2333


@pytest.mark.parametrize("half", [slice(0, HEAD_DIM // 4), slice(HEAD_DIM // 4, None)], ids=["rows", "columns"])
def test_every_position_can_be_told_from_the_angle_of_any_one_pair(half):
    """Theorem 1: 8×16 positions have 128 distinct angles modulo 2π for each i, also in single precision."""
    grid = (8, 16, 1) if half.start == 0 else PAPER_GRID
    for dtype, least in ((torch.double, 1e-6), (torch.float32, 1e-7)):
        angles = rotation_angles(grid, HEAD_DIM, dtype)[:, half].remainder(2 * math.pi)
        assert angles.shape == (128, 16)
        assert all(len(set(column.tolist())) == 128 for column in angles.T)
        assert smallest_intervals(angles).min() > least


def test_even_exponents_along_depth_would_let_positions_coincide():
    """Why the exponents are odd: with 2i, both frequencies are 1 at i = 0."""
    positions = torch.arange(8.0)[:, None] + torch.arange(16.0)
    assert len(set(positions.flatten().tolist())) == 23


# --- Precision and reuse


def test_a_rotation_of_bfloat16_queries_is_computed_in_float32_and_given_back_in_bfloat16():
    torch.manual_seed(0)
    rotation = rotation_of((2, 3, 4), 16, torch.bfloat16, CPU)
    assert rotation.dtype == torch.float32
    x = torch.randn(1, 25, 2, 16).bfloat16()
    turned = rotate(x, rotation)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), rotation).bfloat16())


def test_a_rotation_made_first_in_prediction_serves_training():
    with torch.inference_mode():
        rotation = rotation_of((3, 1, 2), 8, torch.float32, CPU)
    assert rotation_of((3, 1, 2), 8, torch.float32, CPU) is rotation
    x = torch.randn(1, 7, 2, 8, requires_grad=True)
    rotate(x, rotation).square().sum().backward()
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)  # lengths stay, so the gradient is that of x squared
