"""Adapters: nothing when fresh, LoRA by hand, and many on one backbone, in threads and with checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spadunet.network.adapters import (
    Adapter,
    adapt,
    count_parameters,
    describe_share,
    gates_of,
    merge,
    target_layers,
)
from spadunet.network.build import build_backbone
from spadunet.network.classify import ClassificationNetwork, ClassificationTask, encoder_of, final_tokens
from spadunet.network.compiling import compile_network
from spadunet.network.decay import parameter_groups
from spadunet.network.low_rank import AdaptedConv, AdaptedLinear, LowRank
from spadunet.network.pyramid import SpadViTUNet
from spadunet.network.routing import expert_use, router_entropy
from spadunet.network.spad_conv import SpadConv, SpadConvTranspose
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT

BACKBONES = ["spad_unet", "spad_vit"]
SIZES = {0: (6, 32, 20), 2: (3, 32, 40), 6: (1, 32, 48)}
"""By degree of anisotropy. Large enough that no norm has just a few values, and makes much of rounding."""


def make_backbone(name: str, dtype: torch.dtype = torch.double) -> SpadUNet | SpadViTUNet:
    torch.manual_seed(0)
    if name == "spad_unet":
        return SpadUNet([16, 16, 16], [1, 1, 1]).to(dtype)
    vit = SpadViT(width=16, depth=2, num_heads=2, hidden_width=24, position_grid=(2, 2, 2))
    return SpadViTUNet(vit, [16] * 6).to(dtype)


def make_adapter(backbone: nn.Module, num_experts: int = 1, seed: int = 1, **more: bool) -> Adapter:
    """One that has learned: its changes are as large as a layer's own output, and its gates differ by image."""
    torch.manual_seed(seed)
    adapter = Adapter(backbone, rank=2, num_experts=num_experts, **more)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if name.endswith("up") or name.startswith("router"):
                parameter.copy_(torch.randn_like(parameter))
    return adapter


