"""The SPAD U-Net as a whole, in its smallest form: five halvings, sixteen channels at every level."""

from __future__ import annotations

import pytest
import torch
from flat_network import FlatUNet
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from spadunet.network.blocks import PointwiseConv
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose, to_static
from spadunet.network.unet import SpadUNet, Stage

NUM_LEVELS = 6
ALL_DA = range(NUM_LEVELS + 1)
DA_OF_2D_IMAGE = 6  # five halvings, and one more since a k3s1 sits at the deepest level


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def small_network(num_levels: int = NUM_LEVELS) -> SpadUNet:
    """Widths differ at two levels, so that both kinds of shortcut occur; every norm has random scale and shift."""
    network = SpadUNet([16] * (num_levels - 1) + [24], [1] * num_levels)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def crop(da: int, in_plane: int = 32, batch_size: int = 1) -> Tensor:
    """A batch of images with the depth that training uses: in_plane / 2^DA slices, at least one."""
    return torch.randn(batch_size, 3, max(in_plane >> da, 1), in_plane, in_plane)


# --- A4: bookkeeping of sizes


@pytest.mark.parametrize(
    ("da", "depths"),
    [
        (0, [16, 8, 4, 2, 1, 1]),
        (1, [16, 16, 8, 4, 2, 1]),
        (2, [16, 16, 16, 8, 4, 2]),
        (3, [16, 16, 16, 16, 8, 4]),
        (4, [16, 16, 16, 16, 16, 8]),
        (5, [16, 16, 16, 16, 16, 16]),
        (6, [16, 16, 16, 16, 16, 16]),
    ],
)
@torch.no_grad()
def test_depth_is_halved_only_at_levels_that_da_has_reached_and_the_decoder_mirrors_it(da, depths):
    network = small_network()
    x = torch.randn(1, 3, 16, 32, 32)
    in_plane = [32, 16, 8, 4, 2, 1]
    features = network.encoder(x, da)
    assert [tuple(f.shape[2:]) for f in features] == list(zip(depths, in_plane, in_plane, strict=True))
    decoded = network(x, da)
    assert [y.shape for y in decoded] == [f.shape for f in features[:-1]]
    assert decoded[0].shape == (1, 16, 16, 32, 32)


