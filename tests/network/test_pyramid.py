"""Segmentation from SPAD-ViT as a whole, with a transformer made for tests."""

from __future__ import annotations

import pytest
import torch
from flat_network import flat_vit_unet
from torch import nn

from spadunet.network.pyramid import SpadViTUNet, block_numbers, level_sizes
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose, to_static
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT

ALL_DA = range(7)
DA_OF_2D_IMAGE = 6
WIDTHS = (8, 8, 16, 16, 24, 24)


@pytest.fixture
def network() -> SpadViTUNet:
    """Every norm, the cls token and the positions are random and large enough to count."""
    torch.manual_seed(0)
    vit = SpadViT(width=24, depth=4, num_heads=2, hidden_width=32, position_grid=(2, 2, 4))
    network = SpadViTUNet(vit, WIDTHS, (0, 1))
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    nn.init.normal_(vit.cls_token)
    nn.init.normal_(vit.pos_embed)
    return network


def test_four_blocks_are_taken_at_the_same_shares_of_any_depth():
    assert block_numbers(12) == (3, 5, 7, 11)  # of SPAD-Nets' released settings, as those of 24
    assert block_numbers(24) == (7, 11, 15, 23)
    assert block_numbers(6) == (1, 2, 3, 5)
    assert block_numbers(1) == (0, 0, 0, 0)


@pytest.mark.parametrize("da", ALL_DA)
@torch.no_grad()
def test_any_size_gives_maps_of_the_sizes_that_the_u_net_has(network: SpadViTUNet, da: int):
    unet = SpadUNet([8] * 6, [0] * 6)
    for size in ((1, 1, 1), (3, 17, 35), (33, 1, 9)):
        x = torch.randn(2, 3, *size)
        decoded = network(x, da)
        assert [y.shape[1] for y in decoded] == list(WIDTHS[:5])
        features = unet.encoder(x, da)
        assert [tuple(y.shape[2:]) for y in features] == level_sizes(size, da, 6)
        assert [y.shape[2:] for y in decoded] == [y.shape[2:] for y in features[:-1]]
        assert all(y.isfinite().all() for y in decoded)


@torch.no_grad()
def test_one_slice_at_da_6_is_the_2d_network_and_at_da_3_is_not(network: SpadViTUNet):
    x = torch.randn(2, 3, 32, 64)
    expected = flat_vit_unet(network, x)
    for y, reference in zip(network(x[:, :, None], DA_OF_2D_IMAGE), expected, strict=True):
        assert torch.allclose(y[:, :, 0], reference, atol=1e-5, rtol=0)
    denser = network(x[:, :, None], 3)[-1][:, :, 0]
    assert (denser - expected[-1]).norm() > 0.05 * expected[-1].norm()


@pytest.mark.parametrize("da", [0, 2, 6])
def test_every_parameter_learns_but_the_final_norm_that_is_left_out(network: SpadViTUNet, da: int):
    sum(y.square().mean() for y in network(torch.randn(1, 3, 6, 40, 40), da)).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("vit.norm."):
            assert not parameter.requires_grad
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_each_map_of_the_pyramid_comes_from_its_own_block(network: SpadViTUNet):
    x, sizes = torch.randn(1, 3, 4, 32, 32), level_sizes((4, 32, 32), 2, 6)[2:]
    tokens = [y.detach().requires_grad_() for y in network.vit.features(x, 2, network.blocks)]
    for number, y in enumerate(network.pyramid(tokens, 2, sizes)):
        gradients = torch.autograd.grad(y.square().sum(), tokens, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [other == number for other in range(4)]


def test_layers_of_pyramid_and_convolution_path_know_their_levels(network: SpadViTUNet):
    pyramid = network.pyramid
    assert [layer.level for layer in (pyramid.double_first, pyramid.double_again, pyramid.double_second)] == [3, 2, 3]
    assert [layer.level for layer in network.full_resolution.downs] == [0]
    assert [layer.level for layer in network.decoder.ups] == [0, 1, 2, 3, 4]


def test_bfloat16_autocast_stays_close_to_float32(network: SpadViTUNet):
    x = torch.randn(1, 3, 4, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x, 2)
    for a, b in zip(low, network(x, 2), strict=True):
        assert (a.float() - b).norm() < 0.05 * b.norm()


@torch.no_grad()
def test_static_network_has_plain_kernels_only_and_the_same_outputs(network: SpadViTUNet):
    x = torch.randn(1, 3, 4, 32, 32)
    for da in (0, 2, 6):
        static = to_static(network, da)
        assert not any(isinstance(module, SpadConv | SpadConvTranspose) for module in static.modules())
        for a, b in zip(static(x), network(x, da), strict=True):
            assert torch.equal(a, b)
