"""Adapters: what a task changes of a frozen backbone, with few parameters, and without a copy of it.

LoRA (Hu et al. 2022) or a mixture of low-rank experts (arXiv 2603.00675) on the attention and patch embedding of a
SPAD-ViT, and on all SPAD convolutions of a SPAD U-Net. Any number of adapters may be in use on one backbone at a time:

    adapter = Adapter(backbone, rank=8)
    network = SegmentationNetwork(adapt(backbone, adapter), task)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

from .blocks import ConvNormAct
from .low_rank import AdaptedConv, AdaptedLinear, Layer, LowRank, change
from .routing import Router, Routing
from .spad_conv import SpadConv, SpadConvTranspose
from .vit import Attention, SpadViT

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class Adapter(nn.Module):
    """All that a task changes of a backbone: nothing when fresh, exactly.

    Its tensors are called as the layers that they change: `vit.blocks.0.attn.q_proj.up`. They are made where the
    backbone lies, in its dtype.

    Args:
        backbone: of which it becomes an adapter; not kept and not changed.
        rank: of each expert.
        num_experts: one is LoRA, which needs no router.
        has_decoder: change a U-Net's decoder too; classification does not run it.

    Raises:
        ValueError: if rank or number of experts is below one, or the backbone has no layer to change.
    """

    def __init__(self, backbone: nn.Module, *, rank: int, num_experts: int = 1, has_decoder: bool = True):
        super().__init__()
        if rank < 1 or num_experts < 1:
            raise ValueError(f"rank {rank} and number of experts {num_experts} must be at least 1")
        layers = target_layers(backbone, has_decoder=has_decoder)
        if not layers:
            raise ValueError(f"{type(backbone).__name__} has no layer that an adapter could change")
        self.rank, self.num_experts = rank, num_experts
        for name, layer in layers.items():
            plant(self, name, LowRank(layer, rank, num_experts))
        first = next(iter(layers.values()))  # patch embedding or stem: the router sees its channels
        self.router = Router(len(first.weight), num_experts) if num_experts > 1 else None
        self.to(first.weight)

    def low_ranks(self) -> dict[str, LowRank]:
        """Changes by the name of their layer in the backbone."""
        return {name: module for name, module in self.named_modules() if isinstance(module, LowRank)}


class RoutedEmbedding(nn.Module):
    """A ViT's patch embedding that asks the router: its token is the mean of the frozen embeddings over patches."""

    def __init__(self, layer: SpadConv, low_rank: LowRank, router: Router, routing: Routing):
        super().__init__()
        self.layer, self.low_rank, self.router, self.routing = layer, low_rank, router, routing

    def forward(self, x: Tensor, da: int) -> Tensor:
        """As the layer."""
        y = self.layer(x, da)
        self.routing.gates = self.router(y.mean((2, 3, 4)))
        return y + change(self.low_rank, x, da, self.layer, self.routing.gates)


class RoutedStem(nn.Module):
    """A U-Net's stem that asks the router: its token is the mean of the frozen stem's output over voxels."""

    def __init__(self, stem: ConvNormAct, low_rank: LowRank, router: Router, routing: Routing):
        super().__init__()
        self.stem, self.low_rank, self.router, self.routing = stem, low_rank, router, routing

    def forward(self, x: Tensor, da: int) -> Tensor:
        """As the stem."""
        y = self.stem.conv(x, da)
        self.routing.gates = self.router(self.stem.finish(y).mean((2, 3, 4)))
        return self.stem.finish(y + change(self.low_rank, x, da, self.stem.conv, self.routing.gates))


def adapt(backbone: ModuleType, adapter: Adapter) -> ModuleType:
    """A module of the backbone's structure that shares its parameters, with the adapter in the place of its layers.

    Parameters are those of the backbone and of the adapter themselves: what changes there changes here. Gradients go to
    the adapter alone: those of the backbone are switched off. The backbone computes what it did before.

    Save the adapter and the backbone, not this module: its tensors are theirs.
    """
    backbone.requires_grad_(False)
    shared: dict[int, object] = {id(tensor): tensor for tensor in chain(backbone.parameters(), backbone.buffers())}
    adapted = copy.deepcopy(backbone, shared)
    entry, routing = entry_of(adapted), None if adapter.router is None else Routing()
    for name, low_rank in adapter.low_ranks().items():
        if name == entry and adapter.router is not None and routing is not None:
            route(adapted, name, low_rank, adapter.router, routing)
        else:
            put(adapted, name, change_layer(adapted.get_submodule(name), low_rank, routing))
    return adapted


