"""A backbone's and a preset's name to a network, the same for every dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .classify import ClassificationTask, Pooling
from .discriminator import SpadDiscriminator
from .heads import SegmentationTask
from .masked import MaskedUNet, MaskedViT
from .pyramid import SpadViTUNet
from .tokenizer import NUM_TOKENS, SpadTokenizer
from .unet import SpadUNet
from .vit import SpadViT


@dataclass(frozen=True, kw_only=True)
class UNetSize:
    """Channels and encoder blocks by level, and how many decoded levels have a head."""

    widths: tuple[int, ...]
    num_blocks: tuple[int, ...]
    num_heads: int = 4
    """Deep supervision on four levels, as in SPAD-Nets' released settings."""


UNET_PRESETS = {
    "tiny": UNetSize(widths=(16, 32, 64, 96, 128, 128), num_blocks=(0, 1, 1, 1, 1, 1), num_heads=1),
    "small": UNetSize(widths=(24, 48, 96, 160, 224, 224), num_blocks=(1, 2, 2, 2, 2, 2)),
    "base": UNetSize(widths=(32, 64, 128, 256, 320, 320), num_blocks=(1, 3, 4, 6, 6, 6)),
    "large": UNetSize(widths=(48, 96, 192, 384, 512, 512), num_blocks=(1, 3, 4, 6, 6, 6)),
}
"""Chosen by the user's budget, never by the dataset.

`tiny` is made for minutes on a processor, where deep supervision holds the finest level back: on Hippocampus, after 500
steps of four patches, validation Dice is 0.868 with it and 0.876 without.
"""


@dataclass(frozen=True, kw_only=True)
class ViTSize:
    """Channels, blocks, attention heads, and channels inside the feed-forward networks."""

    width: int
    depth: int
    num_heads: int
    hidden_width: int


VIT_PRESETS = {
    "tiny": ViTSize(width=192, depth=6, num_heads=3, hidden_width=512),
    "small": ViTSize(width=384, depth=12, num_heads=6, hidden_width=1024),
    "base": ViTSize(width=768, depth=12, num_heads=12, hidden_width=2048),
    "large": ViTSize(width=1024, depth=24, num_heads=16, hidden_width=2730),
}
"""`base` and `large` are EVA-02's."""


def build_unet(preset: str) -> SpadUNet:
    """The SPAD U-Net of a preset.

    Raises:
        KeyError: if there is no such preset.
    """
    size = UNET_PRESETS[preset]
    return SpadUNet(size.widths, size.num_blocks)


def build_vit(preset: str) -> SpadViT:
    """The SPAD-ViT of a preset, as it is pre-trained.

    Raises:
        KeyError: if there is no such preset.
    """
    size = VIT_PRESETS[preset]
    return SpadViT(width=size.width, depth=size.depth, num_heads=size.num_heads, hidden_width=size.hidden_width)


def build_vit_unet(preset: str) -> SpadViTUNet:
    """The SPAD-ViT of a preset with pyramid, convolution path and the decoder of the preset's U-Net.

    Raises:
        KeyError: if there is no such preset.
    """
    size = UNET_PRESETS[preset]
    num_blocks = [min(number, 1) for number in size.num_blocks[:2]]
    return SpadViTUNet(build_vit(preset), size.widths, num_blocks)


Backbone = SpadUNet | SpadViTUNet
BACKBONES: dict[str, Callable[[str], Backbone]] = {"spad_unet": build_unet, "spad_vit": build_vit_unet}
"""Every backbone that a model can have, by the name in its model.json."""


def build_backbone(backbone: str, preset: str) -> Backbone:
    """A backbone for segmentation: `forward(x, da)` gives decoded maps, finest first, with `widths` channels.

    Raises:
        KeyError: if there is no such backbone or preset.
    """
    return BACKBONES[backbone](preset)


def build_task(
    num_channels: int, num_outputs: int, backbone: str, preset: str, *, is_colour: bool = False
) -> SegmentationTask:
    """A fresh segmentation task for a backbone; every backbone's decoder is as wide as the U-Net of its preset.

    Args:
        is_colour: the channels are red, green and blue, which enter the backbone as they are.

    Raises:
        KeyError: if there is no such backbone or preset.
    """
    if backbone not in BACKBONES:
        raise KeyError(backbone)
    size = UNET_PRESETS[preset]
    return SegmentationTask(num_channels, num_outputs, size.widths[: size.num_heads], is_colour=is_colour)


def choose_pooling(backbone: str, pooling: Pooling | None = None) -> Pooling:
    """Which tokens count: unless asked for, the cls token of a ViT, as the paper has it, the mean of a U-Net.

    Raises:
        KeyError: if there is no such backbone.
        ValueError: if it is not pooled so.
    """
    if backbone not in BACKBONES:
        raise KeyError(backbone)
    if backbone == "spad_vit":
        return pooling or "cls"
    if pooling == "cls":
        raise ValueError("pooling cls: a U-Net has no cls token; use mean or attention")
    return pooling or "mean"


def build_classification_task(
    num_channels: int,
    num_outputs: int,
    backbone: str,
    preset: str,
    pooling: Pooling | None = None,
    *,
    is_colour: bool = False,
) -> ClassificationTask:
    """A fresh classification task for a backbone.

    Args:
        pooling: as `choose_pooling` takes it.
        is_colour: as `build_task` takes it.

    Raises:
        KeyError: if there is no such backbone or preset.
        ValueError: if the backbone is not pooled so.
    """
    chosen = choose_pooling(backbone, pooling)
    width = VIT_PRESETS[preset].width if backbone == "spad_vit" else UNET_PRESETS[preset].widths[-1]
    return ClassificationTask(num_channels, num_outputs, width, chosen, is_colour=is_colour)


TOKENIZER_WIDTHS = {"tiny": (32, 64, 128), "small": (64, 128, 256), "base": (128, 256, 512)}
"""Channels of the tokenizer, and of its discriminator, by preset. `base` is the paper's; it has no larger one."""


def build_tokenizer(preset: str) -> SpadTokenizer:
    """The visual tokenizer of a preset: always 1,024 tokens.

    Raises:
        KeyError: if there is no such preset.
    """
    return SpadTokenizer(TOKENIZER_WIDTHS[preset])


def build_discriminator(preset: str) -> SpadDiscriminator:
    """The discriminator that the tokenizer of a preset is trained against.

    Raises:
        KeyError: if there is no such preset.
    """
    return SpadDiscriminator(TOKENIZER_WIDTHS[preset])


def build_masked(backbone: str, preset: str) -> MaskedViT | MaskedUNet:
    """What of a backbone is pre-trained, with a head that guesses the tokens of masked patches.

    Its tensors `vit.*`, or `encoder.*` and `decoder.*`, have the names and shapes that they have in `build_backbone`.

    Raises:
        KeyError: if there is no such backbone or preset.
    """
    builders: dict[str, Callable[[str], MaskedViT | MaskedUNet]] = {
        "spad_unet": build_masked_unet,
        "spad_vit": build_masked_vit,
    }
    return builders[backbone](preset)


def build_masked_vit(preset: str) -> MaskedViT:
    """All of the SPAD-ViT."""
    return MaskedViT(build_vit(preset), NUM_TOKENS)


def build_masked_unet(preset: str) -> MaskedUNet:
    """All of the SPAD U-Net."""
    return MaskedUNet(build_unet(preset), NUM_TOKENS)
