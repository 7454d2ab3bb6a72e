"""SPAD-ViT: EVA-02's transformer behind a SPAD patch embedding, with additive 3D rotary positions.

Luo et al. 2024, section 4.4; blocks as in EVA-02 (Fang et al. 2023): pre-norm, q and v with a bias and k without,
SwiGLU with a norm inside. Letters: B batch, L tokens of a grid (d, h, w) in row-major order, C channels, N heads,
E channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .rope import Grid, Rotation, rotate, rotation_of
from .spad_conv import SpadConv
from .unet import INPUT_CHANNELS

PATCH_SIZE = 16
NORM_EPS = 1e-6  # EVA-02's
TOKEN_STD = 0.02  # cls token and positions (Dosovitskiy et al. 2021)


class Attention(nn.Module):
    """Multi-head self-attention over all tokens; queries and keys are turned by their positions."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)  # would add the same to all logits of a query
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, 1 + L, C) to the same shape."""
        q, k, v = (f(x).unflatten(-1, (self.num_heads, -1)) for f in (self.q_proj, self.k_proj, self.v_proj))
        q, k, v = (y.transpose(1, 2) for y in (rotate(q, rotation), rotate(k, rotation), v))  # (B, N, 1 + L, E)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, 1 + L, C)

    def weights_of_cls(self, x: Tensor, rotation: Rotation) -> Tensor:
        """How much the cls token takes from each token of (B, 1 + L, C), itself included: (B, N, 1 + L), sums of 1."""
        q, k = (f(x).unflatten(-1, (self.num_heads, -1)) for f in (self.q_proj, self.k_proj))
        q, k = rotate(q, rotation)[:, 0], rotate(k, rotation)  # (B, N, E), (B, 1 + L, N, E)
        logits = torch.einsum("bne,blne->bnl", q, k) * q.shape[-1] ** -0.5
        return logits.softmax(-1)


class SwiGLU(nn.Module):
    """Gated feed-forward network with a norm before its last map (Shazeer 2020; the norm is EVA-02's sub-LN)."""

    def __init__(self, width: int, hidden_width: int):
        super().__init__()
        self.w1 = nn.Linear(width, hidden_width)
        self.w2 = nn.Linear(width, hidden_width)
        self.ffn_ln = nn.LayerNorm(hidden_width, eps=NORM_EPS)
        self.w3 = nn.Linear(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1 + L, C) to the same shape."""
        return self.w3(self.ffn_ln(functional.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    """Attention and feed-forward, each added to its input."""

    def __init__(self, width: int, num_heads: int, hidden_width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = SwiGLU(width, hidden_width)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, 1 + L, C) to the same shape."""
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


class SpadViT(nn.Module):
    """The transformer backbone: one set of weights for every size and degree of anisotropy.

    A token covers 16×16 pixels and max(16 >> da, 1) slices. Any size of at least one voxel is accepted: zeros fill the
    last patches. With one slice at `spacing.MAX_DA` it is the 2D network, exactly.

    Linear maps start as PyTorch's do, uniform with a standard deviation of 1 / sqrt(3 · inputs): 0.021 for `base`, and
    right for narrower networks too, which a fixed 0.02 is not. Thanks to the norm before it, the last map of each
    feed-forward network then adds a third to the variance of the tokens, whatever the width: after 24 blocks they are
    about 3, which needs no scaling by depth.

    Args:
        hidden_width: channels inside the feed-forward network.
        position_grid: tokens along (d, h, w) of the learned absolute positions; resized to each input's grid.

    Raises:
        ValueError: if the width does not split into heads of whole pairs for rows and for columns.
    """

    def __init__(self, *, width: int, depth: int, num_heads: int, hidden_width: int, position_grid: Grid = (5, 10, 10)):
        super().__init__()
        if width % (4 * num_heads):
            raise ValueError(f"width {width} must be a multiple of four times num_heads, {4 * num_heads}")
        self.width, self.head_dim = width, width // num_heads
        self.patch_embed = SpadConv(INPUT_CHANNELS, width, kernel=PATCH_SIZE, stride=PATCH_SIZE, level=0)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, width, *position_grid))
        self.blocks = nn.ModuleList(Block(width, num_heads, hidden_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        for token in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(token, std=TOKEN_STD)

    def embed(self, x: Tensor, da: int) -> Tensor:
        """(B, 3, D, H, W) in [-1, 1] to patch embeddings without position, (B, C, d, h, w)."""
        return self.patch_embed(x, da)

    def forward(self, x: Tensor, da: int, masked: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """Final tokens, normed, the cls token first.

        Args:
            x: (B, 3, D, H, W) in [-1, 1].
            masked: (B, L) bool, the patches that are hidden: `mask_token` (C,) takes the place of their embeddings,
                before the absolute position is added.

        Returns:
            (B, 1 + L, C).
        """
        tokens, rotation = self.start(self.embed(x, da), masked, mask_token)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self.norm(tokens)

    def look(self, x: Tensor, da: int) -> Tensor:
        """How much of each patch the final cls token takes in the last block, (B, d, h, w): the mean over heads.

        Without what it takes of itself: the weights of an image sum to one (Caron et al. 2021, "Emerging properties in
        self-supervised vision transformers", figure 1).
        """
        embeddings = self.embed(x, da)
        tokens, rotation = self.start(embeddings)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens, rotation)
        assert isinstance(last, Block)
        weights = last.attn.weights_of_cls(last.norm1(tokens), rotation).mean(1)[:, 1:]  # (B, L)
        return (weights / weights.sum(1, keepdim=True)).unflatten(1, embeddings.shape[2:])  # (B, d, h, w)

    def features(self, x: Tensor, da: int, blocks: Sequence[int]) -> list[Tensor]:
        """Outputs of the blocks of these numbers, each (B, C, d, h, w), without the final norm and the cls token."""
        return self.run(x, da, blocks, max(blocks) + 1)[0]

    def features_and_tokens(self, x: Tensor, da: int, blocks: Sequence[int]) -> tuple[list[Tensor], Tensor]:
        """What `features` and `forward` give, in one pass."""
        features, tokens = self.run(x, da, blocks, len(self.blocks))
        return features, self.norm(tokens)

    def run(self, x: Tensor, da: int, blocks: Sequence[int], num_blocks: int) -> tuple[list[Tensor], Tensor]:
        """Outputs of some of the first blocks, (B, C, d, h, w), and tokens after the last of these, (B, 1 + L, C)."""
        embeddings = self.embed(x, da)
        tokens, rotation = self.start(embeddings)
        outputs: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks[:num_blocks]):
            tokens = block(tokens, rotation)
            if number in blocks:
                outputs[number] = tokens[:, 1:].transpose(1, 2).unflatten(2, embeddings.shape[2:])  # (B, C, d, h, w)
        return [outputs[number] for number in blocks], tokens

    def start(
        self, embeddings: Tensor, masked: Tensor | None = None, mask_token: Tensor | None = None
    ) -> tuple[Tensor, Rotation]:
        """Patch embeddings (B, C, d, h, w) to the first block's tokens (B, 1 + L, C), and how they are turned."""
        depth, height, width = embeddings.shape[2:]
        grid = (depth, height, width)
        tokens = embeddings.flatten(2).transpose(1, 2)  # (B, L, C)
        if masked is not None:
            assert mask_token is not None
            tokens = torch.where(masked[..., None], mask_token.to(tokens.dtype), tokens)
        tokens = tokens + resize_positions(self.pos_embed, grid).flatten(2).transpose(1, 2)  # (B, L, C)
        tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, 1 + L, C)
        return tokens, rotation_of(grid, self.head_dim, tokens.dtype, tokens.device)


def resize_positions(positions: Tensor, grid: Grid) -> Tensor:
    """Absolute positions (1, C, d, h, w) on another grid: averaged along axes that shrink, then interpolated linearly
    along those that grow."""
    shape = positions.shape[2:]
    shrunk = [min(sizes) for sizes in zip(shape, grid, strict=True)]
    if shrunk != list(shape):
        positions = functional.interpolate(positions, size=shrunk, mode="area")
    if shrunk != list(grid):
        positions = functional.interpolate(positions, size=grid, mode="trilinear")
    return positions
