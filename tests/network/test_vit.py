"""SPAD-ViT: sizes, parameters, masking, and the 2D network that it is on one slice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from spadunet.network.spad_conv import to_static
from spadunet.network.vit import Attention, SpadViT, SwiGLU, resize_positions
from spadunet.spacing import MAX_DA

ALL_DA = range(MAX_DA + 1)
PATCH_DEPTHS = [16, 8, 4, 2, 1, 1, 1]


def make_vit(depth: int = 2) -> SpadViT:
    """Made for tests, in double precision; its tokens, positions and norms are large enough to count."""
    torch.manual_seed(0)
    vit = SpadViT(width=24, depth=depth, num_heads=2, hidden_width=32, position_grid=(2, 3, 3)).double()
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if "norm" in name or "ffn_ln" in name or name in ("cls_token", "pos_embed"):
                parameter.copy_(torch.randn_like(parameter))
    return vit


def random_image(*size: int, num_images: int = 2) -> Tensor:
    return torch.rand(num_images, 3, *size, dtype=torch.double) * 2 - 1


# --- Sizes


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "hidden_width", "num_parameters"),
    [(768, 12, 12, 2048, 94_930_944), (1024, 24, 16, 2730, 315_498_432)],
    ids=["base", "large"],
)
def test_parameter_counts_are_those_of_the_method(width, depth, num_heads, hidden_width, num_parameters):
    with torch.device("meta"):
        vit = SpadViT(width=width, depth=depth, num_heads=num_heads, hidden_width=hidden_width)
    assert sum(parameter.numel() for parameter in vit.parameters()) == num_parameters


@pytest.mark.parametrize("da", ALL_DA)
@torch.no_grad()
def test_any_size_gives_one_token_for_each_begun_patch(da):
    vit, patch_depth = make_vit(), PATCH_DEPTHS[da]
    for size in ((1, 1, 1), (patch_depth + 1, 17, 40), (2 * patch_depth, 32, 16)):
        grid = tuple(-(-s // p) for s, p in zip(size, (patch_depth, 16, 16), strict=True))
        x = random_image(*size)
        assert vit.embed(x, da).shape == (2, 24, *grid)
        tokens = vit(x, da)
        assert tokens.shape == (2, 1 + grid[0] * grid[1] * grid[2], 24)
        assert tokens.isfinite().all()
        assert torch.allclose(tokens[:1], vit(x[:1], da))  # images of a batch do not mix


@pytest.mark.parametrize(("da", "depth"), list(enumerate([80, 40, 20, 10, 5, 1])))
@torch.no_grad()
def test_the_papers_crops_have_500_tokens_and_one_slice_100(da, depth):
    vit = SpadViT(width=8, depth=0, num_heads=1, hidden_width=8)
    assert vit.embed(torch.zeros(1, 3, depth, 160, 160), da).shape == (1, 8, 5 if da < 5 else 1, 10, 10)


def test_heads_that_do_not_split_into_pairs_for_rows_and_columns_are_refused():
    with pytest.raises(ValueError, match="width 20 must be a multiple of four times num_heads, 8"):
        SpadViT(width=20, depth=1, num_heads=2, hidden_width=8)


# --- One slice is a 2D image


def turn_2d(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """EVA-02's rotary embedding of (B, N, L, E): rows turn the first half, columns the second, pairs are neighbours."""
    half = x.shape[-1] // 2
    frequencies = 10000.0 ** (-torch.arange(0, half, 2, dtype=x.dtype) / half)
    rows, columns = torch.cartesian_prod(*(torch.arange(size, dtype=x.dtype) for size in grid)).unbind(1)
    angles = torch.cat([rows[:, None] * frequencies, columns[:, None] * frequencies], dim=1)
    cos, sin = (y.repeat_interleave(2, dim=1) for y in (angles.cos(), angles.sin()))
    return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2) * sin


