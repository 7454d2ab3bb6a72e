"""Classification of whole studies: a task's channel map, a pooling of tokens over all views, one linear layer.

Letters as in `spad_conv`; K outputs, classes or findings; V views of a study, images of any size and spacing; N tokens
of a view that are pooled, C channels of a token; (d, h, w) the grid of a view's patches, N = d·h·w where these are
pooled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ..spacing import Shape
from .heads import enter, make_channel_map
from .pyramid import TOKEN_LEVEL, SpadViTUNet
from .unet import Encoder, SpadUNet
from .vit import SpadViT

Pooling = Literal["cls", "mean", "attention"]
"""Which tokens count how much:

- `cls`: the cls token alone, and each view the same (Luo et al. 2024, section 5.2);
- `mean`: each patch of a view the same, and each view the same;
- `attention`: each patch of all views what a learned function of it says (Ilse et al. 2018).
"""

View = tuple[Tensor, int]
"""The same view of B studies, (B, C, D, H, W) in [-1, 1], and its degree of anisotropy."""

Encode = Callable[[nn.Module, Tensor, int], Tensor]
"""Backbone, (B, 3, D, H, W) and degree of anisotropy to final tokens."""

ATTENTION_WIDTH = 128  # as Ilse et al. 2018 have it


class GatedAttention(nn.Module):
    """A logit for each token: w · (tanh(V h) * sigmoid(U h)).

    Ilse et al. 2018, "Attention-based deep multiple instance learning", equation 9. It sees one token at a time, so
    that the order of tokens and views cannot matter.
    """

    def __init__(self, width: int):
        super().__init__()
        self.values = nn.Linear(width, ATTENTION_WIDTH)
        self.gates = nn.Linear(width, ATTENTION_WIDTH)
        self.out = nn.Linear(ATTENTION_WIDTH, 1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, N)."""
        return self.out(self.values(tokens).tanh() * self.gates(tokens).sigmoid()).squeeze(-1)


