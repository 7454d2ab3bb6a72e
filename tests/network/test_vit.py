"""SPAD-ViT: sizes, parameters, masking, and the 2D network that it is on one slice."""

from __future__ import annotations

import pytest
import torch

from spadunet.network.vit import SpadViT


def small_vit(depth: int = 2) -> SpadViT:
    """Made for tests, in double precision; its tokens, positions and norms are large enough to count."""
    torch.manual_seed(0)
    vit = SpadViT(width=24, depth=depth, num_heads=2, hidden_width=32, position_grid=(2, 3, 3)).double()
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if "norm" in name or "ffn_ln" in name or name in ("cls_token", "pos_embed"):
                parameter.copy_(torch.randn_like(parameter))
    return vit


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "hidden_width", "num_parameters"),
    [(768, 12, 12, 2048, 94_930_944), (1024, 24, 16, 2730, 315_498_432)],
    ids=["base", "large"],
)
def test_parameter_counts_are_those_of_the_method(width, depth, num_heads, hidden_width, num_parameters):
    with torch.device("meta"):
        vit = SpadViT(width=width, depth=depth, num_heads=num_heads, hidden_width=hidden_width)
    assert sum(parameter.numel() for parameter in vit.parameters()) == num_parameters


@pytest.mark.parametrize("da", range(7))
@torch.no_grad()
def test_any_size_gives_one_token_for_each_begun_patch(da):
    vit = small_vit()
    patch_depth = [16, 8, 4, 2, 1, 1, 1][da]
    for size in ((1, 1, 1), (patch_depth + 1, 17, 40), (2 * patch_depth, 32, 16)):
        grid = tuple(-(-s // p) for s, p in zip(size, (patch_depth, 16, 16), strict=True))
        x = torch.rand(2, 3, *size, dtype=torch.double) * 2 - 1
        assert vit.embed(x, da).shape == (2, 24, *grid)
        tokens = vit(x, da)
        assert tokens.shape == (2, 1 + grid[0] * grid[1] * grid[2], 24)
        assert tokens.isfinite().all()
        assert torch.allclose(tokens[:1], vit(x[:1], da))
