"""Which parameters weight decay pulls towards zero."""

from __future__ import annotations

import torch
from torch import nn

from spadunet.network.build import build_task
from spadunet.network.decay import parameter_groups
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT


def decayed_names(module: nn.Module) -> tuple[set[str], set[str]]:
    """Names with and without weight decay; every trainable parameter is in exactly one."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    decayed, kept = parameter_groups(module, 0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0)
    found = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, kept)]
    assert len(decayed["params"]) + len(kept["params"]) == len(found[0] | found[1])
    return found[0], found[1]


def test_matrices_and_kernels_of_a_vit_decay_and_nothing_else():
    vit = SpadViT(width=8, depth=1, num_heads=1, hidden_width=8)
    decayed, kept = decayed_names(vit)
    maps = [f"blocks.0.attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "proj")]
    maps += [f"blocks.0.mlp.{name}" for name in ("w1", "w2", "w3")]
    assert decayed == {f"{name}.weight" for name in ["patch_embed", *maps]}
    norms = ["norm", "blocks.0.norm1", "blocks.0.norm2", "blocks.0.mlp.ffn_ln"]
    biases = {f"{name}.bias" for name in ["patch_embed", *norms, *maps] if not name.endswith("k_proj")}
    assert kept == biases | {f"{name}.weight" for name in norms} | {"cls_token", "pos_embed"}


def test_kernels_of_a_unet_and_of_a_task_decay_and_their_norms_and_biases_do_not():
    for module in (SpadUNet([8, 16], [1, 1]), build_task(2, 3, preset="tiny")):
        decayed, kept = decayed_names(module)
        parameters = dict(module.named_parameters())
        assert all(parameters[name].ndim >= 2 for name in decayed)
        assert all(parameters[name].ndim == 1 for name in kept)
        assert decayed | kept == set(parameters)


def test_embeddings_tokens_and_frozen_parameters():
    module = nn.ModuleDict({"codes": nn.Embedding(5, 4), "map": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
    module.register_parameter("mask_token", nn.Parameter(torch.zeros(1, 4)))
    module["frozen"].requires_grad_(False)
    assert decayed_names(module) == ({"map.weight"}, {"codes.weight", "map.bias", "mask_token"})


def test_one_step_without_a_gradient_shrinks_only_what_decays():
    linear = nn.Linear(2, 2)
    nn.init.ones_(linear.weight)
    nn.init.ones_(linear.bias)
    optimiser = torch.optim.AdamW(parameter_groups(linear, 0.5), lr=0.1)
    for parameter in linear.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    assert torch.allclose(linear.weight, torch.full((2, 2), 0.95))  # 1 - 0.1 · 0.5
    assert torch.equal(linear.bias, torch.ones(2))
