"""SPAD convolutions. `down_k2s2` means kernel 2, stride 2; `pending` is the number of depth halvings left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.network.spad_conv import (
    SpadConv,
    SpadConvTranspose,
    StaticConv,
    convolve,
    depth_taps_and_stride,
    is_power_of_two,
    num_pending,
    pad_to_multiple,
    pool_depth_taps,
    to_static,
)

DOWN_KINDS = [(2, 2), (4, 4), (3, 1), (3, 2)]
UP_KINDS = [(2, 2), (4, 4), (3, 2)]
SIZES = [(1, 1, 1), (1, 5, 7), (3, 1, 2), (5, 7, 3), (2, 4, 9)]


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def down(kernel: int, stride: int, *, level: int = 0, bias: bool = True) -> SpadConv:
    return SpadConv(2, 3, kernel=kernel, stride=stride, level=level, bias=bias)


def up(kernel: int, stride: int, *, level: int = 0) -> SpadConvTranspose:
    return SpadConvTranspose(2, 3, kernel=kernel, stride=stride, level=level)


def all_layers(level: int = 0) -> list[SpadConv | SpadConvTranspose]:
    return [down(k, s, level=level) for k, s in DOWN_KINDS] + [up(k, s, level=level) for k, s in UP_KINDS]


def repeat_slices(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(times, dim=2)


# --- The rule, by hand


def test_pending_halvings_are_da_minus_level_and_never_negative():
    assert [num_pending(3, level) for level in range(6)] == [3, 2, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"),
    [
        (2, 2, [(2, 2), (1, 1), (1, 1), (1, 1)]),
        (4, 4, [(4, 4), (2, 2), (1, 1), (1, 1)]),
        (16, 16, [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]),
        (3, 1, [(3, 1), (1, 1), (1, 1), (1, 1)]),
        (3, 2, [(3, 2), (1, 1), (1, 1), (1, 1)]),
        (1, 1, [(1, 1), (1, 1)]),
    ],
)
def test_depth_kernel_and_stride_shrink_with_each_pending_halving(kernel, stride, expected):
    assert [depth_taps_and_stride(kernel, stride, p) for p in range(len(expected))] == expected


def test_depth_taps_are_summed_in_contiguous_groups():
    weight = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 1, 4, 1, 1)
    assert pool_depth_taps(weight, 4).flatten().tolist() == [1, 2, 4, 8]
    assert pool_depth_taps(weight, 2).flatten().tolist() == [3, 12]
    assert pool_depth_taps(weight, 1).flatten().tolist() == [15]


def test_powers_of_two_are_told_from_other_numbers():
    assert [n for n in range(-4, 20) if is_power_of_two(n)] == [1, 2, 4, 8, 16]


def test_padding_to_a_multiple_adds_zeros_at_the_far_end_only_where_needed():
    x = torch.ones(1, 1, 1, 2, 3)
    assert pad_to_multiple(x, (1, 2, 3)) is x
    assert pad_to_multiple(x, (2, 2, 2)).tolist() == [[[[[1, 1, 1, 0]] * 2, [[0, 0, 0, 0]] * 2]]]


@torch.no_grad()
def test_kernel_of_ones_sums_its_window_at_every_pending():
    layer = SpadConv(1, 1, kernel=2, stride=2, level=0)
    layer.weight.fill_(1)
    layer.bias.fill_(10)
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert layer(x, 0).flatten().tolist() == [0 + 1 + 2 + 3 + 4 + 5 + 6 + 7 + 10]
    assert layer(x, 1).flatten().tolist() == [2 * (0 + 1 + 2 + 3) + 10, 2 * (4 + 5 + 6 + 7) + 10]


@torch.no_grad()
def test_transposed_kernel_with_taps_one_and_three_gives_their_mean_when_pending():
    layer = SpadConvTranspose(1, 1, kernel=2, stride=2, level=0)
    layer.weight[:, :, 0] = 1
    layer.weight[:, :, 1] = 3
    layer.bias.fill_(10)
    x = torch.tensor([5.0, 7.0]).reshape(1, 1, 2, 1, 1)
    assert layer(x, 0)[0, 0, :, 0, 0].tolist() == [15, 25, 17, 31]
    assert layer(x, 1)[0, 0, :, 0, 0].tolist() == [20, 24]


# --- A1: dense where nothing is pending


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize(("kernel", "stride"), DOWN_KINDS)
def test_convolution_without_pending_halvings_is_conv3d_to_the_last_bit(kernel, stride, level):
    layer = down(kernel, stride, level=level)
    plain = nn.Conv3d(2, 3, kernel, stride, padding=1 if kernel == 3 else 0)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2, 8, 4, 12)
    assert torch.equal(layer(x, level), plain(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_gradients_in_bfloat16_are_those_of_float32_at_any_depth(depth, stride):
    """On processors with AVX-512 and without AMX, oneDNN's weight gradient of two slices is not written whole."""
    x = torch.randn(2, 16, depth, 8, 8).bfloat16().float().requires_grad_()
    weight = torch.randn(16, 16, 3, 3, 3).bfloat16().float().requires_grad_()
    expected = torch.autograd.grad(convolve(x, weight, None, stride, 1).sum(), [x, weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolve(x, weight, None, stride, 1)
    filth = [torch.full((16 * 16 * 27 * times,), torch.nan) for times in (1, 1, 2, 4)]
    del filth  # what is then not written is seen
    for one, other in zip(torch.autograd.grad(y.sum(), [x, weight]), expected, strict=True):
        assert torch.allclose(one, other, atol=0.02 * float(other.abs().max()), rtol=0)


@pytest.mark.parametrize("level", [0, 3])
@pytest.mark.parametrize(("kernel", "stride"), UP_KINDS)
def test_transposed_convolution_without_pending_halvings_is_conv_transpose3d_to_the_last_bit(kernel, stride, level):
    layer = up(kernel, stride, level=level)
    padding = 1 if kernel == 3 else 0
    plain = nn.ConvTranspose3d(2, 3, kernel, stride, padding=padding, output_padding=padding)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 2, 3, 4, 5)
    assert torch.equal(layer(x, level), plain(x))


@pytest.mark.parametrize("kernel", [8, 16])
@pytest.mark.parametrize("da", range(6))
def test_patch_embedding_is_conv3d_with_the_adapted_kernel_in_values_and_gradients(kernel, da):
    """Large kernels run as a matrix product: equal but for rounding."""
    layer = down(kernel, kernel).double()
    x = torch.randn(2, 2, 2 * max(kernel >> da, 1) - (da < 3), 3 * kernel - 1, kernel, dtype=torch.double)
    weight, depth_stride = layer.adapted_kernel(da)
    padded = pad_to_multiple(x, (depth_stride, kernel, kernel))
    expected = functional.conv3d(padded, weight, layer.bias, (depth_stride, kernel, kernel))
    output = layer(x, da)
    assert output.shape == expected.shape == (2, 3, 2, 3, 1)
    assert torch.allclose(output, expected)
    direction = torch.randn_like(output)
    for a, b in zip(*(torch.autograd.grad(y, layer.parameters(), direction) for y in (output, expected)), strict=True):
        assert torch.allclose(a, b)


# --- A2: one slice is a 2D image


@pytest.mark.parametrize(("kernel", "stride"), DOWN_KINDS)
def test_one_slice_at_large_da_is_the_2d_convolution_with_summed_depth_taps(kernel, stride):
    layer = down(kernel, stride, level=1)
    x = torch.randn(2, 2, 1, 8, 12)
    padding = 1 if kernel == 3 else 0
    flat = functional.conv2d(x[:, :, 0], layer.weight.sum(2), layer.bias, stride, padding)
    assert torch.allclose(layer(x, 9)[:, :, 0], flat, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), UP_KINDS)
