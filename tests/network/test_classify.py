"""Classification: poolings by hand, views in any order and of any size, and weights that sum to one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spadunet.network.build import UNET_PRESETS, VIT_PRESETS, build_backbone, build_classification_task
from spadunet.network.classify import (
    ClassificationNetwork,
    ClassificationTask,
    Pooling,
    View,
    encoder_of,
    final_tokens,
    patch_shape,
    spread,
    train_encoder_alone,
)
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT

KINDS: list[tuple[str, Pooling]] = [
    ("spad_vit", "cls"),
    ("spad_vit", "mean"),
    ("spad_vit", "attention"),
    ("spad_unet", "mean"),
    ("spad_unet", "attention"),
]
SIZES = {0: (17, 33, 20), 2: (5, 16, 40), 6: (1, 32, 32)}
"""By degree of anisotropy; the first are no multiples of anything."""


def make_backbone(name: str) -> nn.Module:
    """Made for tests, in double precision."""
    torch.manual_seed(0)
    if name == "spad_unet":
        return SpadUNet([16, 16, 16], [1, 1, 1]).double()
    vit = SpadViT(width=16, depth=2, num_heads=2, hidden_width=24, position_grid=(2, 2, 2)).double()
    nn.init.normal_(vit.cls_token)
    nn.init.normal_(vit.pos_embed)
    return SpadViTUNet(vit, [16] * 6).double()


def make_network(name: str, pooling: Pooling, num_channels: int = 1) -> ClassificationNetwork:
    return ClassificationNetwork(make_backbone(name), ClassificationTask(num_channels, 3, 16, pooling).double())


def random_view(da: int, num_studies: int = 2, num_channels: int = 1) -> View:
    return torch.rand(num_studies, num_channels, *SIZES[da], dtype=torch.double) * 2 - 1, da


# --- Poolings


@torch.no_grad()
def test_cls_is_a_linear_layer_on_the_final_cls_token():
    network, (x, da) = make_network("spad_vit", "cls"), random_view(0)
    expected = network.task.head(network.backbone.vit(x.expand(-1, 3, -1, -1, -1), da)[:, 0])
    assert torch.equal(network([(x, da)]), expected)


@torch.no_grad()
def test_mean_of_a_unet_is_a_linear_layer_on_the_mean_of_its_deepest_map():
    network, (x, da) = make_network("spad_unet", "mean"), random_view(2)
    expected = network.task.head(network.backbone.encoder(x.expand(-1, 3, -1, -1, -1), da)[-1].mean((2, 3, 4)))
    assert torch.allclose(network([(x, da)]), expected, atol=1e-12)


@torch.no_grad()
def test_attention_weighs_tokens_of_all_views_as_the_paper_has_it():
    """One channel, V = U = w = 1 in the first hidden channel, 0 elsewhere: logits are tanh(h) · sigmoid(h)."""
    task = ClassificationTask(1, 1, 1, "attention")
    for parameter in task.attention.parameters():
        parameter.zero_()
    task.attention.values.weight[0] = task.attention.gates.weight[0] = task.attention.out.weight[0, 0] = 1
    task.head.weight.fill_(2)
    task.head.bias.fill_(1)
    h = torch.tensor([0.5, -1.0, 3.0])
    weights = (h.tanh() * h.sigmoid()).exp()
    weights = weights / weights.sum()
    views = [h[None, :2, None], h[None, 2:, None]]
    assert torch.allclose(torch.cat(task.weigh(views), dim=1)[0], weights)
    assert torch.allclose(task(views), (2 * (weights * h).sum() + 1).view(1, 1))


def test_views_count_the_same_however_many_patches_they_have_and_attention_is_free():
    views = [torch.zeros(2, 4, 8), torch.zeros(2, 1, 8)]
    for pooling, shares in (("mean", (1 / 8, 1 / 2)), ("attention", (1 / 5, 1 / 5))):
        weights = ClassificationTask(1, 2, 8, pooling).weigh(views)
        assert [w.shape for w in weights] == [(2, 4), (2, 1)]
        for w, share in zip(weights, shares, strict=True):
            assert torch.allclose(w, torch.tensor(share))


# --- Views


@pytest.mark.parametrize(("name", "pooling"), KINDS)
@torch.no_grad()
def test_the_order_of_views_of_any_size_and_spacing_does_not_matter(name: str, pooling: Pooling):
    network, views = make_network(name, pooling), [random_view(da) for da in SIZES]
    logits = network(views)
    assert logits.shape == (2, 3)
    for order in ([2, 0, 1], [1, 0, 2]):
        assert torch.allclose(network([views[number] for number in order]), logits, atol=1e-12)
    assert not torch.allclose(network(views[:2]), logits, atol=1e-6)


@pytest.mark.parametrize(("name", "pooling"), KINDS)
@torch.no_grad()
def test_studies_of_a_batch_do_not_mix_and_a_view_twice_adds_nothing(name: str, pooling: Pooling):
    network, (x, da) = make_network(name, pooling), random_view(2)
    logits = network([(x, da)])
    assert torch.allclose(network([(x[1:], da)]), logits[1:], atol=1e-12)
    assert torch.allclose(network([(x, da)] * 3), logits, atol=1e-12)


@pytest.mark.parametrize(("name", "pooling"), KINDS)
@torch.no_grad()
def test_a_single_voxel_is_an_image(name: str, pooling: Pooling):
    network = make_network(name, pooling)
    for da in SIZES:
        views = [(torch.ones(1, 1, 1, 1, 1, dtype=torch.double), da)]
        assert network(views).isfinite().all()
        assert network.attention_weights(views)[0].tolist() == [[[[1.0]]]]


@torch.no_grad()
def test_an_absent_contrast_adds_nothing():
    network, (x, da) = make_network("spad_vit", "cls", num_channels=2), random_view(0)
    alone = torch.cat([torch.zeros_like(x), x], dim=1)
    assert torch.allclose(network([(alone, da)]), network([(x.expand(-1, 2, -1, -1, -1), da)]), atol=1e-12)


# --- Heat maps


@pytest.mark.parametrize(("name", "pooling"), KINDS)
@torch.no_grad()
def test_weights_lie_on_the_grid_of_patches_and_sum_to_one_over_all_views(name: str, pooling: Pooling):
    network, views = make_network(name, pooling), [random_view(da) for da in SIZES]
    weights = network.attention_weights(views)
    deepest = 4 if name == "spad_vit" else 2
    for (x, da), w in zip(views, weights, strict=True):
        patch = patch_shape(network.backbone, da)
        assert patch == (max(2**deepest >> da, 1), 2**deepest, 2**deepest)
        assert w.shape == (2, *(-(-size // side) for size, side in zip(x.shape[2:], patch, strict=True)))
        heat = spread(w, x.shape[2:], patch)
        assert heat.shape == (2, *x.shape[2:])
        assert torch.allclose(heat.sum((1, 2, 3)), w.sum((1, 2, 3)))
    assert torch.allclose(sum(w.sum((1, 2, 3)) for w in weights), torch.ones(2).double())
    assert all((w > 0).all() for w in weights)


def test_each_voxel_has_its_patchs_weight_divided_by_the_voxels_inside():
    """Five columns in patches of two: two, two and one voxel."""
    heat = spread(torch.tensor([0.2, 0.3, 0.5]).view(1, 1, 1, 3), (1, 1, 5), (1, 2, 2))
    assert torch.allclose(heat.flatten(), torch.tensor([0.1, 0.1, 0.15, 0.15, 0.5]))
    heat = spread(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), (3, 2, 2), (2, 4, 4))
    assert torch.allclose(heat.sum((2, 3)), torch.tensor([[0.5, 0.5, 3.0]]))


@torch.no_grad()
def test_weights_of_the_cls_token_are_those_that_its_last_attention_uses():
    vit = make_backbone("spad_vit").vit
    x, da = torch.rand(2, 3, 4, 32, 32, dtype=torch.double), 2
    tokens, rotation = vit.start(vit.embed(x, da))
    tokens = vit.blocks[1].norm1(vit.blocks[0](tokens, rotation))
    attention = vit.blocks[1].attn
    weights = attention.weights_of_cls(tokens, rotation)  # (B, N, 1 + L)
    values = attention.v_proj(tokens).unflatten(-1, (2, -1))  # (B, 1 + L, N, E)
    taken = torch.einsum("bnl,blne->bne", weights, values).flatten(1)
    assert torch.allclose(attention.proj(taken), attention(tokens, rotation)[:, 0], atol=1e-12)
    patches = weights.mean(1)[:, 1:]
    assert torch.allclose(vit.look(x, da).flatten(1), patches / patches.sum(1, keepdim=True))


# --- Building and training


@pytest.mark.parametrize("name", ["spad_unet", "spad_vit"])
@torch.no_grad()
def test_one_pass_gives_what_segmentation_and_what_classification_see(name: str):
    backbone = make_backbone(name)
    for da, size in SIZES.items():
        x = torch.rand(1, 3, *size, dtype=torch.double)
        maps, tokens = backbone.maps_and_tokens(x, da)
        assert torch.allclose(tokens, final_tokens(backbone, x, da), atol=1e-12)
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(maps, backbone(x, da), strict=True))


@pytest.mark.parametrize(("name", "pooling"), KINDS)
def test_all_that_classification_runs_learns_and_nothing_else(name: str, pooling: Pooling):
    network = make_network(name, pooling)
    train_encoder_alone(network.backbone)
    network([random_view(0)]).square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        is_run = parameter_name.startswith(("backbone.vit.", "backbone.encoder.", "task."))
        assert parameter.requires_grad == is_run
        if is_run and pooling != "cls":  # of the other tokens' last outputs a cls token takes nothing
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.any(), parameter_name
    assert encoder_of(encoder_of(network.backbone)) is encoder_of(network.backbone)


def test_a_task_fits_its_backbone_and_is_pooled_as_the_backbone_is():
    with torch.device("meta"):
        for preset in VIT_PRESETS:
            vit = build_classification_task(2, 5, "spad_vit", preset)
            unet = build_classification_task(2, 5, "spad_unet", preset)
            assert (vit.pooling, vit.head.weight.shape) == ("cls", (5, VIT_PRESETS[preset].width))
            assert (unet.pooling, unet.head.weight.shape) == ("mean", (5, UNET_PRESETS[preset].widths[-1]))
        backbone = build_backbone("spad_unet", "tiny")
    assert build_classification_task(1, 2, "spad_vit", "tiny", "attention").attention is not None
    assert set(vit.state_dict()) == {"channel_map.weight", "channel_map.bias", "head.weight", "head.bias"}
    with pytest.raises(ValueError, match="pooling cls: a U-Net has no cls token; use mean or attention"):
        build_classification_task(1, 2, "spad_unet", "tiny", "cls")
    with pytest.raises(ValueError, match="pooling cls: a U-Net has no cls token; use mean or attention"):
        ClassificationNetwork(backbone, ClassificationTask(1, 2, 128, "cls"))
    for backbone_name, preset in (("unet", "tiny"), ("spad_vit", "huge"), ("spad_unet", "huge")):
        with pytest.raises(KeyError):
            build_classification_task(1, 2, backbone_name, preset)
    with pytest.raises(TypeError, match="Linear is no backbone"):
        encoder_of(nn.Linear(1, 1))


@torch.no_grad()
def test_in_bfloat16_a_mean_over_many_patches_keeps_its_size():
    """One in 500, rounded to eight bits, would be a share of 0.998 after all."""
    task = ClassificationTask(1, 1, 1, "mean")
    task.head.weight.fill_(1)
    task.head.bias.zero_()
    tokens: Tensor = torch.ones(1, 500, 1, dtype=torch.bfloat16)
    assert torch.allclose(task([tokens]), torch.ones(1, 1), atol=1e-6)