def random_image(da: int, num_images: int = 2, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.rand(num_images, 3, *SIZES[da], dtype=dtype) * 2 - 1


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def close(a: list[Tensor], b: list[Tensor], tolerance: float = 1e-10) -> bool:
    """In double precision two runs of one network differ in the last digits: libraries go by where memory lies."""
    return all(torch.allclose(x, y, atol=tolerance, rtol=tolerance) for x, y in zip(a, b, strict=True))


# --- A fresh adapter changes nothing


@pytest.mark.parametrize("num_experts", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()  # else PyTorch computes the one with gradients by another algorithm than the other without
def test_a_fresh_adapter_is_the_frozen_network_to_the_bit(name: str, num_experts: int):
    backbone = make_backbone(name, torch.float32)
    adapted = adapt(backbone, Adapter(backbone, rank=2, num_experts=num_experts))
    for da in SIZES:
        x = random_image(da, dtype=torch.float32)
        for image in (x, x.contiguous(memory_format=torch.channels_last_3d)):
            for is_bf16 in (False, True):
                with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                    frozen, found = backbone(image, da), adapted(image, da)
                assert equal(found, frozen)
                assert [y.dtype for y in found] == [y.dtype for y in frozen]


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_learned_adapter_changes_every_map_and_leaves_the_backbone_alone(name: str):
    backbone = make_backbone(name)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    x = random_image(2)
    expected = backbone(x, 2)
    adapted = adapt(backbone, make_adapter(backbone))
    changed = adapted(x, 2)
    assert all(not torch.allclose(a, b, atol=1e-6) for a, b in zip(changed, expected, strict=True))
    assert close(backbone(x, 2), expected)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert type(adapted) is type(backbone)


# --- What the change is


def test_a_linear_map_has_the_weight_of_lora():
    torch.manual_seed(0)
    layer = nn.Linear(5, 4).double()
    low_rank = LowRank(layer, 2).double()
    nn.init.normal_(low_rank.up)
    x = torch.randn(3, 7, 5).double()
    weight = layer.weight + low_rank.up @ low_rank.down
    assert torch.allclose(AdaptedLinear(layer, low_rank, None)(x), nn.functional.linear(x, weight, layer.bias))
    assert low_rank.change_of(layer).shape == layer.weight.shape


@pytest.mark.parametrize("da", [0, 1, 2, 6])
@pytest.mark.parametrize(
    "make",
    [
        partial(SpadConv, kernel=3, stride=1),
        partial(SpadConv, kernel=3, stride=2),
        partial(SpadConv, kernel=2, stride=2),
        partial(SpadConv, kernel=16, stride=16),
        partial(SpadConvTranspose, kernel=2, stride=2),
        partial(SpadConvTranspose, kernel=3, stride=2),
    ],
)
@torch.no_grad()
def test_a_convolution_is_that_of_the_weight_plus_the_change_at_every_spacing(make: Callable, da: int):
    """The change written out tap by tap; the layer pools it as it pools its weight."""
    torch.manual_seed(0)
    layer = make(3, 4, level=1).double()
    low_rank = LowRank(layer, 2).double()
    nn.init.normal_(low_rank.up)
    x = torch.randn(2, 3, 5, 9, 6).double()
    adapted = AdaptedConv(layer, low_rank, None)(x, da)
    for o in range(4):
        for i in range(3):
            kernel = sum(low_rank.up[o, r] * low_rank.down[r, i] * low_rank.taps[r] for r in range(2))
            layer.weight[(i, o) if isinstance(layer, SpadConvTranspose) else (o, i)] += kernel
    assert torch.allclose(adapted, layer(x, da), atol=1e-12)


@pytest.mark.parametrize("da", SIZES)
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_merged_equals_unmerged(name: str, da: int):
    for dtype, tolerance in ((torch.double, 1e-10), (torch.float32, 1e-5)):
        backbone = make_backbone(name, dtype)
        adapter = make_adapter(backbone)
        for low_rank in adapter.low_ranks().values():
            low_rank.up *= 0.1
        merged, x = merge(backbone, adapter), torch.rand(1, 3, 8, 48, 48, dtype=dtype) * 2 - 1
        assert close(merged(x, da), adapt(backbone, adapter)(x, da), tolerance)
        assert merged.state_dict().keys() == backbone.state_dict().keys()
        own = {id(parameter) for parameter in backbone.parameters()}
        assert not any(id(parameter) in own for parameter in merged.parameters())


def test_a_mixture_cannot_be_merged():
    backbone = make_backbone("spad_unet")
    with pytest.raises(ValueError, match="an adapter of 3 experts cannot be merged: its router chooses by image"):
        merge(backbone, make_adapter(backbone, 3))


# --- Mixtures


def copy_experts(mixture: Adapter, experts: list[Adapter]) -> None:
    """Make the experts of a mixture what these adapters of one expert are."""
    parts = [expert.low_ranks() for expert in experts]
    with torch.no_grad():
        for name, low_rank in mixture.low_ranks().items():
            low_rank.down.copy_(torch.cat([part[name].down for part in parts]))
            low_rank.up.copy_(torch.cat([part[name].up for part in parts], dim=1))
            if low_rank.taps is not None:
                low_rank.taps.copy_(torch.cat([part[name].taps for part in parts]))


@pytest.mark.parametrize("da", SIZES)
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_a_mixture_of_equal_experts_is_lora_and_so_is_one_whose_router_takes_a_single_expert(name: str, da: int):
    backbone = make_backbone(name)
    experts, mixture = [make_adapter(backbone, seed=seed) for seed in (1, 2)], make_adapter(backbone, 2)
    adapted = adapt(backbone, mixture)
    x = random_image(da)
    copy_experts(mixture, [experts[0], experts[0]])
    assert close(adapted(x, da), adapt(backbone, experts[0])(x, da))
    copy_experts(mixture, experts)
    for number, expert in enumerate(experts):
        mixture.router.to_experts.bias.copy_(torch.tensor([1e4, 0.0]).roll(number))
        assert close(adapted(x, da), adapt(backbone, expert)(x, da))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_each_image_of_a_batch_has_gates_of_its_own(name: str):
    backbone = make_backbone(name)
    adapted = adapt(backbone, make_adapter(backbone, 3))
    x = random_image(2) * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1, 1)
    together = adapted(x, 2)
    gates = gates_of(adapted)
    assert gates.shape == (2, 3)
    assert not torch.allclose(gates[0], gates[1], atol=1e-3)
    for number in range(2):
        assert close(adapted(x[number : number + 1], 2), [y[number : number + 1] for y in together])
        assert torch.allclose(gates_of(adapted), gates[number : number + 1])


@torch.no_grad()
def test_the_router_sees_the_mean_of_the_frozen_embeddings_or_of_the_frozen_stem():
    for name in BACKBONES:
        backbone = make_backbone(name)
        adapter = make_adapter(backbone, 3)
        adapted, x = adapt(backbone, adapter), random_image(0)
        adapted(x, 0)
        first = backbone.vit.embed if isinstance(backbone, SpadViTUNet) else backbone.encoder.stem
        assert torch.allclose(gates_of(adapted), adapter.router(first(x, 0).mean((2, 3, 4))))


@torch.no_grad()
def test_experts_of_a_fresh_mixture_count_the_same():
    backbone = make_backbone("spad_vit")
    adapted = adapt(backbone, Adapter(backbone, rank=1, num_experts=4))
    with pytest.raises(RuntimeError, match="run before the router; run the network from its patch embedding or stem"):
        gates_of(adapted)
    adapted.vit(random_image(2), 2)
    gates = gates_of(adapted)
    assert torch.allclose(expert_use(gates), torch.full((4,), 0.25).double())
    assert torch.allclose(router_entropy(gates), torch.full((2,), math.log(4)).double())
    assert router_entropy(torch.tensor([[1.0, 0.0]])).tolist() == [0.0]
    assert gates_of(adapt(backbone, make_adapter(backbone))) is None


# --- Many adapters on one backbone


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_adapters_share_the_backbones_weights_and_do_not_see_each_other(name: str):
    backbone = make_backbone(name)
    adapters = [make_adapter(backbone, number, seed=number) for number in (1, 2, 3)]
    x = random_image(6)
    alone = [adapt(backbone, adapter)(x, 6) for adapter in adapters]
    together = [adapt(backbone, adapter) for adapter in adapters]
    for adapted, expected in zip(together, alone, strict=True):
        assert close(adapted(x, 6), expected)
    for adapter, adapted in zip(adapters, together, strict=True):
        shared = {id(parameter) for module in (backbone, adapter) for parameter in module.parameters()}
        assert {id(parameter) for parameter in adapted.parameters()} == shared
    backbone.decoder.ups[0].bias += 1  # what changes in the backbone changes in all
    assert all(not close(adapted(x, 6), expected) for adapted, expected in zip(together, alone, strict=True))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_threads_that_share_an_adapted_network_do_not_see_each_others_gates(name: str):
    """Each thread waits in the middle until the other has its gates, too."""
    backbone = make_backbone(name)
    adapted = adapt(backbone, make_adapter(backbone, 3))
    images = [random_image(2), 0.1 * random_image(2)]
    expected = [adapted(x, 2) for x in images]
    barrier = Barrier(2, timeout=60)
    middle = adapted.vit.blocks[0] if isinstance(adapted, SpadViTUNet) else adapted.encoder.stages[0]

    def wait(*_: object) -> None:
        barrier.wait()

    handle = middle.register_forward_pre_hook(wait)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda x: adapted(x, 2), images))
    handle.remove()
    assert all(close(a, b) for a, b in zip(found, expected, strict=True))