def test_one_slice_at_large_da_is_the_2d_transposed_convolution_with_scaled_depth_sum(kernel, stride):
    layer = up(kernel, stride, level=1)
    x = torch.randn(2, 2, 1, 5, 3)
    padding = 1 if kernel == 3 else 0
    flat = functional.conv_transpose2d(
        x[:, :, 0], layer.weight.sum(2) / stride, layer.bias, stride, padding, output_padding=padding
    )
    assert torch.allclose(layer(x, 9)[:, :, 0], flat, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("kernel", "stride"), DOWN_KINDS)
def test_inflated_2d_kernel_gives_the_2d_convolution_back(kernel, stride):
    flat = nn.Conv2d(2, 3, kernel, stride, padding=1 if kernel == 3 else 0)
    layer = down(kernel, stride)
    layer.weight.copy_((flat.weight / kernel).unsqueeze(2).expand_as(layer.weight))
    layer.bias.copy_(flat.bias)
    x = torch.randn(2, 2, 1, 8, 12)
    assert torch.allclose(layer(x, 6)[:, :, 0], flat(x[:, :, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("da", [2, 3, 9])
def test_k3s1_with_pending_depth_keeps_slices_independent(da):
    layer = down(3, 1, level=1)
    x = torch.randn(1, 2, 4, 5, 6, requires_grad=True)
    y = layer(x, da)
    alone = torch.cat([layer(one, da) for one in x.split(1, dim=2)], dim=2)
    assert torch.allclose(y, alone, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(y[:, :, 2].sum(), x)
    assert gradient.abs().sum((0, 1, 3, 4)).gt(0).tolist() == [False, False, True, False]


def test_k3s1_mixes_neighbouring_slices_as_soon_as_nothing_is_pending():
    layer = down(3, 1, level=1)
    x = torch.randn(1, 2, 5, 5, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x, 1)[:, :, 2].sum(), x)
    assert gradient.abs().sum((0, 1, 3, 4)).gt(0).tolist() == [False, True, True, True, False]


# --- A3: an adapted layer sees what the dense one sees on slices repeated to isotropic spacing


@pytest.mark.parametrize("pending", range(5))
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4)])
def test_dense_kernel_on_repeated_slices_equals_adapted_kernel_on_single_ones(kernel, stride, pending):
    layer = down(kernel, stride)
    reduced_stride = max(stride >> pending, 1)
    x = torch.randn(1, 2, 3 * reduced_stride, 8, 8)
    dense = layer(repeat_slices(x, stride // reduced_stride), 0)
    adapted = layer(x, pending)
    assert dense.shape == adapted.shape == (1, 3, 3, 8 // stride, 8 // stride)
    assert torch.allclose(dense, adapted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2)])
def test_dense_kernel_3_equals_adapted_one_in_the_interior_of_slices_repeated_four_times(kernel, stride):
    layer = down(kernel, stride)
    x = torch.randn(1, 2, 3, 6, 6)
    dense = layer(repeat_slices(x, 4), 0)
    adapted = layer(x, 2)
    # Repeats 1 and 2 of each four lie inside their slice; with stride 2 the kernel is centred on repeats 0 and 2.
    interior = dense[:, :, 2::4] if stride == 1 else dense[:, :, 1::2]
    assert torch.allclose(interior, adapted, atol=1e-5, rtol=0)
    assert not torch.allclose(dense[:, :, :1], adapted[:, :, :1], atol=1e-2)


@pytest.mark.parametrize("pending", range(5))
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4)])
def test_adapted_transposed_kernel_gives_the_mean_of_the_slices_that_the_dense_one_gives(kernel, stride, pending):
    layer = up(kernel, stride)
    x = torch.randn(1, 2, 3, 2, 2)
    reduced_stride = max(stride >> pending, 1)
    dense = layer(x, 0).unflatten(2, (3 * reduced_stride, stride // reduced_stride)).mean(3)
    assert torch.allclose(layer(x, pending), dense, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pending", range(1, 5))
def test_adapted_transposed_k3s2_keeps_the_mean_of_the_dense_one_on_repeated_slices(pending):
    layer = up(3, 2)
    x = torch.randn(1, 2, 1, 2, 2)
    dense = layer(repeat_slices(x, 6), 0)  # (1, 3, 12, 4, 4)
    even_and_odd = dense[:, :, 4:6].mean(2, keepdim=True)
    assert torch.allclose(layer(x, pending), even_and_odd, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pending", range(1, 5))
def test_adapted_transposed_k3s2_is_half_the_sum_of_the_taps(pending):
    layer = up(3, 2)
    weight, depth_stride = layer.adapted_kernel(pending)
    assert depth_stride == 1
    assert torch.equal(weight, layer.weight.sum(2, keepdim=True) / 2)


# --- A5: gradients


@pytest.mark.parametrize(
    ("make", "kernel", "stride", "da", "num_groups"),
    [
        (down, 2, 2, 1, 1),
        (down, 4, 4, 1, 2),
        (down, 4, 4, 2, 1),
        (down, 3, 1, 1, 1),
        (down, 3, 2, 3, 1),
        (up, 2, 2, 1, 1),
        (up, 4, 4, 1, 2),
        (up, 4, 4, 4, 1),
        (up, 3, 2, 1, 1),
    ],
)
def test_gradient_is_equal_over_pooled_taps_and_differs_between_groups(make, kernel, stride, da, num_groups):
    layer = make(kernel, stride)
    layer(torch.randn(1, 2, 4, 8, 8), da).square().sum().backward()
    groups = layer.weight.grad.unflatten(2, (num_groups, -1))  # (O, I, groups, taps, k, k)
    assert groups.abs().min() > 0
    assert torch.equal(groups, groups[:, :, :, :1].expand_as(groups))
    if num_groups == 2:
        assert not torch.allclose(groups[:, :, 0], groups[:, :, 1], rtol=1e-2)


@pytest.mark.parametrize("pending", range(3))
@pytest.mark.parametrize(
    ("make", "kernel", "stride"),
    [(SpadConv, *kind) for kind in DOWN_KINDS] + [(SpadConvTranspose, *kind) for kind in UP_KINDS],
)
def test_analytic_gradients_agree_with_finite_differences(make, kernel, stride, pending):
    layer = make(1, 1, kernel=kernel, stride=stride, level=1).double()
    x = torch.randn(1, 1, 3, 2, 3, dtype=torch.double, requires_grad=True)

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, 1 + pending))

    assert torch.autograd.gradcheck(apply, (x, layer.weight, layer.bias), fast_mode=True)


# --- A6 and sizes


@pytest.mark.parametrize("da", [2, 3, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_transposed_convolution_at_da_above_its_level_keeps_the_number_of_slices(kernel, stride, da):
    y = up(kernel, stride, level=1)(torch.randn(1, 2, 5, 2, 3), da)
    assert y.shape == (1, 3, 5, 4, 6)


@pytest.mark.parametrize(("da", "depth"), [(0, 20), (1, 20), (2, 10), (3, 5), (4, 5)])
def test_transposed_k4s4_grows_in_depth_by_what_is_not_pending(da, depth):
    assert up(4, 4, level=1)(torch.randn(1, 2, 5, 2, 3), da).shape == (1, 3, depth, 8, 12)


@pytest.mark.parametrize("da", [0, 1, 2, 6])
@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_accepted_and_strides_round_up(size, da):
    x = torch.randn(2, 2, *size)
    for kernel, stride in DOWN_KINDS:
        depth_stride = depth_taps_and_stride(kernel, stride, da)[1]
        expected = [-(-n // s) for n, s in zip(size, (depth_stride, stride, stride), strict=True)]
        assert list(down(kernel, stride)(x, da).shape) == [2, 3, *expected]
    for kernel, stride in UP_KINDS:
        depth_stride = depth_taps_and_stride(kernel, stride, da)[1]
        expected = [n * s for n, s in zip(size, (depth_stride, stride, stride), strict=True)]
        assert list(up(kernel, stride)(x, da).shape) == [2, 3, *expected]


def test_sizes_that_the_stride_does_not_divide_are_padded_with_zeros_at_the_far_end():
    layer = down(4, 4)
    x = torch.randn(1, 2, 5, 6, 7)
    padded = torch.zeros(1, 2, 8, 8, 8)
    padded[:, :, :5, :6, :7] = x
    assert torch.equal(layer(x, 0), layer(padded, 0))
    assert torch.allclose(layer(x, 1), layer(padded[:, :, :6], 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("da", [0, 1, 3])
def test_samples_of_a_batch_do_not_mix(da):
    x = torch.randn(3, 2, 4, 4, 4)
    for layer in all_layers():
        one_by_one = torch.cat([layer(one, da) for one in x.split(1)])
        assert torch.allclose(layer(x, da), one_by_one, atol=1e-6, rtol=0)


# --- Static layers


@pytest.mark.parametrize("da", [0, 1, 2, 3, 6])
def test_static_layer_gives_the_outputs_of_the_adaptive_one_from_an_independent_kernel(da):
    x = torch.randn(2, 2, 5, 6, 7)
    for layer in all_layers(level=1):
        static = to_static(layer, da)
        assert isinstance(static.network, StaticConv)
        assert torch.equal(static(x), layer(x, da))
        expected, _ = layer.adapted_kernel(da)
        assert torch.equal(static.network.weight, expected)
        assert static.network.weight.is_leaf
        assert static.network.weight.data_ptr() != layer.weight.data_ptr()


def test_static_layer_without_bias_has_none():
    layer = down(3, 1, bias=False)
    assert to_static(layer, 1).network.bias is None


# --- Bad input


@pytest.mark.parametrize(("kernel", "stride"), [(3, 3), (5, 1), (4, 2), (1, 2), (2, 1), (6, 6), (0, 0)])
def test_convolution_without_adaptive_form_is_refused_by_name(kernel, stride):
    message = (
        f"^kernel {kernel} with stride {stride} has no spatially adaptive form; "
        "use kernel = stride = 2\\^k, or kernel 3 with stride 1 or 2$"
    )
    with pytest.raises(ValueError, match=message):
        down(kernel, stride)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 3), (4, 2), (2, 1), (6, 6), (0, 0)])
def test_transposed_convolution_without_adaptive_form_is_refused_by_name(kernel, stride):
    message = (
        f"^transposed kernel {kernel} with stride {stride} has no spatially adaptive form; "
        "use kernel = stride = 2\\^k, or kernel 3 with stride 2$"
    )
    with pytest.raises(ValueError, match=message):
        up(kernel, stride)


# --- Initialisation


@pytest.mark.parametrize(
    ("make", "kernel", "stride", "fan_in"),
    [(down, 2, 2, 16), (down, 3, 1, 54), (up, 2, 2, 2), (up, 4, 4, 2), (up, 3, 2, 6)],
)
def test_weights_start_within_one_over_the_root_of_the_inputs_that_a_voxel_sees(make, kernel, stride, fan_in):
    layer = make(kernel, stride)
    bound = fan_in**-0.5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.8 * bound
    assert layer.bias.abs().max() <= bound
