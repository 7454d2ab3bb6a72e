"""EVA-02's weights in a SPAD-ViT, against EVA-02's own 2D forward pass."""

from __future__ import annotations

import pytest
import torch
from eva02_file import file_shapes, random_file
from torch import Tensor, nn
from torch.nn import functional

from spadunet.network.eva02 import INFLATED, from_eva02
from spadunet.network.inflate import fold_normalisation, inflate_kernel, resize_kernel
from spadunet.network.vit import SpadViT
from spadunet.spacing import MAX_DA

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def eva02_2d(file: dict[str, Tensor], images: Tensor, num_heads: int) -> Tensor:
    """EVA-02's forward pass on normalised images (B, 3, H, W) with its patch embedding resized to 16, in tokens.

    Its rotary table is made for the grid at hand, one row or column a step. The patch positions are resized to the grid
    by averaging.
    """
    p = {name: value.to(images.dtype) for name, value in file.items()}
    kernel = functional.interpolate(p["patch_embed.proj.weight"], size=(16, 16), mode="bicubic")
    x = functional.conv2d(images, kernel, p["patch_embed.proj.bias"], stride=16)
    height, width = x.shape[2:]
    positions = p["pos_embed"][:, 1:].reshape(1, 16, 16, -1).permute(0, 3, 1, 2)
    positions = functional.adaptive_avg_pool2d(positions, (height, width)).flatten(2).transpose(1, 2)
    positions = torch.cat([p["pos_embed"][:, :1], positions], dim=1)
    x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1) + positions

    channels = x.shape[2]
    half = channels // num_heads // 2
    freqs = 1.0 / (10000 ** (torch.arange(0, half, 2).to(x.dtype) / half))
    steps = [torch.arange(size).to(x.dtype)[:, None] * freqs for size in (height, width)]
    rows, columns = (step.repeat_interleave(2, dim=-1) for step in steps)
    table = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1).flatten(0, 1)

    def rope(t: Tensor) -> Tensor:
        a, b = t.unflatten(-1, (-1, 2)).unbind(-1)
        return t * table.cos() + torch.stack((-b, a), dim=-1).flatten(-2) * table.sin()

    for number in range(sum(name.endswith("attn.q_bias") for name in p)):
        w = {name.removeprefix(f"blocks.{number}."): value for name, value in p.items()}
        y = functional.layer_norm(x, (channels,), w["norm1.weight"], w["norm1.bias"], 1e-6)
        q = functional.linear(y, w["attn.q_proj.weight"], w["attn.q_bias"])
        k = functional.linear(y, w["attn.k_proj.weight"])
        v = functional.linear(y, w["attn.v_proj.weight"], w["attn.v_bias"])
        q, k, v = (t.reshape(*t.shape[:2], num_heads, -1).permute(0, 2, 1, 3) for t in (q, k, v))
        q, k = (torch.cat([t[:, :, :1], rope(t[:, :, 1:])], dim=2) for t in (q, k))
        attention = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        y = (attention @ v).transpose(1, 2).flatten(2)
        x = x + functional.linear(y, w["attn.proj.weight"], w["attn.proj.bias"])
        y = functional.layer_norm(x, (channels,), w["norm2.weight"], w["norm2.bias"], 1e-6)
        gate = functional.silu(functional.linear(y, w["mlp.w1.weight"], w["mlp.w1.bias"]))
        y = gate * functional.linear(y, w["mlp.w2.weight"], w["mlp.w2.bias"])
        y = functional.layer_norm(y, y.shape[-1:], w["mlp.ffn_ln.weight"], w["mlp.ffn_ln.bias"], 1e-6)
        x = x + functional.linear(y, w["mlp.w3.weight"], w["mlp.w3.bias"])
    return functional.layer_norm(x, (channels,), p["norm.weight"], p["norm.bias"], 1e-6)


def assert_is_eva02(width: int, depth: int, num_heads: int, hidden_width: int, grid: tuple[int, int]) -> None:
    """On one-slice images, in double precision."""
    file = random_file(width, depth, hidden_width)
    vit = SpadViT(width=width, depth=depth, num_heads=num_heads, hidden_width=hidden_width, position_grid=(5, *grid))
    vit.load_state_dict(from_eva02(file, vit))
    unit = torch.rand(2, 3, 16 * grid[0], 16 * grid[1], dtype=torch.double)
    normalised = (unit - MEAN[:, None, None].double()) / STD[:, None, None].double()
    expected = eva02_2d(file, normalised, num_heads)
    found = vit.double()((2 * unit - 1)[:, :, None], MAX_DA)
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()  # the file is in float32


@torch.no_grad()
@pytest.mark.parametrize("grid", [(16, 16), (10, 10), (4, 7)])
def test_one_slice_gives_what_eva02_gives_for_the_normalised_image(grid):
    assert_is_eva02(width=24, depth=2, num_heads=2, hidden_width=40, grid=grid)


@torch.no_grad()
@pytest.mark.slow
def test_one_slice_gives_what_eva02_base_gives_for_the_normalised_image():
    assert_is_eva02(width=768, depth=12, num_heads=12, hidden_width=2048, grid=(10, 10))


