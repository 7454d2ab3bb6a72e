"""Augmentation: how often and how far, what it does to voxels, and that nothing but the generator decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from spadunet.labels import LabelSet
from spadunet.preprocessing.mirror import MirrorAxis
from spadunet.training.augment import (
    Augmentation,
    augment,
    draw_augmentation,
    join,
    mirror,
)
from spadunet.training.grids import rotation
from spadunet.training.intensities import blur, change_contrast, change_gamma, coarsen
from spadunet.training.patch_recipes import PATCH_RECIPES, USUAL

SIZES = [((8, 16, 16), 0), ((4, 16, 16), 2), ((1, 16, 16), 6), ((2, 8, 8), 3), ((5, 7, 9), 0)]
MANY = 4000


def nothing(size, num_patches: int = 1, num_channels: int = 1) -> Augmentation:
    """Leaves patches as they are."""
    ones = torch.ones(num_patches, num_channels)
    return Augmentation(
        size=size,
        matrices=np.stack([np.eye(3)] * num_patches),
        noise=torch.zeros(num_patches, 1),
        noise_seeds=tuple(range(num_patches)),
        blur=torch.zeros(num_patches, num_channels, 3),
        brightness=ones,
        contrast=ones,
        zoom=torch.ones(num_patches, 1),
        gamma=ones,
        keeps_statistics=True,
    )


def boxes(changes: Augmentation) -> tuple[Tensor, Tensor]:
    """What `augment` is given: noise, with labels 0, 1 and 4."""
    generator = torch.Generator().manual_seed(0)
    shape = (len(changes.noise), changes.gamma.shape[1], *changes.read_size)
    image = torch.rand(shape, generator=generator) * 2 - 1
    return image, torch.tensor([0, 1, 4])[torch.randint(3, (shape[0], *shape[2:]), generator=generator)]


def slabs(changes: Augmentation) -> tuple[Tensor, Tensor]:
    """Slices of one value and one label each: the number of the slice."""
    depth, height, width = changes.read_size
    number = torch.arange(depth).view(1, depth, 1, 1).expand(len(changes.noise), depth, height, width).clone()
    return (number / depth)[:, None], number


def draws(da: int, size, num_channels: int = 1, recipe: str = USUAL) -> Augmentation:
    """Many patches."""
    return draw_augmentation(MANY, num_channels, da, size, np.random.default_rng(0), PATCH_RECIPES[recipe])


def check_share(is_changed: np.ndarray | Tensor, share: float) -> None:
    """Of MANY patches, within four standard deviations."""
    assert abs(float(is_changed.sum()) - MANY * share) < 4 * (MANY * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(("size", "da"), SIZES)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_patches_have_their_size_and_range_and_no_new_label(size, da, num_channels):
    generator = np.random.default_rng(0)
    for _ in range(20):  # of three patches; each change by chance, the rarest one time in ten
        changes = draw_augmentation(3, num_channels, da, size, generator)
        image, classes = augment(*boxes(changes), changes)
        assert image.shape == (3, num_channels, *size)
        assert image.dtype == torch.float32
        assert image.isfinite().all()
        assert image.min() >= -1
        assert image.max() <= 1
        assert classes.shape == (3, *size)
        assert classes.dtype == torch.int64
        assert set(classes.unique().tolist()) <= {0, 1, 4}


def test_the_generator_alone_decides_and_the_global_ones_are_left_as_they_were():
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        generator = np.random.default_rng(7)
        drawn = [draw_augmentation(4, 1, 0, (8, 16, 16), generator) for _ in range(4)]
        results.append([augment(*boxes(changes), changes) for changes in drawn])
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
    for (image, classes), (other_image, other_classes) in zip(*results, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(classes, other_classes)
    assert len({image.sum().item() for image, _ in results[0]}) == 4


def test_every_change_is_as_frequent_and_as_large_as_it_should_be():
    changes = draws(0, (8, 16, 16), num_channels=2)
    scales = np.cbrt(np.linalg.det(changes.matrices))
    is_scaled = abs(scales - 1) > 1e-9
    turns = changes.matrices / scales[:, None, None]
    is_turned = (abs(turns - np.eye(3)) > 1e-9).any((1, 2))
    check_share(is_turned, 0.4)
    check_share(is_scaled, 0.4)
    check_share(is_turned & is_scaled, 0.16)
    check_share(changes.noise[:, 0] > 0, 0.15)
    check_share((changes.blur > 0).flatten(1).any(1), 0.1)
    check_share((changes.brightness != 1).any(1), 0.2)
    check_share((changes.contrast != 1).any(1), 0.2)
    check_share((changes.gamma != 1).any(1), 0.4)
    # Uniform from 0.8 to 1.25: the mean of n draws varies by 0.45 / sqrt(12 n).
    assert abs(scales[is_scaled].mean() - 1.025) < 4 * 0.45 / (12 * 0.4 * MANY) ** 0.5
    assert 0.8 <= scales[is_scaled].min() < 0.805
    assert 1.245 < scales[is_scaled].max() <= 1.25
    tilt = np.arcsin(-turns[:, 2, 0])  # of Rz Ry Rx, about the height axis
    assert np.pi / 12 - 0.005 < tilt.max() <= np.pi / 12
    for values, low, high in (
        (changes.brightness, 0.75, 1.25),
        (changes.contrast, 0.75, 1.25),
        (changes.gamma, 0.7, 1.5),
    ):
        changed = values[(values != 1).any(1)]
        assert (changed[:, 0] != changed[:, 1]).all()  # a factor of its own for each channel
        assert low <= changed.min() < low + 0.02
        assert high - 0.02 < changed.max() <= high
        assert abs((changed < 1).float().mean() - 0.5) < 4 * (0.25 / changed.numel()) ** 0.5
    blurred = changes.blur[changes.blur > 0]
    assert 0.5 <= blurred.min() < 0.51
    assert 0.99 < blurred.max() <= 1
    assert 0.0049 < changes.noise.max() <= 0.005
    assert (changes.zoom == 1).all()
    assert (changes.gamma > 0).all()  # none of an inverted patch
    assert changes.keeps_statistics


def test_thick_slices_are_turned_scaled_and_blurred_in_plane_only():
    changes = draws(2, (8, 16, 16))
    assert (changes.matrices[:, 0] == (1, 0, 0)).all()
    assert (changes.matrices[:, 1:, 0] == 0).all()
    assert (changes.blur[:, :, 0] == 0).all()
    in_plane = changes.matrices[:, 1:, 1:]
    angles = np.arctan2(in_plane[:, 1, 0], in_plane[:, 0, 0])
    assert np.pi / 6 - 0.005 < angles.max() <= np.pi / 6 + 1e-9
    sides = np.linalg.norm(in_plane, axis=1)  # pixels along height and width, each scaled by itself
    assert abs(sides[:, 0] - sides[:, 1]).max() > 0.3
    assert changes.read_size[0] == 8
    few = replace(nothing((8, 16, 16), 30), matrices=changes.matrices[:30], blur=changes.blur[:30])
    image, classes = slabs(few)
    seen, found = augment(image.clone(), classes, few)
    assert torch.equal(found, torch.arange(8).view(1, 8, 1, 1).expand(30, 8, 16, 16))
    assert torch.allclose(seen, image[:, :, :, :16, :16], atol=1e-5)


def test_thin_slices_are_turned_out_of_plane():
    changes = replace(nothing((8, 16, 16)), matrices=rotation(0, 0.2, 0)[None])
    _, classes = augment(*slabs(changes), changes)
    assert any(len(piece.unique()) > 1 for piece in classes[0])


def test_short_axes_are_not_blurred():
    assert (draws(0, (3, 16, 16)).blur[:, :, 0] == 0).all()
    assert (draws(0, (4, 16, 16)).blur[:, :, 0] > 0).any()


@pytest.mark.parametrize("turn", [(0.3, 0, 0), (0.2, 0.2, -0.1), (0, 0, 0)])
def test_labels_of_slices_that_were_merged_go_where_their_merged_slice_goes(turn):
    changes = replace(nothing((8, 16, 16), 2), matrices=np.stack([rotation(*turn), np.eye(3)]))
    image, first = boxes(changes)
    stacks = [first, first.flip(1), first.roll(1, 2)]
    together = augment(image.clone(), torch.stack(stacks, dim=2).flatten(1, 2), changes)[1]
    assert together.shape == (2, 24, 16, 16)
    for number, stack in enumerate(stacks):
        assert torch.equal(together[:, number::3], augment(image.clone(), stack, changes)[1])


def test_no_more_is_read_than_the_turn_needs():
    assert nothing((8, 16, 17)).read_size == (8, 16, 17)
    # Zoomed out by 1.25: 15 · 1.25 + 1 = 19.75 voxels of 16, so 20; 7 · 1.25 + 1 = 9.75, so 10. Zoomed in: no less.
    assert replace(nothing((8, 16, 16)), matrices=1.25 * np.eye(3)[None]).read_size == (10, 20, 20)
    assert replace(nothing((8, 16, 16)), matrices=0.8 * np.eye(3)[None]).read_size == (8, 16, 16)
    changes = draws(0, (8, 16, 16))
    half = (np.array(changes.size) - 1) / 2
    corners = np.stack(np.meshgrid(*([-h, h] for h in half), indexing="ij"), -1).reshape(-1, 3)
    reached = abs(corners @ changes.matrices.transpose(0, 2, 1)).max((0, 1))
    spare = (np.array(changes.read_size) - 1) / 2 - reached
    assert (spare >= -1e-6).all()
    assert (spare < 1).all()


@pytest.mark.parametrize("matrix", [rotation(0.2, 0, 0), rotation(0.1, -0.2, 0.15) @ np.diag([1.2] * 3)])
def test_voxels_are_interpolated_as_scipy_does(matrix):
    changes = replace(nothing((6, 9, 8), 2), matrices=np.stack([matrix, np.eye(3)]))
    image, classes = boxes(changes)
    seen, found = augment(image.clone(), classes, changes)
    middle = (np.array(changes.read_size) - 1) / 2
    offset = middle - matrix @ ((np.array(changes.size) - 1) / 2)
    for order, source, result in ((1, image[0, 0], seen[0, 0]), (0, classes[0], found[0])):
        expected = ndimage.affine_transform(
            source.numpy(), matrix, offset, output_shape=changes.size, order=order, mode="nearest"
        )
        assert np.allclose(result.numpy(), expected, atol=1e-5)
    depth, height, width = (
        slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(changes.read_size, changes.size, strict=True)
    )
    assert torch.allclose(seen[1], image[1, :, depth, height, width], atol=1e-6)  # the other is cut out as it is
    assert torch.equal(found[1], classes[1, depth, height, width])


def test_blur_is_scipys_and_each_patch_and_channel_has_its_own():
    x = torch.rand(2, 2, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([[[0.5, 0.0, 1.0], [0.7, 0.6, 0.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]])
    result = blur(x, sigmas[..., None, None, None])
    for patch in range(2):
        for channel in range(2):
            expected = ndimage.gaussian_filter(
                x[patch, channel].double().numpy(), sigmas[patch, channel].numpy(), mode="mirror", radius=3
            )
            assert np.allclose(result[patch, channel].numpy(), expected, atol=1e-5)


def test_contrast_stays_within_the_range_of_the_patch():
    x = torch.tensor([0.0, 0.4, 0.5, 0.7]).view(1, 1, 1, 1, 4)
    # The mean is 0.4: 0 → -0.1, 0.5 → 0.525, 0.7 → 0.775 before they are kept within 0 … 0.7.
    assert torch.allclose(change_contrast(x, torch.tensor(1.25)).flatten(), torch.tensor([0.0, 0.4, 0.525, 0.7]))


def test_gamma_keeps_mean_and_standard_deviation_and_bends_what_lies_between():
    x = torch.rand(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    powers = torch.tensor([0.7, 1.5]).view(2, 1, 1, 1, 1)
    changed = change_gamma(x, powers)
    for function in (torch.mean, torch.std):
        assert torch.allclose(function(changed, (2, 3, 4)), function(x, (2, 3, 4)), atol=1e-5)
    bent = x**powers  # up to a linear map
    for patch in range(2):
        assert np.corrcoef(changed[patch].flatten(), bent[patch].flatten())[0, 1] > 0.9999
    flat = torch.full((1, 1, 2, 2, 2), 0.3)
    assert torch.allclose(change_gamma(flat, torch.tensor(1.5)), flat)


def test_gamma_of_an_inverted_patch_bends_the_other_way_and_leaves_the_rest_to_the_recipe():
    x = torch.tensor([0.2, 0.4, 0.6]).view(1, 1, 1, 1, 3)
    # Inverted, 0.4 lies half way between -0.6 and -0.2: -0.6 + 0.4 · 0.5 ** 1.5 = -0.4586. As it is: 0.2 + 0.1414.
    for power, middle in ((-1.5, 0.45858), (1.5, 0.34142)):
        changed = change_gamma(x, torch.tensor(power).view(1, 1, 1, 1, 1), keeps_statistics=False)
        assert torch.allclose(changed.flatten(), torch.tensor([0.2, middle, 0.6]), atol=1e-5)
    kept = change_gamma(x, torch.tensor(-1.5).view(1, 1, 1, 1, 1))
    for function in (torch.mean, torch.std):
        assert torch.allclose(function(kept), function(x), atol=1e-5)


@pytest.mark.parametrize("inverts", [False, True])
@pytest.mark.parametrize("keeps_statistics", [False, True])
def test_gamma_and_coarser_pixels_are_those_of_batchgeneratorsv2(inverts, keeps_statistics):
    x = torch.rand(2, 4, 9, 16, generator=torch.Generator().manual_seed(0))
    powers, both = torch.tensor([0.8, 1.4]), torch.ones(2, dtype=torch.bool)
    expected = GammaTransform((0.7, 1.5), 0, False, 1, 1)._apply_to_image(
        x.clone(),
        apply_to_channel=torch.arange(2),
        retain_stats=both & keeps_statistics,
        invert_image=both & inverts,
        gamma=powers,
    )
    signed = (-powers if inverts else powers).view(1, 2, 1, 1, 1)
    assert torch.allclose(change_gamma(x[None], signed, keeps_statistics=keeps_statistics)[0], expected, atol=1e-5)
    expected = SimulateLowResolutionTransform((0.5, 1.0), True, True, (0,))._apply_to_image(
        x.clone(), apply_to_channel=[0, 1], scales=torch.tensor([[1.0, 0.63, 0.63]] * 2)
    )
    assert torch.allclose(coarsen(x[None], torch.full((1, 1, 1, 1, 1), 0.63))[0], expected, atol=1e-5)


def test_coarser_pixels_are_the_nearest_ones_interpolated_linearly_in_plane():
    x = torch.rand(3, 2, 5, 9, 16, generator=torch.Generator().manual_seed(0))
    zoom = torch.tensor([0.5, 0.63, 1.0])
    result = coarsen(x, zoom.view(3, 1, 1, 1, 1))
    for patch, share in enumerate(zoom.tolist()):
        fewer = functional.interpolate(
            x[patch : patch + 1], (5, round(9 * share), round(16 * share)), mode="nearest-exact"
        )
        expected = functional.interpolate(fewer, (5, 9, 16), mode="trilinear")
        assert torch.allclose(result[patch], expected[0], atol=1e-5)
    assert torch.allclose(result[2], x[2])
    changes = replace(nothing((5, 9, 16), 2), zoom=torch.tensor([[0.5], [1.0]]))
    image, classes = boxes(changes)
    seen, found = augment(image.clone(), classes, changes)
    assert torch.allclose(
        (seen[0] + 1) / 2, coarsen((image[:1] + 1) / 2, torch.full((1, 1, 1, 1, 1), 0.5))[0], atol=1e-5
    )
    assert torch.allclose(seen[1], image[1], atol=1e-6)
    assert torch.equal(found, classes)


def test_noise_is_as_strong_as_drawn_and_only_where_drawn():
    changes = replace(nothing((8, 16, 16), 2), noise=torch.tensor([[0.004], [0.0]]))
    image = torch.full((2, 1, 8, 16, 16), 0.5)
    result, _ = augment(image.clone(), torch.zeros(2, 8, 16, 16, dtype=torch.int64), changes)
    assert abs(float(result[0].std()) - 0.008) < 4 * 0.008 / (2 * 2048) ** 0.5  # [0, 1] is [-1, 1] outside
    assert torch.equal(result[1], image[1])


def test_brightness_leaves_air_black_and_a_missing_channel_nothing():
    changes = replace(nothing((2, 4, 4), 1, 3), brightness=torch.tensor([[0.8, 1.2, 1.2]]))
    image = torch.tensor([-1.0, 0.0, -0.5]).view(1, 3, 1, 1, 1).expand(1, 3, 2, 4, 4).clone()
    result, _ = augment(image, torch.zeros(1, 2, 4, 4, dtype=torch.int64), changes)
    # (-0.5 + 1) / 2 = 0.25, times 1.2 = 0.3, which is -0.4.
    assert torch.allclose(result[0, :, 0, 0, 0], torch.tensor([-1.0, 0.0, -0.4]))


def test_labels_follow_the_image():
    changes = replace(nothing((12, 16, 16)), matrices=rotation(0.2, 0.2, -0.1)[None] * 0.9)
    classes = torch.zeros((1, *changes.read_size), dtype=torch.int64)
    classes[:, 4:10, 6:14, 6:14] = 1
    image, found = augment(classes[:, None].float() * 2 - 1, classes, changes)
    assert ((image[:, 0] > 0) == (found == 1)).float().mean() > 0.97  # all but the rounding at the cube's faces
    assert found.any()


def test_a_mirrored_patch_has_its_sides_swapped_and_ignored_voxels_ignored():
    labels = LabelSet(names=("background", "left kidney", "right kidney"), ids=(0, 1, 2), ignore_id=9)
    mirrored = labels.mirrored("left-right")
    assert mirrored is not None
    axis = MirrorAxis(array_axis=2, labels=mirrored)
    image, classes = torch.arange(4.0).expand(1, 1, 1, 4), torch.tensor([[[1, 0, 2, 3]]])
    generator = np.random.default_rng(0)
    results = [mirror(image, classes, [axis], generator) for _ in range(200)]
    turned = [(seen.flatten().tolist(), found.flatten().tolist()) for seen, found in results]
    as_it_was, in_mirror = ([0, 1, 2, 3], [1, 0, 2, 3]), ([3, 2, 1, 0], [3, 1, 0, 2])
    assert all(pair in (as_it_was, in_mirror) for pair in turned)
    assert abs(turned.count(in_mirror) - 100) < 4 * (200 / 4) ** 0.5
    assert mirror(image, classes, [], generator) == (image, classes)


def test_a_patch_is_changed_alike_whatever_else_is_in_the_batch():
    for da, recipe in ((0, USUAL), (2, USUAL), (2, "paper-btcv")):
        generator = np.random.default_rng(3)
        parts = [draw_augmentation(1, 2, da, (8, 16, 16), generator, PATCH_RECIPES[recipe]) for _ in range(12)]
        whole = join(parts)
        image, classes = boxes(whole)
        seen, found = augment(image.clone(), classes, whole)
        for first in range(0, 12, 3):
            one, labels = augment(
                image[first : first + 3].clone(), classes[first : first + 3], join(parts[first : first + 3])
            )
            assert torch.allclose(one, seen[first : first + 3], atol=1e-6)
            assert torch.equal(labels, found[first : first + 3])


@pytest.mark.parametrize(("name", "largest"), [("paper-btcv", 1.4), ("paper-chaos", 1.1)])
@pytest.mark.parametrize("da", [0, 2])
def test_the_papers_patches_are_turned_about_depth_by_up_to_90_degrees_and_scaled_along_all_axes(name, largest, da):
    changes = draws(da, (8, 16, 16), recipe=name)
    scales = np.linalg.norm(changes.matrices, axis=1)  # of each axis
    assert np.allclose(scales, scales[:, :1])
    is_scaled = abs(scales[:, 0] - 1) > 1e-9
    turns = changes.matrices / scales[:, :1, None]
    is_turned = (abs(turns - np.eye(3)) > 1e-9).any((1, 2))
    check_share(is_scaled, 0.2)
    check_share(is_turned, 0.2)
    assert 0.7 <= scales.min() < 0.71
    assert largest - 0.01 < scales.max() <= largest + 1e-9
    assert (changes.matrices[:, 0, 1:] == 0).all()
    assert (changes.matrices[:, 1:, 0] == 0).all()
    angles = np.rad2deg(np.arctan2(turns[:, 2, 1], turns[:, 1, 1]))
    assert 85 < np.abs(angles).max() <= 90


@pytest.mark.parametrize("name", ["paper-btcv", "paper-chaos"])
def test_the_papers_patches_meet_each_change_of_intensity_as_often_as_published(name):
    changes = draws(2, (8, 16, 16), num_channels=2, recipe=name)
    check_share(changes.noise[:, 0] > 0, 0.1)
    assert 0.095 < changes.noise.max() <= 0.1
    check_share((changes.blur > 0).flatten(1).any(1), 0.1)
    blurred = changes.blur[changes.blur > 0]
    assert 0.8 <= blurred.min() < 0.81
    assert 1.19 < blurred.max() <= 1.2
    assert (changes.blur[:, :, 0] > 0).any()  # along depth too, though slices are thick
    check_share((changes.brightness != 1).any(1), 0.15)
    check_share((changes.contrast != 1).any(1), 0.15)
    check_share(changes.zoom[:, 0] != 1, 0.15)
    assert 0.5 <= changes.zoom.min() < 0.51
    check_share((changes.gamma == 1).all(1), 9 / 13)
    check_share(((changes.gamma > 0) & (changes.gamma != 1)).all(1), 3 / 13)
    check_share((changes.gamma < 0).all(1), 1 / 13)
    assert not changes.keeps_statistics


@pytest.mark.parametrize("name", ["paper-btcv", "paper-chaos"])
def test_the_papers_factors_are_even_between_their_limits(name):
    changes = draws(2, (8, 16, 16), num_channels=2, recipe=name)
    for values, low, high in (
        (changes.brightness, 0.75, 1.25),
        (changes.contrast, 0.75, 1.25),
        (changes.gamma.abs(), 0.7, 1.5),  # 3/8 of them below 1
    ):
        changed = values[values != 1]
        below, width = (1 - low) / (high - low), high - low
        assert low <= changed.min() < low + 0.02
        assert high - 0.02 < changed.max() <= high
        assert abs((changed < 1).float().mean() - below) < 4 * (below * (1 - below) / changed.numel()) ** 0.5
        assert abs(changed.mean() - (low + high) / 2) < 4 * width / (12 * changed.numel()) ** 0.5


def test_how_gamma_is_drawn_changes_nothing_else():
    recipe = PATCH_RECIPES[USUAL]
    drawn = [
        draw_augmentation(50, 2, 0, (8, 16, 16), np.random.default_rng(0), replace(recipe, has_even_gamma=is_even))
        for is_even in (False, True)
    ]
    assert not torch.equal(drawn[0].gamma, drawn[1].gamma)
    for name in ("matrices", "noise", "blur", "brightness", "contrast", "zoom"):
        assert np.array_equal(*(np.asarray(getattr(changes, name)) for changes in drawn)), name
    assert drawn[0].noise_seeds == drawn[1].noise_seeds


def test_the_papers_patches_read_more_along_depth_too_where_slices_are_thick():
    assert draws(2, (8, 16, 16), recipe="paper-btcv").read_size[0] == 12  # 7 · 1.4 + 1 = 10.8, by an even number more
    assert draws(2, (8, 16, 16)).read_size[0] == 8