# --- Training


def gradients_of(adapter: Adapter, outputs: list[Tensor]) -> dict[str, Tensor | None]:
    adapter.zero_grad()
    sum(y.square().mean() for y in outputs).backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in adapter.named_parameters()}


@pytest.mark.parametrize("num_experts", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_go_to_the_whole_adapter_alone_and_are_the_same_with_checkpoints(name: str, num_experts: int):
    backbone = make_backbone(name)
    adapter = make_adapter(backbone, num_experts)
    adapted, other = adapt(backbone, adapter), random_image(6)
    x = random_image(2)[..., :20]
    expected = gradients_of(adapter, adapted(x, 2))
    assert all(gradient is not None and gradient.any() for gradient in expected.values())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    parts = [checkpoint(adapted, part, 2, use_reentrant=False) for part in x.chunk(2)]
    adapted(other, 6)  # gates of another batch, before the parts are run again
    levels = [torch.cat(level) for level in zip(*parts, strict=True)]
    with ThreadPoolExecutor(1) as thread:  # as on a GPU, whose backward pass has a thread of its own
        found = thread.submit(gradients_of, adapter, levels).result()
    assert all(torch.allclose(found[key], expected[key], atol=1e-10) for key in expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_fresh_adapter_learns(name: str):
    backbone = make_backbone(name)
    adapter = Adapter(backbone, rank=2, num_experts=2)
    adapted, x = adapt(backbone, adapter), random_image(6)
    target = [torch.randn_like(y) for y in backbone(x, 6)]
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        loss = sum((y - z).square().mean() for y, z in zip(adapted(x, 6), target, strict=True))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert gates_of(adapted).std(dim=1).min() > 0  # the router has learned, too


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_in_bfloat16_an_adapted_network_is_what_it_is_in_float32(name: str):
    backbone = make_backbone(name, torch.float32)
    adapted, x = adapt(backbone, make_adapter(backbone, 2)), random_image(2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = adapted(x, 2)
    for a, b in zip(found, adapted(x, 2), strict=True):
        assert (a.float() - b).norm() < 0.1 * b.norm()


@pytest.mark.slow
@pytest.mark.parametrize("num_experts", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_an_adapted_network_compiles_to_one_graph(name: str, num_experts: int):
    backbone = make_backbone(name)
    adapted, x = adapt(backbone, make_adapter(backbone, num_experts)), random_image(2)
    expected, gates = adapted(x, 2), gates_of(adapted)
    torch._dynamo.reset()
    assert close(compile_network(adapted, backend="eager")(x, 2), expected)
    assert gates is None or torch.allclose(gates_of(adapted), gates)
    torch._dynamo.reset()


# --- Classification, sizes and names


@pytest.mark.parametrize("name", BACKBONES)
def test_classification_takes_an_adapted_backbone_and_learns_all_of_an_adapter_without_decoder(name: str):
    backbone = make_backbone(name)
    adapter = make_adapter(backbone, 2, has_decoder=False)
    task = ClassificationTask(1, 2, 16, "cls" if name == "spad_vit" else "mean").double()
    network = ClassificationNetwork(adapt(backbone, adapter), task)
    views = [(torch.rand(2, 1, *SIZES[2], dtype=torch.double), 2)]
    network(views).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert network.attention_weights(views)[0].sum((1, 2, 3)).tolist() == pytest.approx([1, 1])
    assert not any(key.startswith("decoder") for key in adapter.state_dict())


@pytest.mark.parametrize("name", BACKBONES)
def test_lora_of_rank_8_is_less_than_a_hundredth_of_base_and_of_5_mb(name: str):
    with torch.device("meta"):
        backbone = build_backbone(name, "base")
    adapter = Adapter(backbone, rank=8)
    few = count_parameters(adapter)
    assert few < 0.01 * count_parameters(backbone)
    assert sum(value.numel() * 4 for value in adapter.state_dict().values()) < 5e6
    told = describe_share(adapter, backbone)
    assert told.startswith(f"{few:,} of {count_parameters(backbone):,} parameters, 0.")
    assert told.endswith(f" %, {4 * few / 1e6:.1f} MB")
    if isinstance(backbone, SpadViTUNet):
        # 12 blocks of four maps 768 to 768; a patch embedding of 3 to 768 channels and 16³ taps
        assert few == 8 * (12 * 4 * 2 * 768 + 3 + 768 + 16**3)
        assert few < 0.01 * count_parameters(backbone.vit)


@torch.no_grad()
def test_an_adapter_is_read_back_from_its_tensors_by_the_names_of_the_layers():
    for name in BACKBONES:
        backbone = make_backbone(name)
        adapter, x = make_adapter(backbone, 2), random_image(0)
        again = Adapter(backbone, rank=2, num_experts=2)
        again.load_state_dict(adapter.state_dict())
        assert close(adapt(backbone, again)(x, 0), adapt(backbone, adapter)(x, 0))
        layers = {key.rpartition(".")[0] for key in adapter.state_dict() if not key.startswith("router.")}
        assert layers == set(target_layers(backbone))


def test_layers_that_are_changed():
    unet, vit = target_layers(make_backbone("spad_unet")), target_layers(make_backbone("spad_vit"))
    assert next(iter(unet)) == "encoder.stem.conv"
    convolutions = SpadConv | SpadConvTranspose
    assert len(unet) == sum(isinstance(module, convolutions) for module in make_backbone("spad_unet").modules())
    maps = ("q_proj", "k_proj", "v_proj", "proj")
    assert list(vit) == ["vit.patch_embed", *(f"vit.blocks.{n}.attn.{name}" for n in (0, 1) for name in maps)]
    encoder = target_layers(make_backbone("spad_unet"), has_decoder=False)
    assert set(encoder) == {name for name in unet if name.startswith("encoder.")}


@torch.no_grad()
def test_the_encoder_alone_is_adapted_as_it_is_within_a_backbone():
    for name in BACKBONES:
        backbone, x = make_backbone(name), random_image(6)
        encoder = encoder_of(backbone)
        adapter, whole = Adapter(encoder, rank=2, num_experts=2), Adapter(backbone, rank=2, num_experts=2)
        prefix = "vit." if name == "spad_vit" else "encoder."
        for key, value in adapter.state_dict().items():
            whole.state_dict()[key if key.startswith("router.") else prefix + key].copy_(value.normal_())
        assert close([final_tokens(adapt(encoder, adapter), x, 6)], [final_tokens(adapt(backbone, whole), x, 6)])


def test_factors_of_the_changes_go_without_weight_decay():
    adapter = make_adapter(make_backbone("spad_unet"), 2)
    decayed, kept = (group["params"] for group in parameter_groups(adapter, 0.1))
    assert [id(parameter) for parameter in decayed] == [id(adapter.router.to_experts.weight)]
    assert len(kept) == len(list(adapter.parameters())) - 1


def test_bad_sizes_and_networks_without_such_layers_are_refused():
    backbone = make_backbone("spad_unet")
    for rank, num_experts in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match=f"rank {rank} and number of experts {num_experts} must be at least 1"):
            Adapter(backbone, rank=rank, num_experts=num_experts)
    with pytest.raises(ValueError, match="Linear has no layer that an adapter could change"):
        Adapter(nn.Linear(1, 1), rank=1)
