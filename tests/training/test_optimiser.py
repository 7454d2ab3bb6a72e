"""The optimiser of a training run, and what it is given unless the user says otherwise."""

from __future__ import annotations

import torch

from spadunet.network.build import BACKBONES, UNET_PRESETS, VIT_PRESETS, build_task
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.vit import SpadViT
from spadunet.training.loop import JointNetwork
from spadunet.training.optimiser import make_optimiser
from spadunet.training.recipes import PRESETS, RECIPES


def make_network() -> JointNetwork:
    vit = SpadViT(width=24, depth=1, num_heads=2, hidden_width=32)
    return JointNetwork(SpadViTUNet(vit, (8,) * 6), [build_task(1, 2, "spad_vit", "tiny")])


def test_weight_decay_spares_norms_biases_tokens_and_positions_where_it_is_told_to():
    network = make_network()
    groups = make_optimiser(network, 0.1, 0.5, spares_vectors=True).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, parameter in learning.items():
        is_spared = parameter.ndim == 1 or name.endswith(("cls_token", "pos_embed"))
        assert decay[id(parameter)] == (0 if is_spared else 0.5), name
    [group] = make_optimiser(network, 0.1, 0.5, spares_vectors=False).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.5, len(learning))


def test_without_gradients_decay_alone_moves_what_it_is_for():
    network = make_network()
    before = {name: value.clone() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimiser(network, 0.1, 0.5, spares_vectors=True).step()
    assert torch.equal(network.backbone.vit.pos_embed, before["backbone.vit.pos_embed"])
    weight = "backbone.vit.patch_embed.weight"
    assert torch.allclose(dict(network.named_parameters())[weight], before[weight] * (1 - 0.1 * 0.5))


def test_every_backbone_and_preset_that_can_be_built_has_a_recipe():
    assert list(RECIPES) == list(BACKBONES)
    assert list(PRESETS) == list(UNET_PRESETS) == list(VIT_PRESETS)
    assert [RECIPES["spad_unet"].learning_rate(preset) for preset in PRESETS] == [3e-3] * 4
    assert [RECIPES["spad_vit"].learning_rate(preset) for preset in PRESETS] == [3e-3, 1e-3, 1e-4, 1e-4]
