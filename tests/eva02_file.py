"""Files in the layout of the published EVA-02, of random numbers."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def file_shapes(width: int, depth: int, hidden_width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of eva02_B_pt_in21k_p14.pt (768, 12, 2048) and eva02_L_pt_m38m_p14.pt (1024, 24, 2730)."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "mask_token": (1, 1, width),
        "pos_embed": (1, 257, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "rope.freqs_cos": (256, 64),
        "rope.freqs_sin": (256, 64),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "lm_head.weight": (1024, width),
        "lm_head.bias": (1024,),
    }
    for number in range(depth):
        block = f"blocks.{number}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for name in "qkv":
            shapes[f"{block}.attn.{name}_proj.weight"] = (width, width)
        shapes |= {f"{block}.attn.q_bias": (width,), f"{block}.attn.v_bias": (width,)}
        shapes |= {f"{block}.attn.rope.freqs_cos": (256, 64), f"{block}.attn.rope.freqs_sin": (256, 64)}
        shapes |= {f"{block}.attn.proj.weight": (width, width), f"{block}.attn.proj.bias": (width,)}
        for name in ("w1", "w2"):
            shapes |= {f"{block}.mlp.{name}.weight": (hidden_width, width), f"{block}.mlp.{name}.bias": (hidden_width,)}
        shapes |= {f"{block}.mlp.ffn_ln.weight": (hidden_width,), f"{block}.mlp.ffn_ln.bias": (hidden_width,)}
        shapes |= {f"{block}.mlp.w3.weight": (width, hidden_width), f"{block}.mlp.w3.bias": (width,)}
    return shapes


def random_file(width: int, depth: int, hidden_width: int) -> dict[str, Tensor]:
    """Numbers of about the size that keeps signals of about one."""
    torch.manual_seed(0)
    shapes = file_shapes(width, depth, hidden_width)
    return {name: torch.randn(shape) / math.sqrt(math.prod(shape[1:]) or 1) for name, shape in shapes.items()}
