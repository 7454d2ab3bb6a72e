"""GroupNorm: what PyTorch computes, whatever the layout."""

from __future__ import annotations

import logging

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from spadunet.network.norm import ChannelsLastGroupNorm, GroupNorm, is_channels_last

SIZES = [(1, 1, 1), (1, 1, 2), (3, 1, 5), (2, 4, 6), (1, 7, 7), (4, 8, 8)]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def make_norm(num_groups: int, num_channels: int, dtype: torch.dtype = torch.float64) -> GroupNorm:
    """With random scale and shift."""
    norm = GroupNorm(num_groups, num_channels).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -0.5, 0.5)
    return norm


def values_and_gradients(norm: nn.GroupNorm, x: Tensor) -> list[Tensor]:
    """Output, and gradients of input, scale and shift for a weighted sum of the output."""
    x = x.detach().requires_grad_()
    y = nn.GroupNorm.forward(norm, x) if type(norm) is nn.GroupNorm else norm(x)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return [y, *torch.autograd.grad((y * weights).sum(), [x, norm.weight, norm.bias])]


def as_torch(norm: GroupNorm) -> nn.GroupNorm:
    """PyTorch's own with the same parameters."""
    own = nn.GroupNorm(norm.num_groups, norm.num_channels).to(norm.weight.dtype)
    own.load_state_dict(norm.state_dict())
    return own


def test_two_voxels_of_one_channel_become_minus_one_and_one():
    norm = GroupNorm(1, 1, eps=0)
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 1, 2)
    assert norm(x).flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_values_and_gradients_are_pytorchs_in_both_layouts(size, layout):
    norm = make_norm(4, 8)
    x = (torch.randn(2, 8, *size, dtype=torch.float64) + 3).contiguous(memory_format=layout)
    for ours, theirs in zip(values_and_gradients(norm, x), values_and_gradients(as_torch(norm), x), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12, rtol=1e-10)


def test_channels_last_takes_the_fast_path_and_keeps_its_layout():
    x = torch.randn(2, 8, 2, 4, 6).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    assert is_channels_last(x)
    assert not is_channels_last(x.contiguous())
    y = make_norm(4, 8, torch.float32)(x)
    assert type(y.grad_fn).__name__ == f"{ChannelsLastGroupNorm.__name__}Backward"
    assert is_channels_last(y)
    y.square().sum().backward()
    assert x.grad is not None
    assert is_channels_last(x.grad)


def test_slices_with_the_stride_that_unfolding_gives_them():
    norm, reference = make_norm(2, 4), nn.GroupNorm(2, 4, dtype=torch.float64)
    reference.load_state_dict(norm.state_dict())
    plain = torch.randn(2, 4, 1, 3, 5, dtype=torch.float64)
    odd = plain.contiguous(memory_format=torch.channels_last_3d).as_strided(plain.shape, (60, 1, 4, 20, 4))
    assert is_channels_last(odd)
    for ours, theirs in zip(values_and_gradients(norm, odd), values_and_gradients(reference, plain), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_channels_last_without_gradients_gives_the_same_values():
    norm = make_norm(4, 8)
    x = torch.randn(1, 8, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        assert torch.equal(norm(x), as_torch(norm)(x))


@pytest.mark.parametrize("size", [(1, 1, 2), (2, 1, 3)])
def test_gradients_are_those_of_finite_differences(size):
    norm = make_norm(2, 4)
    x = torch.randn(2, 4, *size, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    arguments = (x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    assert torch.autograd.gradcheck(ChannelsLastGroupNorm.apply, arguments)


def test_bfloat16_is_close_to_double_precision():
    norm = make_norm(4, 8, torch.bfloat16)
    x = torch.randn(2, 8, 4, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    precise = values_and_gradients(make_double(norm), x.double())
    for ours, exact in zip(values_and_gradients(norm, x), precise, strict=True):
        assert ours.dtype == torch.bfloat16
        # bfloat16 holds 8 bits: a relative error of 2^-8 by rounding, a few of which add up.
        assert (ours.double() - exact).abs().max() <= 2**-5 * exact.abs().max()


def make_double(norm: GroupNorm) -> GroupNorm:
    """The same parameters in double precision."""
    double = GroupNorm(norm.num_groups, norm.num_channels).double()
    double.load_state_dict(norm.state_dict())
    return double


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # from within the compiler
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_compiles_to_one_graph(layout, monkeypatch: pytest.MonkeyPatch):
    # pytest 9 captures loggers that do not propagate; the compiler's trace would double the time.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", True)
    torch._dynamo.reset()
    norm = make_norm(2, 4)
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    x = torch.randn(1, 4, 2, 3, 4, dtype=torch.float64).contiguous(memory_format=layout)
    weights = torch.randn_like(x)
    results = []
    for forward in (norm, compiled):
        leaf = x.detach().requires_grad_()
        y = forward(leaf)
        results.append([y, *torch.autograd.grad((y * weights).sum(), [leaf, norm.weight, norm.bias])])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12, rtol=1e-10)
    torch._dynamo.reset()