def vit_2d(vit: SpadViT, image: Tensor) -> Tensor:
    """The 2D vision transformer with the same weights, (B, 3, H, W): nothing in it knows of depth."""
    p = dict(vit.named_parameters())
    x = functional.conv2d(image, p["patch_embed.weight"].sum(2), p["patch_embed.bias"], stride=16)
    grid, width = x.shape[2:], x.shape[1]
    positions = functional.interpolate(p["pos_embed"].mean(2), size=grid, mode="bilinear")
    x = (x + positions).flatten(2).transpose(1, 2)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], dim=1)

    def norm(y: Tensor, name: str) -> Tensor:
        return functional.layer_norm(y, y.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    def linear(y: Tensor, name: str) -> Tensor:
        return functional.linear(y, p[f"{name}.weight"], p.get(f"{name}.bias"))

    num_heads = vit.blocks[0].attn.num_heads
    for number in range(len(vit.blocks)):
        block = f"blocks.{number}"
        y = norm(x, f"{block}.norm1")
        q, k, v = (linear(y, f"{block}.attn.{n}_proj").unflatten(2, (num_heads, -1)).transpose(1, 2) for n in "qkv")
        q, k = (torch.cat([z[:, :, :1], turn_2d(z[:, :, 1:], grid)], dim=2) for z in (q, k))
        attention = (q @ k.transpose(2, 3) / (width // num_heads) ** 0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
        y = norm(x, f"{block}.norm2")
        y = functional.silu(linear(y, f"{block}.mlp.w1")) * linear(y, f"{block}.mlp.w2")
        x = x + linear(norm(y, f"{block}.mlp.ffn_ln"), f"{block}.mlp.w3")
    return norm(x, "norm")


@pytest.mark.parametrize("da", [4, 5, MAX_DA])
@torch.no_grad()
def test_one_slice_equals_the_2d_network(da):
    """From DA 4 on, where a patch is one slice deep. On grids as large as the positions', and larger."""
    vit = make_vit()
    for height, width in ((48, 48), (64, 80)):
        image = random_image(1, height, width)
        assert torch.allclose(vit(image, da), vit_2d(vit, image[:, :, 0]), atol=1e-12)


@torch.no_grad()
def test_slices_of_a_deep_image_are_not_2d_images():
    vit = make_vit()
    image = random_image(2, 48, 48)
    assert not torch.allclose(vit(image, 4)[:, 1:10], vit_2d(vit, image[:, :, 0])[:, 1:], atol=1e-2)


# --- Parts


@torch.no_grad()
def test_attention_without_a_key_bias_ignores_what_one_would_add():
    """A bias on the keys adds the same to all logits of a query where nothing is turned: softmax does not see it."""
    torch.manual_seed(0)
    attention = Attention(8, 2).double()
    still = torch.stack([torch.ones(5, 1, 2), torch.zeros(5, 1, 2)], dim=-1).double()
    x = torch.randn(1, 5, 8).double()
    expected = attention(x, still)
    k_proj = torch.nn.Linear(8, 8).double()
    k_proj.weight.copy_(attention.k_proj.weight)
    attention.k_proj = k_proj
    assert torch.allclose(attention(x, still), expected)


@torch.no_grad()
def test_feed_forward_by_hand():
    """One channel to two hidden ones: silu(1) · 2 and silu(-1) · 2, normed to ±1, 3 · 1 + 5 · -1 + 7."""
    mlp = SwiGLU(1, 2)
    for layer, weight, bias in (
        (mlp.w1, [[1.0], [-1.0]], [0.0, 0.0]),
        (mlp.w2, [[1.0], [1.0]], [1.0, 1.0]),
        (mlp.w3, [[3.0, 5.0]], [7.0]),
    ):
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    assert mlp(torch.ones(1, 1, 1)).item() == pytest.approx(5, abs=1e-4)


def test_positions_are_averaged_where_the_grid_is_smaller_and_interpolated_where_it_is_larger():
    positions = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 1, 2)  # 0 1 2 3 along depth
    assert resize_positions(positions, (4, 1, 2)) is positions
    assert resize_positions(positions, (2, 1, 2))[0, 0, :, 0, 0].tolist() == [0.5, 2.5]
    assert resize_positions(positions, (1, 1, 2))[0, 0, :, 0, 0].tolist() == [1.5]
    mixed = resize_positions(positions, (2, 3, 1))
    assert mixed[0, 0].tolist() == [[[0.5]] * 3, [[2.5]] * 3]
    grown = resize_positions(positions, (8, 1, 2))[0, 0, :, 0, 0]
    assert grown.tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


# --- Masking and features


@torch.no_grad()
def test_masked_patches_cannot_be_seen_and_the_rest_can():
    vit, token = make_vit(), torch.randn(24, dtype=torch.double)
    x = random_image(4, 32, 48)  # at DA 2 one token deep, 2×3 tokens
    masked = torch.zeros(2, 6, dtype=torch.bool)
    masked[0, 4] = masked[1, 0] = True
    expected = vit(x, 2, masked, token)
    other = x.clone()
    other[0, :, :, 16:, 16:32] = 0.5
    other[1, :, :, :16, :16] = -0.5
    assert torch.equal(vit(other, 2, masked, token), expected)
    other[0, :, :, 16:, 32:] = 0.5
    assert not torch.allclose(vit(other, 2, masked, token), expected, atol=1e-3)


@torch.no_grad()
def test_a_mask_token_takes_the_embeddings_place_before_the_position_is_added():
    vit, token = make_vit(depth=0), torch.full((24,), 10.0, dtype=torch.double)
    vit.norm = torch.nn.Identity()
    x = random_image(2, 32, 48, num_images=1)
    masked = torch.tensor([[False, True, False, False, False, True]])
    tokens = vit(x, 3, masked, token)[0, 1:]
    positions = resize_positions(vit.pos_embed, (1, 2, 3)).flatten(2)[0].T
    embeddings = vit.embed(x, 3).flatten(2)[0].T
    expected = torch.where(masked[0][:, None], token, embeddings) + positions
    assert torch.allclose(tokens, expected)


@torch.no_grad()
def test_features_are_the_outputs_of_the_named_blocks_in_the_order_asked():
    vit = make_vit(depth=3)
    x = random_image(5, 20, 40)  # at DA 2: 2×2×3 tokens
    first, last = vit.features(x, 2, [0, 2])
    assert first.shape == last.shape == (2, 24, 2, 2, 3)
    tokens = vit(x, 2)[:, 1:]
    assert torch.allclose(vit.norm(last.flatten(2).transpose(1, 2)), tokens)
    swapped = vit.features(x, 2, [2, 0])
    assert torch.equal(swapped[0], last) and torch.equal(swapped[1], first)
    del vit.blocks[1:]
    assert torch.equal(vit.features(x, 2, [0])[0], first)


# --- Training


def gradients(loss: Tensor, vit: SpadViT) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(vit.parameters())))


