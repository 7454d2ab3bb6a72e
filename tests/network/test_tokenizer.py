"""The visual tokenizer and its discriminator: shapes by spacing, parameter counts, one slice as the 2D network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spadunet.network.build import TOKENIZER_WIDTHS, build_discriminator, build_tokenizer
from spadunet.network.discriminator import SpadDiscriminator
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose, to_static
from spadunet.network.tokenizer import ChannelNorm, ConvStage, PatchStage, SpadTokenizer


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def small_tokenizer() -> SpadTokenizer:
    """Norms, codebook and last taps are random, so that none of them can be left out unseen."""
    network = SpadTokenizer([16, 24, 32])
    nn.init.normal_(network.codebook.weight)
    nn.init.normal_(network.decoder[-1].weight, std=0.2)
    randomise_norms(network)
    return network


def randomise_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_base_has_the_papers_number_of_parameters():
    with torch.device("meta"):
        network = build_tokenizer("base")
        discriminator = build_discriminator("base")
    codebook = num_parameters(network.codebook) + num_parameters(network.to_logits)
    assert num_parameters(network.encoder) == 15_496_832
    assert codebook == 1_049_600
    assert num_parameters(network.decoder) == 17_707_523
    assert num_parameters(network) == 34_253_955
    assert num_parameters(discriminator) == 11_529_985


def test_tiny_fits_into_a_package():
    with torch.device("meta"):
        network = build_tokenizer("tiny")
    assert 4 * num_parameters(network) < 15e6


@pytest.mark.parametrize("preset", TOKENIZER_WIDTHS)
def test_every_preset_has_the_same_tokens_and_takes_the_papers_crop(preset):
    with torch.device("meta"):
        network, discriminator = build_tokenizer(preset), build_discriminator(preset)
        x = torch.empty(1, 3, 64, 128, 128)
        reconstruction, logits = network(x, 0)
        assert logits.shape == (1, 1024, 4, 8, 8)
        assert reconstruction.shape == x.shape
        assert discriminator(x, 0).shape == (1, 1, 8, 16, 16)


@pytest.mark.parametrize(
    ("da", "depth", "tokens"), [(0, 64, 4), (1, 32, 4), (2, 16, 4), (3, 8, 4), (4, 4, 4), (5, 1, 1), (6, 1, 1)]
)
@torch.no_grad()
def test_crops_of_every_da_have_their_grid_of_tokens_and_come_back_in_their_shape(da, depth, tokens):
    x = torch.randn(1, 3, depth, 32, 48)
    reconstruction, logits = small_tokenizer()(x, da)
    assert logits.shape == (1, 1024, tokens, 2, 3)
    assert reconstruction.shape == x.shape


@pytest.mark.parametrize("da", [0, 1, 3, 6])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 5, 7), (3, 1, 2), (17, 33, 3)])
@torch.no_grad()
def test_any_size_is_padded_to_whole_tokens(size, da):
    x = torch.randn(1, 3, *size)
    reconstruction, logits = small_tokenizer()(x, da)
    steps = (max(16 >> da, 1), 16, 16)
    assert logits.shape[2:] == tuple(-(-n // step) for n, step in zip(size, steps, strict=True))
    assert reconstruction.shape == x.shape
    assert reconstruction.isfinite().all()
    discriminator = SpadDiscriminator([32, 32, 32])
    assert discriminator(x, da).isfinite().all()


def test_a_certain_token_is_decoded_from_its_own_code_and_an_uncertain_one_from_the_mean():
    network = small_tokenizer()
    seen = []
    network.decoder[0].conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    one_hot = functional.one_hot(torch.tensor([[[[3, 700]]]]), 1024).movedim(-1, 1).float()  # (1, K, 1, 1, 2)
    network.decode(one_hot, 6, (1, 16, 32))
    network.decode(torch.full((1, 1024, 1, 1, 1), 1 / 1024), 6, (1, 16, 16))
    code = network.codebook.weight
    assert torch.allclose(seen[0][0, :, 0, 0].t(), code[[3, 700]], atol=1e-6, rtol=0)
    assert torch.allclose(seen[1].flatten(), code.mean(0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("da", range(7))
def test_every_parameter_gets_a_finite_gradient_at_every_da_also_in_bfloat16(da):
    network, discriminator = small_tokenizer(), SpadDiscriminator([16, 16, 16])
    x = torch.randn(2, 3, max(32 >> da, 1), 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reconstruction, logits = network(x, da)
        verdict = discriminator(reconstruction, da)
    assert logits.dtype == torch.float32
    (reconstruction.float().square().mean() + verdict.float().mean() + logits.square().mean()).backward()
    for name, parameter in [*network.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_upsampling_keeps_the_mean_at_every_da():
    """A decoder step of kernel = stride on a constant image: its mean is the same however much depth is pending."""
    step = small_tokenizer().decoder[-1]
    x = torch.randn(1, 16, 1, 1, 1).expand(1, 16, 4, 4, 4)
    means = [step(x, da).mean((0, 2, 3, 4)) for da in range(7)]
    for mean in means[1:]:
        assert torch.allclose(mean, means[0], atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_fresh_tokenizer_makes_grey_blocks():
    network = SpadTokenizer([16, 24, 32])
    made, _ = network(torch.randn(1, 3, 16, 32, 32), 0)
    assert torch.equal(
        made,
        made[:, :1, ::4, ::4, ::4]
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
        .repeat_interleave(4, 4)
        .expand_as(made),
    )
    assert made.std() > 0


# --- One slice is the 2D network, as a whole


def flat_conv(x: Tensor, layer: SpadConv) -> Tensor:
    kernel = layer.weight.shape[-1]
    return functional.conv2d(x, layer.weight.sum(2), layer.bias, layer.stride, padding=int(kernel == 3))


def flat_up(x: Tensor, layer: SpadConvTranspose) -> Tensor:
    return functional.conv_transpose2d(x, layer.weight.mean(2), layer.bias, layer.stride)


def flat_norm(x: Tensor, norm: ChannelNorm) -> Tensor:
    shape = x.shape[1:2]
    return functional.layer_norm(x.permute(0, 2, 3, 1), shape, norm.weight, norm.bias, 1e-5).permute(0, 3, 1, 2)


def flat_stage(x: Tensor, stage: nn.Module) -> Tensor:
    if isinstance(stage, PatchStage):
        return functional.gelu(flat_norm(flat_conv(x, stage.conv), stage.norm))
    if isinstance(stage, ConvStage):
        x = x if stage.up is None else flat_up(x, stage.up)
        x = functional.group_norm(flat_conv(x, stage.conv), 8, stage.norm.weight, stage.norm.bias)
        return functional.leaky_relu(x, 0.01)
    assert isinstance(stage, SpadConvTranspose)
    return flat_up(x, stage)


def flat_tokenizer(x: Tensor, network: SpadTokenizer) -> tuple[Tensor, Tensor]:
    """A plain 2D tokenizer with the weights of a SPAD one: (B, 3, H, W), sizes divisible by 16."""
    for stage in network.encoder:
        x = flat_stage(x, stage)
    weight = network.to_logits.weight[:, :, None, None]
    logits = functional.conv2d(x, weight, network.to_logits.bias)
    x = torch.einsum("bkhw,kc->bchw", logits.softmax(1), network.codebook.weight)
    for stage in network.decoder:
        x = flat_stage(x, stage)
    return x, logits


@torch.no_grad()
def test_one_slice_is_the_2d_network_from_da_5_on_and_not_before():
    network = small_tokenizer()
    x = torch.randn(2, 3, 64, 96)
    expected = flat_tokenizer(x, network)
    for da in (5, 6, 26):
        for found, reference in zip(network(x[:, :, None], da), expected, strict=True):
            assert torch.allclose(found[:, :, 0], reference, atol=1e-5, rtol=0)
    assert (network(x[:, :, None], 4)[0][:, :, 0] - expected[0]).norm() > 0.05 * expected[0].norm()


@torch.no_grad()
def test_slices_of_a_stack_of_2d_images_are_kept_apart_but_by_the_norms():
    """At da 5 a stack gives the tokens of its slices, up to GroupNorm's statistics: none are left where it is off."""
    network = small_tokenizer()
    for stage in network.encoder:
        if isinstance(stage, ConvStage):
            stage.norm = nn.Identity()
    x = torch.randn(1, 3, 3, 32, 32)
    apart = torch.cat([network.encode(x[:, :, i : i + 1], 5) for i in range(3)], dim=2)
    assert torch.allclose(network.encode(x, 5), apart, atol=1e-5, rtol=0)


@torch.no_grad()
def test_discriminator_of_one_slice_is_the_2d_discriminator():
    network = SpadDiscriminator([16, 16, 32])
    randomise_norms(network)
    x = torch.randn(2, 3, 40, 64)
    y = x
    for conv, norm in zip(network.convs, network.norms, strict=True):
        y = functional.conv2d(y, conv.weight.sum(2), conv.bias, conv.stride, padding=1)
        y = functional.leaky_relu(functional.group_norm(y, 16, norm.weight, norm.bias), 0.01)
    y = functional.conv2d(y, network.to_logit.weight.sum(2), network.to_logit.bias, padding=1)
    assert y.shape == (2, 1, 5, 8)
    assert torch.allclose(network(x[:, :, None], 6)[:, :, 0], y, atol=1e-5, rtol=0)


@pytest.mark.parametrize("da", [0, 2, 6])
@torch.no_grad()
def test_static_tokenizer_has_the_same_outputs(da):
    network = small_tokenizer()
    x = torch.randn(1, 3, 4, 32, 32)
    for found, expected in zip(to_static(network, da)(x), network(x, da), strict=True):
        assert torch.equal(found, expected)