@pytest.mark.parametrize(
    ("width", "depth", "num_heads", "hidden_width"),
    [(768, 12, 12, 2048), (1024, 24, 16, 2730)],
    ids=["base", "large"],
)
def test_the_published_layouts_fill_the_whole_network(width, depth, num_heads, hidden_width):
    with torch.device("meta"):
        file = {name: torch.empty(shape) for name, shape in file_shapes(width, depth, hidden_width).items()}
        vit = SpadViT(width=width, depth=depth, num_heads=num_heads, hidden_width=hidden_width)
    # The values of three tensors are computed; they are small enough to be real.
    for name in ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed", "cls_token"):
        file[name] = torch.zeros(file[name].shape)
    tensors = from_eva02(file, vit)
    assert {n: v.shape for n, v in tensors.items()} == {n: v.shape for n, v in vit.state_dict().items()}
    assert set(INFLATED) <= set(tensors)


@torch.no_grad()
def test_cls_token_takes_position_zero_and_each_depth_the_same_positions():
    file = random_file(8, 1, 8)
    vit = SpadViT(width=8, depth=1, num_heads=1, hidden_width=8, position_grid=(5, 16, 16))
    tensors = from_eva02(file, vit)
    assert torch.equal(tensors["cls_token"], file["cls_token"] + file["pos_embed"][:, :1])
    expected = file["pos_embed"][0, 1:].T.view(8, 16, 16)
    for depth in range(5):
        assert torch.allclose(tensors["pos_embed"][0, :, depth], expected)


# --- Inflation


@torch.no_grad()
def test_inflated_kernel_is_the_2d_one_for_one_slice_and_for_repeated_slices():
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 16, 16)
    vit = SpadViT(width=4, depth=0, num_heads=1, hidden_width=4)
    vit.patch_embed.weight.copy_(inflate_kernel(weight, 16))
    slice_ = torch.randn(1, 3, 1, 32, 16)
    expected = functional.conv2d(slice_[:, :, 0], weight, vit.patch_embed.bias, stride=16)[:, :, None]
    for da, depth in ((0, 16), (2, 4), (4, 1), (MAX_DA, 1)):
        assert torch.allclose(vit.embed(slice_.expand(-1, -1, depth, -1, -1), da), expected, atol=1e-4)


@torch.no_grad()
def test_folded_normalisation_is_exact_on_images_in_minus_one_to_one():
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 4, stride=4).double()
    weight, bias = fold_normalisation(layer.weight, layer.bias, MEAN.tolist(), STD.tolist())
    x = torch.rand(2, 3, 8, 12, dtype=torch.double) * 2 - 1
    mean, std = (torch.tensor(v.tolist(), dtype=torch.double)[:, None, None] for v in (MEAN, STD))
    expected = layer(((x + 1) / 2 - mean) / std)
    assert torch.allclose(functional.conv2d(x, weight, bias, stride=4), expected, atol=1e-12)


def test_resized_kernel_keeps_a_constant_and_nearly_a_slope():
    ramp = torch.arange(14.0).expand(1, 1, 14, 14)
    resized = resize_kernel(ramp, 16)
    assert resized.shape == (1, 1, 16, 16)
    inner = resized[0, 0, 0, 2:-2]  # where the kernel does not reach over the rim
    assert torch.allclose(inner, (torch.arange(2.0, 14.0) + 0.5) * 14 / 16 - 0.5, atol=0.06)
    assert torch.allclose(resize_kernel(torch.ones(1, 1, 14, 14), 16), torch.ones(1, 1, 16, 16))


# --- Files that do not fit


def change(file: dict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    names = {name.replace(".", "_"): name for name in file}
    merged = file | {names.get(key, key): value for key, value in changes.items()}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks_0_attn_q_bias": None}, "^lacks blocks.0.attn.q_bias; give an EVA-02 Base or Large"),
        ({"cls_token": torch.zeros(1, 1, 9)}, r"^cls_token has shape \(1, 1, 9\), expected \(1, 1, 8\); EVA-02-B fits"),
        ({"pos_embed": torch.zeros(1, 256, 8)}, r"^pos_embed has shape \(1, 256, 8\), expected \(1, 257, 8\)"),
        ({"gamma_1": torch.zeros(8)}, "^gamma_1 is no tensor of an EVA-02 as pre-trained"),
    ],
)
def test_a_file_that_does_not_fit_is_told_by_its_tensor(changes, message):
    vit = SpadViT(width=8, depth=1, num_heads=1, hidden_width=8)
    with pytest.raises(ValueError, match=message):
        from_eva02(change(random_file(8, 1, 8), **changes), vit)


def test_positions_of_another_square_grid_are_taken():
    vit = SpadViT(width=8, depth=1, num_heads=1, hidden_width=8)
    file = change(random_file(8, 1, 8), pos_embed=torch.ones(1, 1 + 24**2, 8))
    assert torch.allclose(from_eva02(file, vit)["pos_embed"], torch.ones(1, 8, 5, 10, 10))