@pytest.mark.parametrize("da", [0, 3, MAX_DA])
def test_every_parameter_learns(da):
    vit = make_vit()
    vit(random_image(PATCH_DEPTHS[da] * 2, 32, 48), da).square().mean().backward()
    for name, parameter in vit.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize("da", [1, MAX_DA])
def test_activation_checkpointing_gives_the_same_gradients(da):
    vit = make_vit()
    x = random_image(9, 32, 48)
    target = torch.randn(24, dtype=torch.double)

    def by_block() -> Tensor:
        tokens, rotation = vit.start(vit.embed(x, da))
        for block in vit.blocks:
            tokens = checkpoint(block, tokens, rotation, use_reentrant=False)
        return vit.norm(tokens)

    expected = gradients((vit(x, da) @ target).square().sum(), vit)
    for tokens in (by_block(), checkpoint(vit, x, da, use_reentrant=False)):
        found = gradients((tokens @ target).square().sum(), vit)
        assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_under_autocast_tokens_stay_near_those_of_float32_and_gradients_are_finite():
    vit = make_vit().float()
    x = random_image(4, 32, 48).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = vit(x, 2)
    expected = vit(x, 2)
    assert (tokens - expected).abs().max() < 0.05 * expected.abs().max()
    assert all(gradient.isfinite().all() for gradient in gradients(tokens.square().mean(), vit))


@torch.no_grad()
def test_one_degree_can_be_frozen_for_export():
    vit = make_vit()
    x = random_image(5, 20, 40)
    assert torch.equal(to_static(vit, 2)(x), vit(x, 2))
