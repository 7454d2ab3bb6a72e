"""The published EVA-02 weights, 2D with 14×14 patches, as those of a SPAD-ViT (Fang et al. 2023).

Base and Large, as pre-trained by masked image modelling: their files name the tensors alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from torch import Tensor

from .inflate import fold_normalisation, inflate_kernel, resize_kernel
from .vit import PATCH_SIZE, SpadViT, resize_positions

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

UNUSED = re.compile(r"lm_head\.|mask_token$|rope\.|.*\.rope\.")
"""Of the file: the head and token of its own pre-training, which is no part of a SPAD-ViT, and the angles."""

INFLATED = ("patch_embed.weight", "patch_embed.bias", "pos_embed")
"""Of the SPAD-ViT: changed on the way from 2D to 3D. All others are as in the file, but for the cls token, to which its
position is added."""


def from_eva02(state: Mapping[str, Tensor], vit: SpadViT) -> dict[str, Tensor]:
    """All tensors of a SPAD-ViT, in float32, from those of an EVA-02 file.

    The patch embedding is drawn at 16×16 pixels, spread over depth, and takes images in [-1, 1] instead of normalised
    ones. Positions are the same at each depth, resized to the network's own grid; the cls token's (index 0) is added to
    it. At one slice the network is EVA-02.

    Args:
        state: by the names in the file, without any prefix.
        vit: of the width, depth and heads of the file's network; not changed.

    Raises:
        ValueError: if a tensor is missing, of another shape than the network's, or unknown.
    """
    expected = eva02_shapes(vit)
    for name, shape in expected.items():
        if name not in state:
            raise ValueError(
                f"lacks {name}; give an EVA-02 Base or Large as pre-trained, for example eva02_B_pt_in21k_p14"
            )
        found = tuple(state[name].shape)
        if name == "pos_embed" and len(found) == 3 and is_square(found[1] - 1):
            shape = (1, found[1], vit.width)
        if found != shape:
            raise ValueError(f"{name} has shape {found}, expected {shape}; EVA-02-B fits the preset base, L large")
    if unknown := [name for name in state if name not in expected and not UNUSED.match(name)]:
        raise ValueError(f"{unknown[0]} is no tensor of an EVA-02 as pre-trained; give such a file")
    tensors = {name: value.float() for name, value in state.items() if name in expected}
    weight, bias = tensors.pop("patch_embed.proj.weight"), tensors.pop("patch_embed.proj.bias")
    weight, bias = fold_normalisation(resize_kernel(weight, PATCH_SIZE), bias, IMAGENET_MEAN, IMAGENET_STD)
    positions = tensors.pop("pos_embed")  # (1, 1 + side², C)
    cls_token = tensors.pop("cls_token") + positions[:, :1]
    side = math.isqrt(positions.shape[1] - 1)
    grid = positions[:, 1:].transpose(1, 2).unflatten(2, (1, side, side))  # (1, C, 1, side, side)
    depth, height, width = vit.pos_embed.shape[2:]
    return {
        "patch_embed.weight": inflate_kernel(weight, PATCH_SIZE),
        "patch_embed.bias": bias,
        "cls_token": cls_token,
        "pos_embed": resize_positions(grid, (depth, height, width)),
        **{our_name(name): value for name, value in tensors.items()},
    }


def eva02_shapes(vit: SpadViT) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the file of an EVA-02 as large as this network, of 14×14 patches and 16×16 positions."""
    own = {name: tuple(value.shape) for name, value in vit.state_dict().items()}
    shared = {their_name(name): shape for name, shape in own.items() if name.startswith(("blocks.", "norm."))}
    return {
        "cls_token": (1, 1, vit.width),
        "pos_embed": (1, 1 + 16 * 16, vit.width),
        "patch_embed.proj.weight": (vit.width, 3, 14, 14),
        "patch_embed.proj.bias": (vit.width,),
        **shared,
    }


def our_name(name: str) -> str:
    """`attn.q_bias` is `attn.q_proj.bias` here."""
    return re.sub(r"attn\.([qv])_bias$", r"attn.\1_proj.bias", name)


def their_name(name: str) -> str:
    """Inverse of `our_name`."""
    return re.sub(r"attn\.([qv])_proj\.bias$", r"attn.\1_bias", name)


def is_square(number: int) -> bool:
    """True for 1, 4, 9, …"""
    return number > 0 and math.isqrt(number) ** 2 == number