class ClassificationTask(nn.Module):
    """A 1×1×1 map from named channels to the backbone's three, a pooling of tokens, and one linear layer.

    Args:
        width: channels of the backbone's final tokens, or of the U-Net's deepest map.
        is_colour: as `make_channel_map` takes it.
    """

    def __init__(self, num_channels: int, num_outputs: int, width: int, pooling: Pooling, *, is_colour: bool = False):
        super().__init__()
        self.pooling = pooling
        self.channel_map = make_channel_map(num_channels, is_colour=is_colour)
        self.attention = GatedAttention(width) if pooling == "attention" else None
        self.head = nn.Linear(width, num_outputs)

    def enter(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) in [-1, 1], 0 where a channel is missing, to what the backbone sees, (B, 3, D, H, W)."""
        return enter(x, self.channel_map)

    def choose(self, tokens: Tensor, num_leading: int) -> Tensor:
        """Of a backbone's tokens (B, `num_leading` + d·h·w, C), cls first where it has one, those that are pooled."""
        return tokens[:, :1] if self.pooling == "cls" else tokens[:, num_leading:]

    def weigh(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """What each token counts: for each view (B, N, C) its (B, N); the weights of a study sum to one."""
        numbers = [view.shape[1] for view in tokens]
        if self.attention is None:
            shares = [1 / (len(tokens) * number) for number in numbers]
            dtype = torch.promote_types(tokens[0].dtype, torch.float32)
            return [
                view.new_full(view.shape[:2], share, dtype=dtype) for view, share in zip(tokens, shares, strict=True)
            ]
        logits = torch.cat([self.attention(view) for view in tokens], dim=1)  # (B, sum of N)
        return list(logits.softmax(1).split(numbers, dim=1))

    def forward(self, tokens: Sequence[Tensor]) -> Tensor:
        """Pooled tokens of a study's views, each (B, N, C), to logits (B, K)."""
        weights = self.weigh(tokens)
        pooled = [(w[..., None] * view).sum(1) for w, view in zip(weights, tokens, strict=True)]  # V times (B, C)
        return self.head(torch.stack(pooled).sum(0))


class ClassificationNetwork(nn.Module):
    """A backbone with one classification task: the network that sees studies.

    Of a backbone it runs `encoder_of` alone. A view may have any size of at least one voxel.

    Args:
        encode: as `final_tokens`, which it is where None.

    Raises:
        ValueError: if the task pools a cls token that the backbone lacks.
    """

    def __init__(self, backbone: nn.Module, task: ClassificationTask, *, encode: Encode | None = None):
        super().__init__()
        if task.pooling == "cls" and num_leading_tokens(backbone) == 0:
            raise ValueError("pooling cls: a U-Net has no cls token; use mean or attention")
        self.backbone, self.task, self.encode = backbone, task, encode or final_tokens

    def forward(self, views: Sequence[View]) -> Tensor:
        """Logits (B, K) of B studies of the same V ≥ 1 views; their order does not matter.

        Studies of one view, all of one size and degree of anisotropy, are a plain batch: `network([(x, da)])`. Studies
        that differ go one after the other, each with B = 1; nothing in a network depends on the rest of its batch.
        """
        return self.task([self.embed(x, da) for x, da in views])

    def embed(self, x: Tensor, da: int) -> Tensor:
        """A view (B, C, D, H, W) to the tokens that the task pools, (B, N, C)."""
        return self.task.choose(self.encode(self.backbone, self.task.enter(x), da), num_leading_tokens(self.backbone))

    def attention_weights(self, views: Sequence[View]) -> list[Tensor]:
        """What each patch counts: for each view (B, d, h, w); the weights of a study sum to one over all its views.

        Of a cls token what it takes of each patch in the ViT's last block (`SpadViT.look`), each view the same. They
        tell where the network looks, not why: `spread` brings them to voxels.
        """
        if self.task.pooling == "cls":
            vit = encoder_of(self.backbone)
            assert isinstance(vit, SpadViT)
            return [vit.look(self.task.enter(x), da) / len(views) for x, da in views]
        weights = self.task.weigh([self.embed(x, da) for x, da in views])
        grids = [grid_of(x, patch_shape(self.backbone, da)) for x, da in views]
        return [w.unflatten(1, grid) for w, grid in zip(weights, grids, strict=True)]


def encoder_of(backbone: nn.Module) -> SpadViT | Encoder:
    """The part of a backbone that classification runs: the ViT without pyramid, convolutions and decoder, or the
    U-Net's encoder. One of these itself is given back.

    Raises:
        TypeError: if it is no backbone.
    """
    if isinstance(backbone, SpadViTUNet):
        return backbone.vit
    if isinstance(backbone, SpadUNet):
        return backbone.encoder
    if isinstance(backbone, SpadViT | Encoder):
        return backbone
    raise TypeError(f"{type(backbone).__name__} is no backbone")


def train_encoder_alone(backbone: nn.Module) -> None:
    """Gradients for what classification runs, and for nothing else of a backbone.

    The final norm of the ViT, which segmentation has no use for and keeps fixed, is part of it.
    """
    backbone.requires_grad_(False)
    encoder_of(backbone).requires_grad_(True)


def num_leading_tokens(backbone: nn.Module) -> int:
    """Tokens before those of the patches: the cls token of a ViT."""
    return 1 if isinstance(encoder_of(backbone), SpadViT) else 0


def final_tokens(backbone: nn.Module, x: Tensor, da: int) -> Tensor:
    """(B, 3, D, H, W) to a ViT's final normed tokens (B, 1 + d·h·w, C), or a U-Net's deepest map, (B, d·h·w, C)."""
    encoder = encoder_of(backbone)
    if isinstance(encoder, SpadViT):
        return encoder(x, da)
    return encoder(x, da)[-1].flatten(2).transpose(1, 2)


def patch_shape(backbone: nn.Module, da: int) -> Shape:
    """Voxels (D, H, W) that a token stands for: halved as often as its level says, in depth where none is pending.

    A voxel of the U-Net's deepest map has seen more than these: they are the middle of what it has seen.
    """
    encoder = encoder_of(backbone)
    level = TOKEN_LEVEL if isinstance(encoder, SpadViT) else len(encoder.downs)
    side = 2**level
    return max(side >> da, 1), side, side


def grid_of(x: Tensor, patch: Shape) -> Shape:
    """Patches (d, h, w) of an image (B, C, D, H, W), those that hang over its far end included."""
    depth, height, width = (-(-size // side) for size, side in zip(x.shape[2:], patch, strict=True))
    return depth, height, width


def spread(weights: Tensor, size: Shape, patch: Shape) -> Tensor:
    """Weights of patches (B, d, h, w) over the voxels of their image, (B, D, H, W), with the same sum: a heat map.

    Each voxel has its patch's weight, divided by the voxels of the patch inside the image. It is not interpolated,
    which would show detail that the network does not have; the sum over a patch's slices is what the network gave them.

    Args:
        size: (D, H, W) of the image as the network saw it.
        patch: as `patch_shape` says.
    """
    for axis, (length, side) in enumerate(zip(size, patch, strict=True), start=1):
        starts = torch.arange(weights.shape[axis], device=weights.device) * side
        num_inside = (length - starts).clamp_max(side).to(weights.dtype)
        share = weights / num_inside.view([-1 if number == axis else 1 for number in range(weights.ndim)])
        weights = share.repeat_interleave(side, axis).narrow(axis, 0, length)
    return weights
