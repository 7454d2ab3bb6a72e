"""Backbones that guess the tokens of masked patches: grids that agree, what a mask hides, what learns."""

from __future__ import annotations

import math

import pytest
import torch

from spadunet.network.masked import TOKEN_LEVEL, MaskedUNet, MaskedViT, cover, token_grid
from spadunet.network.tokenizer import SpadTokenizer
from spadunet.network.unet import SpadUNet
from spadunet.network.vit import SpadViT
from spadunet.spacing import MAX_DA

NUM_TOKENS = 7
SIZES = [(1, 1, 1), (3, 17, 33), (16, 32, 16), (5, 30, 50), (33, 16, 20)]


def tiny_vit() -> MaskedViT:
    """Two blocks of 16 channels."""
    torch.manual_seed(0)
    return MaskedViT(SpadViT(width=16, depth=2, num_heads=2, hidden_width=24), NUM_TOKENS)


def tiny_unet() -> MaskedUNet:
    """Six levels of 16 channels."""
    torch.manual_seed(0)
    return MaskedUNet(SpadUNet([16] * 6, [0, 1, 1, 1, 1, 1]), NUM_TOKENS)


def masks(num_samples: int, num_patches: int, masked: list[int]) -> torch.Tensor:
    """The same patches masked in every sample."""
    result = torch.zeros(num_samples, num_patches, dtype=torch.bool)
    result[:, masked] = True
    return result


@pytest.mark.parametrize("da", range(MAX_DA + 1))
def test_tokenizer_vit_and_unet_cut_any_image_into_the_same_patches(da: int):
    torch.manual_seed(0)
    tokenizer = SpadTokenizer((16, 16, 16))
    vit, encoder = tiny_vit().vit, tiny_unet().encoder
    for size in SIZES:
        image = torch.zeros(1, 3, *size)
        grid = token_grid(size, da)
        with torch.no_grad():
            assert tokenizer.encode(image, da).shape[2:] == grid
            assert vit.embed(image, da).shape[2:] == grid
            assert encoder(image, da)[TOKEN_LEVEL].shape[2:] == grid


def test_a_patch_is_as_deep_as_wide_in_millimetres_and_at_least_one_slice():
    assert [token_grid((80, 160, 160), da)[0] for da in (0, 1, 4, 6)] == [5, 10, 80, 80]
    assert token_grid((5, 160, 160), 4) == (5, 10, 10)
    assert token_grid((1, 160, 160), 6) == (1, 10, 10)


def test_the_head_and_the_mask_token_of_the_base_vit_have_as_many_parameters_as_in_the_paper():
    with torch.device("meta"):
        vit = SpadViT(width=768, depth=1, num_heads=12, hidden_width=2048)
        masked = MaskedViT(vit, 1024)
    extra = sum(p.numel() for p in masked.parameters()) - sum(p.numel() for p in vit.parameters())
    assert extra == 1_378_816  # 768 + 768·768 + 768 + 768·1024 + 1024


def test_only_masked_patches_are_covered_and_a_patch_at_the_border_as_far_as_it_is_there():
    x = torch.zeros(1, 3, 5, 20, 40)
    grid = token_grid((5, 20, 40), 2)
    assert grid == (2, 2, 3)  # patches of 4×16×16
    colour = torch.tensor([1.0, 2.0, 3.0])
    covered = cover(x, 2, masks(1, 12, [1, 11]), colour)
    expected = torch.zeros(5, 20, 40)
    expected[:4, :16, 16:32] = 1
    expected[4:, 16:, 32:] = 1
    for channel, value in enumerate(colour):
        assert torch.equal(covered[0, channel], expected * value)


def test_a_mask_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"masked must be \(1, 12\) for a grid of \(2, 2, 3\), not \(1, 6\)"):
        cover(torch.zeros(1, 3, 5, 20, 40), 2, masks(1, 6, [1]), torch.zeros(3))


def test_a_unet_of_too_few_levels_is_refused():
    with pytest.raises(ValueError, match="the U-Net has 4 levels; a voxel is a patch at level 4"):
        MaskedUNet(SpadUNet([8] * 4, [1] * 4), NUM_TOKENS)


@pytest.mark.parametrize("make", [tiny_vit, tiny_unet])
def test_what_lies_under_a_mask_changes_nothing_and_what_lies_beside_it_does(make):
    network = make()
    image = torch.randn(2, 3, 4, 32, 48)
    masked = masks(2, 6, [0, 4])
    with torch.no_grad():
        logits, voxels = network(image, 2, masked)
        hidden, seen = image.clone(), image.clone()
        hidden[:, :, :, :16, :16] = 5  # patch 0
        seen[:, :, :, :16, 16:32] = 5  # patch 1
        logits_of_hidden, voxels_of_hidden = network(hidden, 2, masked)
        assert torch.equal(logits_of_hidden, logits)
        assert not torch.allclose(network(seen, 2, masked)[0], logits)
        if isinstance(network, MaskedUNet):
            assert voxels.shape == image.shape
            assert torch.equal(voxels_of_hidden, voxels)
            assert not torch.allclose(network(seen, 2, masked)[1], voxels)


@pytest.mark.parametrize("make", [tiny_vit, tiny_unet])
def test_logits_are_of_the_masked_patches_samples_in_order_and_row_major(make):
    network = make()
    image = torch.randn(2, 3, 4, 32, 48)
    masked = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    with torch.no_grad():
        logits, _ = network(image, 2, masked)
        alone = [network(image[i : i + 1], 2, masked[i : i + 1])[0] for i in range(2)]
        torch.testing.assert_close(logits, torch.cat(alone))
        if isinstance(network, MaskedViT):
            tokens = network.vit(image, 2, masked, network.mask_token)
            torch.testing.assert_close(logits[2], network.head(tokens[1, 1 + 4]))  # behind the cls token
        else:
            features = network.encoder(cover(image, 2, masked, network.mask_token), 2)[TOKEN_LEVEL]
            torch.testing.assert_close(logits[2], network.head(features[1, :, 0, 1, 1]))


@pytest.mark.parametrize("make", [tiny_vit, tiny_unet])
def test_every_parameter_learns_from_masked_patches(make):
    network = make()
    logits, voxels = network(torch.randn(1, 3, 16, 32, 32), 1, masks(1, 8, [1, 2]))
    assert logits.shape == (2, NUM_TOKENS)
    (logits.square().sum() + (0 if voxels is None else voxels.square().sum())).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("make", [tiny_vit, tiny_unet])
def test_features_for_a_probe_see_the_whole_image_and_cover_its_grid(make):
    network = make()
    with torch.no_grad():
        maps = network.features(torch.randn(1, 3, 16, 32, 32), 1)
    assert len(maps) == (4 if isinstance(network, MaskedViT) else 5)
    assert maps[2 if isinstance(network, MaskedViT) else 4].shape[2:] == (2, 2, 2)
    assert all(math.isfinite(float(of_map.sum())) for of_map in maps)