def change_layer(layer: nn.Module, low_rank: LowRank, routing: Routing | None) -> AdaptedLinear | AdaptedConv:
    """A layer with its change, for the layer's place."""
    if isinstance(layer, nn.Linear):
        return AdaptedLinear(layer, low_rank, routing)
    assert isinstance(layer, SpadConv | SpadConvTranspose)
    return AdaptedConv(layer, low_rank, routing)


def route(adapted: nn.Module, name: str, low_rank: LowRank, router: Router, routing: Routing) -> None:
    """Replace the first layer, or the U-Net's stem around it, by one that asks the router."""
    layer, above = adapted.get_submodule(name), name.rpartition(".")[0]
    stem = adapted.get_submodule(above)
    if isinstance(stem, ConvNormAct):
        put(adapted, above, RoutedStem(stem, low_rank, router, routing))
    else:
        assert isinstance(layer, SpadConv)
        put(adapted, name, RoutedEmbedding(layer, low_rank, router, routing))


@torch.no_grad()
def merge(backbone: ModuleType, adapter: Adapter) -> ModuleType:
    """A plain copy of the backbone with the changes added to its weights: as fast and large as without an adapter.

    Raises:
        ValueError: if the adapter has several experts, whose sum is another for each image.
    """
    if adapter.router is not None:
        raise ValueError(f"an adapter of {adapter.num_experts} experts cannot be merged: its router chooses by image")
    merged = copy.deepcopy(backbone)
    for name, low_rank in adapter.low_ranks().items():
        layer = merged.get_submodule(name)
        assert isinstance(layer, Layer)
        layer.weight += low_rank.change_of(layer)
    return merged


def gates_of(adapted: nn.Module) -> Tensor | None:
    """Gates (B, K) of the last forward pass in this thread, without gradient; None of an adapter without a router.

    `routing.expert_use` and `router_entropy` sum them up.

    Raises:
        RuntimeError: if there was no forward pass in this thread.
    """
    for module in adapted.modules():
        if isinstance(module, RoutedEmbedding | RoutedStem):
            return module.routing.read().detach()
    return None


def count_parameters(module: nn.Module) -> int:
    """Numbers in a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_share(adapter: nn.Module, whole: nn.Module) -> str:
    """`628,760 of 127,729,120 parameters, 0.49 %, 2.5 MB`, the last as it is stored.

    Args:
        whole: what the task runs: a backbone, or its encoder.
    """
    few, all_of_it = count_parameters(adapter), count_parameters(whole)
    size_bytes = sum(value.numel() * value.element_size() for value in adapter.state_dict().values())
    return f"{few:,} of {all_of_it:,} parameters, {100 * few / all_of_it:.2f} %, {size_bytes / 1e6:.1f} MB"


def target_layers(backbone: nn.Module, *, has_decoder: bool = True) -> dict[str, Layer]:
    """Layers that an adapter changes, by name: of a ViT its patch embedding and the four maps of each attention, and no
    convolution around it; of a U-Net all SPAD convolutions."""
    vits = [(name, module) for name, module in backbone.named_modules() if isinstance(module, SpadViT)]
    above, root = vits[0] if vits else ("", backbone)
    return {
        f"{above}.{name}" if above else name: layer
        for name, layer in maps_of(root)
        if has_decoder or not name.startswith("decoder.")
    }


def maps_of(root: nn.Module) -> Iterator[tuple[str, Layer]]:
    """SPAD convolutions and attentions' linear maps of a module, by name, in the order of computation."""
    for name, module in root.named_modules():
        if isinstance(module, SpadConv | SpadConvTranspose):
            yield name, module
        elif isinstance(module, Attention):
            for own_name, child in module.named_children():
                if isinstance(child, nn.Linear):
                    yield f"{name}.{own_name}", child


def entry_of(backbone: nn.Module) -> str:
    """Name of the first layer that sees the image: patch embedding or the stem's convolution."""
    return next(iter(target_layers(backbone)))


def plant(root: nn.Module, name: str, module: nn.Module) -> None:
    """Make a module a descendant by a name with dots, with empty modules on the way."""
    *above, last = name.split(".")
    for part in above:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def put(root: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a descendant."""
    above, _, last = name.rpartition(".")
    setattr(root.get_submodule(above), last, module)