@pytest.mark.parametrize("da", [0, 1, 3, 6])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 7), (3, 1, 2), (5, 7, 3), (1, 1, 40), (6, 33, 17)])
@torch.no_grad()
def test_any_size_gives_finite_maps_of_the_input_size(size, da):
    decoded = small_network()(torch.randn(1, 3, *size), da)
    assert tuple(decoded[0].shape) == (1, 16, *size)
    assert all(y.isfinite().all() for y in decoded)
    for finer, coarser in zip(decoded[:-1], decoded[1:], strict=True):
        assert coarser.shape[3:] == tuple(-(-n // 2) for n in finer.shape[3:])


def test_stage_with_two_blocks_changes_width_in_the_first_only():
    stage = Stage(16, 24, num_blocks=2, level=0)
    assert isinstance(stage.blocks[0].shortcut, PointwiseConv)
    assert isinstance(stage.blocks[1].shortcut, nn.Identity)
    assert stage(torch.randn(1, 16, 2, 3, 4), 0).shape == (1, 24, 2, 3, 4)


def test_every_layer_knows_the_level_of_its_finer_side():
    network = small_network()
    assert [layer.level for layer in network.encoder.downs] == [0, 1, 2, 3, 4]
    assert [layer.level for layer in network.decoder.ups] == [0, 1, 2, 3, 4]
    for level, stage in enumerate(network.encoder.stages):
        assert {m.level for m in stage.modules() if isinstance(m, SpadConv)} == {level}
    for level, block in enumerate(network.decoder.blocks):
        assert {m.level for m in block.modules() if isinstance(m, SpadConv)} == {level}


@pytest.mark.parametrize("da", ALL_DA)
def test_every_parameter_gets_a_finite_gradient_at_every_da(da):
    network = small_network()
    sum(y.square().mean() for y in network(crop(da, batch_size=2), da)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_pointwise_map_is_a_1x1x1_convolution():
    layer = PointwiseConv(5, 3)
    x = torch.randn(2, 5, 2, 3, 4)
    expected = functional.conv3d(x, layer.weight[:, :, None, None, None], layer.bias)
    assert torch.allclose(layer(x), expected, atol=1e-6, rtol=0)


# --- A2 on the whole network: one slice is the 2D network


@torch.no_grad()
def test_one_slice_at_da_6_is_the_2d_network_and_at_da_5_is_not():
    network = small_network()
    flat = FlatUNet(network)
    x = torch.randn(2, 3, 64, 96)
    expected = flat(x)
    for y, reference in zip(network(x[:, :, None], DA_OF_2D_IMAGE), expected, strict=True):
        assert torch.allclose(y[:, :, 0], reference, atol=1e-5, rtol=0)
    deepest = network(x[:, :, None], DA_OF_2D_IMAGE - 1)[-1][:, :, 0]
    assert (deepest - expected[-1]).norm() > 0.05 * expected[-1].norm()


@torch.no_grad()
def test_every_da_from_6_on_is_the_same_network():
    network = small_network()
    x = torch.randn(1, 3, 3, 32, 32)
    for at_six, beyond in zip(network(x, 6), network(x, 26), strict=True):
        assert torch.equal(at_six, beyond)


# --- Checkpointing, autocast


@pytest.mark.parametrize("da", [0, 2, 6])
def test_activation_checkpointing_changes_neither_outputs_nor_gradients(da):
    network = small_network()
    x = crop(da, in_plane=16).requires_grad_()
    inputs = [x, *network.parameters()]
    plain = network(x, da)
    stored = checkpoint(network, x, da, use_reentrant=False)
    assert all(torch.equal(a, b) for a, b in zip(plain, stored, strict=True))
    plain_gradients = torch.autograd.grad(sum(y.square().mean() for y in plain), inputs)
    stored_gradients = torch.autograd.grad(sum(y.square().mean() for y in stored), inputs)
    for a, b in zip(plain_gradients, stored_gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("da", ALL_DA)
def test_bfloat16_autocast_stays_close_to_float32_and_trains(da):
    network = small_network(num_levels=4)
    x = crop(da)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x, da)
    with torch.no_grad():
        full = network(x, da)
    for a, b in zip(low, full, strict=True):
        # bfloat16 rounds to 8 bits, 0.4 %, at each of about twenty layers.
        assert (a.float() - b).norm() < 0.05 * b.norm()
    sum(y.float().square().mean() for y in low).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


# --- Static form


@pytest.mark.parametrize("da", ALL_DA)
@torch.no_grad()
def test_static_network_has_plain_kernels_only_and_the_same_outputs(da):
    network = small_network()
    static = to_static(network, da)
    x = torch.randn(1, 3, 4, 32, 32)
    assert not any(isinstance(m, SpadConv | SpadConvTranspose) for m in static.modules())
    assert any(isinstance(m, SpadConv) for m in network.modules())
    for a, b in zip(static(x), network(x, da), strict=True):
        assert torch.equal(a, b)
    assert static.network.encoder.stem.conv.weight.shape[2] == (3 if da == 0 else 1)
    assert static.network.encoder.downs[2].weight.shape[2] == (2 if da <= 2 else 1)
    assert static.network.encoder.stages[5].blocks[0].conv.weight.shape[2] == (3 if da <= 5 else 1)


@pytest.mark.parametrize("da", [1, 6])
@torch.no_grad()
def test_static_network_can_be_exported_as_one_graph(da):
    static = to_static(small_network(num_levels=4), da).eval()
    x = crop(da, in_plane=16)
    exported = torch.export.export(static, (x,), strict=False).module()
    for a, b in zip(exported(x), static(x), strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=0)


# --- Bad input


def test_width_that_the_norm_cannot_group_is_refused():
    with pytest.raises(ValueError, match=r"num_channels \(12\) must be divisible by num_groups \(8\)"):
        SpadUNet([12, 16], [1, 1])
